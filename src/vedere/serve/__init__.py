"""What is served: the web page for composing articles."""
