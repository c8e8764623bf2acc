"""Reports: a run and its evidence in, JUnit, HTML, Markdown and text out."""
