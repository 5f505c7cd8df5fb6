"""Automatic names of layers: the class name in snake case, numbered from the second on, as Keras numbers them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

# What next gives is the number of the next layer of that name. No lock: a forked child would inherit it locked.
_used: dict[str, Iterator[int]] = {}


def snake_case(name: str) -> str:
    """'LocallyConnected1D' as 'locally_connected1d'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z0-9])", "_", name).lower()


def automatic_name(class_name: str) -> str:
    """The next name for a layer of this class: conv1d, conv1d_1, conv1d_2, ...

    A name that a user chose does not count.
    """
    base = snake_case(class_name)
    number = next(_used.setdefault(base, itertools.count()))
    return f"{base}_{number}" if number else base


def restart() -> None:
    """Start all numbering anew."""
    _used.clear()
