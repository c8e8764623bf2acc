"""A run: cells, sides and seeds in, trials and results in a folder that can be resumed out."""
