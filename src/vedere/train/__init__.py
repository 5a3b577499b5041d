"""Staged training: losses, stages, optimiser, loop, monitors."""
