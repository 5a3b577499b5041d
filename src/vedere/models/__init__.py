"""Bricks, towers, decoder and assemblies. Model code is single-device; parallelism is applied from outside."""
