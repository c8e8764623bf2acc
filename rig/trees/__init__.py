"""Trees: a base and the patches of a series in, one commit for each prefix of the series out."""
