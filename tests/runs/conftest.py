"""Commands of the tiny problem for tests of one run."""

from tiny_problem import command, runs, settings, tiny

__all__ = ["command", "runs", "settings", "tiny"]
