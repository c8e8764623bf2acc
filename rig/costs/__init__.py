"""Costs: the same work on several kernels in, counts, times and what may be claimed of them out."""
