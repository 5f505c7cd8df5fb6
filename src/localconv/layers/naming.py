"""Automatic names of layers: the class name in snake case, numbered from the second on, as Keras numbers them."""

from __future__ import annotations

import re
import threading
from collections import Counter

_lock = threading.Lock()
_used: Counter[str] = Counter()


def snake_case(name: str) -> str:
    """'LocallyConnected1D' as 'locally_connected1d'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z0-9])", "_", name).lower()


def automatic_name(class_name: str) -> str:
    """The next name for a layer of this class: conv1d, conv1d_1, conv1d_2, ... A name that a user chose does not count."""
    base = snake_case(class_name)
    with _lock:
        number = _used[base]
        _used[base] += 1
    return f"{base}_{number}" if number else base


def restart() -> None:
    """Start all numbering anew."""
    with _lock:
        _used.clear()
