"""``python -m localconv`` prints the configuration."""

from .machine import show_config

show_config()
