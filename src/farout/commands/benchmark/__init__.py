"""What things cost here: each command measures a ratio within one run, so that it can be repeated anywhere."""
