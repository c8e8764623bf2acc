"""Kernels: prefixes and flavours in, kernels of the store out."""
