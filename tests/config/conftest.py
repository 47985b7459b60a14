"""Commands of the tiny problem for tests of what is asked."""

from tiny_problem import command, runs, settings, tiny

__all__ = ["command", "runs", "settings", "tiny"]
