"""Records: runs of the series in patches/ in, verdicts.json and the tables of its READMEs out."""
