"""Generation: cache, sampling, engine, and the session that joins pictures and text with them."""
