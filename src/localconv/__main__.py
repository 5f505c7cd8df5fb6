"""``python -m localconv`` prints the configuration."""

from .config import show_config

show_config()
