"""What is shown: tables beside the papers' numbers, figures, and a page for each run."""
