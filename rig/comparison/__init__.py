"""Comparison: two runs in, what is new, gone, worse and better out."""
