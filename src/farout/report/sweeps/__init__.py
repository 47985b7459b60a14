"""Sweeps: what their jobs leave while they run, and one table of it as CSV, Markdown and a page."""
