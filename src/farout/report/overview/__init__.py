"""index.html: every run of a folder on one page, from the files that the runs left."""
