"""Figures of one evaluation, one kind a module; `farout.report.drawings` draws them all."""
