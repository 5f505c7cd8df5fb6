"""The version: this line is its one place."""

__version__ = "0.2.0"
