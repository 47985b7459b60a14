"""The version of this package, in a place of its own: whatever `farout` exports may ask for it."""

__version__ = "0.1.0"
