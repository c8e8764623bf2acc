"""Pipelines: kernels into one file, cells into jobs, the runs of parts into one run, a run into what b4 wants."""
