"""Recorded outputs of the original implementations, compared with vedere's; one file a kind of folder."""
