"""Records become samples, samples become documents, documents become packs.

``formats`` and ``shards`` read records, ``mixture`` draws from several of them, ``prepare`` renders a sample, ``packing``
joins documents, ``loader`` does all of it in worker processes with an exact state; ``build`` makes corpora. Nothing here
knows a model.
"""
