"""Commands of the tiny problem for tests of command lines."""

from tiny_problem import command, runs, settings, tiny

__all__ = ["command", "runs", "settings", "tiny"]
