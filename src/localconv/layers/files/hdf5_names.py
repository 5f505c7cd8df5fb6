"""Whether the names of layers and weights can be places in an HDF5 file: asked before anything is written.

HDF5 takes a name for a path: ``a/b`` is in the group ``a``, ``a//b`` and ``./a/b`` are the same, ``/a`` begins at the
file's root. So names that differ may be one place, and a layer's may be that of another's weights or of a group that
every file has. Keras 2 finds out in the middle of the file. What it writes is written here, and the rest is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from ..arguments import shown
from .hdf5_datasets import DEEPEST, MOST_LINKS
from .stored import NameLimit

# The group of a whole model's weights, and that of the weights that belong to no layer.
MODEL_WEIGHTS = "model_weights"
TOP_LEVEL = "top_level_model_weights"

Place = tuple[str, ...]
Named = TypeVar("Named")
REMEDY = "give it another name, or save in another format"


class _Owner(NamedTuple):
    """Whose a place is, a layer's or (None) the file's own, and whether it is a dataset."""

    layer: str | None
    is_dataset: bool


class Places:
    """What will be where in a file."""

    def __init__(self) -> None:
        self._taken: dict[Place, _Owner] = {(): _Owner(None, False)}

    def claim(self, parent: Place, name: str, layer: str | None, is_dataset: bool = False) -> Place:
        """Note the group or dataset of this name in a group, and return where it is.

        ValueError, naming the layer, if there is something already, or below a dataset, or too deep to be read.
        """
        parts = [part for part in name.split("/") if part]
        inner = tuple(part for part in parts if part != ".")
        place = inner if name.startswith("/") else parent + inner
        is_there = parts[-1:] == ["."]  # a group's name for itself
        for length in range(len(place) + is_there):
            if self._taken.setdefault(place[:length], _Owner(layer, False)).is_dataset:
                raise self._conflict(place[:length], layer)
        if place in self._taken:
            raise self._conflict(place, layer)
        if len(place) >= DEEPEST:
            raise ValueError(f"layer {shown(layer)} cannot be saved: its name has {len(place)} parts; {REMEDY}")
        self._taken[place] = _Owner(layer, is_dataset)
        if len(self._taken) > MOST_LINKS:
            raise ValueError(f"a model of more than {MOST_LINKS} groups and weights cannot be saved as HDF5")
        return place

    def _conflict(self, place: Place, layer: str | None) -> ValueError:
        owner = self._taken[place].layer
        if layer is None:  # the file's own are claimed last, as they are written
            owner, layer = layer, owner
        whose = "the file's own" if owner is None else "its own" if owner == layer else f"that of layer {shown(owner)}"
        return ValueError(
            f"layer {shown(layer)} cannot be saved: what is {shown('/'.join(place))} in the file is {whose}; {REMEDY}"
        )


def check_names(layers: Sequence[tuple[str, Iterable[str]]], whole: bool) -> None:
    """ValueError unless layers, each a name and the names of its weights, can be in a file of the older layout.

    whole: a whole model's, whose weights are in a group.
    """
    places, limit = Places(), NameLimit()
    root = places.claim((), MODEL_WEIGHTS, None) if whole else ()
    _count(limit, [layer for layer, _ in layers])
    for layer, weights in in_order(layers):
        names = list(weights)
        _count(limit, names)
        group = places.claim(root, layer, layer)
        for name in names:
            places.claim(group, name, layer, True)
    places.claim(root, TOP_LEVEL, None)


def in_order(layers: Sequence[tuple[str, Named]]) -> list[tuple[str, Named]]:
    """Layers as Keras writes them, by their names: ``a`` is there when ``a/b`` is put into it."""
    return sorted(layers, key=lambda layer: layer[0])


def _count(limit: NameLimit, names: list[str]) -> None:
    """Names as an attribute has them, each as long as the longest."""
    limit.take_to_save(len(names), len(names) * max((len(name.encode()) for name in names), default=0))
