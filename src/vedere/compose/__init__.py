"""Illustrated articles: the document, the prompts of the published models, the pipeline, edits and exports."""
