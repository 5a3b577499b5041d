"""Text: tokenizers, chat templates as data, and the one place where media become token positions."""
