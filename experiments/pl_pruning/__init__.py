"""Structured pruning by the condition number, after the abstract of [Chen 2023]."""
