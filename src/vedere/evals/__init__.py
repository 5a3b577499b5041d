"""Scores of benchmarks from recorded answers: record in, verdict out. No model, no network, nothing random.

One module a family of benchmarks, each with the function ``score(rows) -> Scores``; `benchmarks` names them. Rules follow
the official scripts; where harnesses differ, the other figures stand beside the official one under keys of their own.
"""
