"""A whole table: its rows and stages, in slices of time, on one machine after another."""
