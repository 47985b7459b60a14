"""Figures of one evaluation, one kind a module; `farout.report.figures.drawings` draws them all."""
