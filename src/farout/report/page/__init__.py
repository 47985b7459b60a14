"""report.html: one page for a run, from its folder alone; no script and no network."""
