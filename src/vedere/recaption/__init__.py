"""Clean captions for a set of pictures, by a local model or an endpoint: the data of S1.2 (EViP)."""
