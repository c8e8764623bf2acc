"""A trial: one cell and one seed in, a status and findings out."""
