"""Condition numbers of neural networks, and pruning by them, in functional JAX."""

__version__ = "0.1.0"
