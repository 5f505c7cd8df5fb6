"""Weights in NumPy's .npz: a zip archive with one .npy for each weight,
and one that lists layers and weights in order.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.arrays import Array
from . import archive
from .stored import (
    JSON_LIMIT,
    MOST_PARTS,
    Header,
    NameLimit,
    Refused,
    StoredArray,
    StoredLayer,
    has_too_many_parts,
    opened,
    reading,
)

# The member that lists layers and their weights; it cannot be a weight's name.
INDEX = "localconv layers"

# NumPy writes it in four bytes a character.
INDEX_LIMIT = 4 * JSON_LIMIT

# Of a .npy: 128 bytes usually, and some more for very many axes.
HEADER_LIMIT = 4096


def write(layers: list[tuple[str, dict[str, Array]]], file: BinaryIO) -> None:
    """Write layers, each a name and its weights by name."""
    arrays: dict[str, Array] = {}
    index, names = [], NameLimit()
    for layer, weights in layers:
        keys = [f"{layer}/{name}" for name in weights]
        names.take_to_save(1 + len(keys), sum(map(len, keys), len(layer)))
        index.append([layer, keys])
        if not arrays.keys().isdisjoint(keys):
            raise ValueError(
                f"weights must have different names to be saved, those of layer {layer} are there already: {keys}"
            )
        arrays |= zip(keys, weights.values(), strict=True)
    text = json.dumps(index)
    if len(text) > JSON_LIMIT or has_too_many_parts(text):
        raise ValueError(
            f"the names of layers and weights must be at most {JSON_LIMIT} characters of JSON with {MOST_PARTS} lists "
            f"to be saved as .npz, those of {len(layers)} layers are more"
        )
    np.savez(file, **{INDEX: np.array(text)}, **arrays)  # type: ignore[arg-type]  # none is called allow_pickle


@contextlib.contextmanager
def stored_layers(path: Path) -> Iterator[list[StoredLayer]]:
    """A context that yields the layers in a file; their arrays can be read as long as it lasts."""
    with opened(path) as file, contextlib.ExitStack() as stack:
        with reading(path):
            if file.read(len(archive.SIGNATURE)) != archive.SIGNATURE:
                raise Refused("is damaged, or was not written by save_weights")
            members = stack.enter_context(zipfile.ZipFile(file))
            layers = _layers(members, path)
        yield layers


def _layers(members: zipfile.ZipFile, path: Path) -> list[StoredLayer]:
    if f"{INDEX}.npy" not in members.namelist():
        raise Refused("was not written by save_weights")
    index = _Member(members, path, INDEX).text()
    if has_too_many_parts(index):
        raise Refused(f"lists layers and weights by more than {MOST_PARTS} lists and dicts")
    names = NameLimit()
    layers = []
    for layer, keys in json.loads(index):
        if not isinstance(layer, str) or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Refused("is damaged: its index is not one of layers and weights")
        names.take(1 + len(keys), sum(map(len, keys), len(layer)))
        layers.append(StoredLayer(layer, [_Member(members, path, key) for key in keys]))
    return layers


class _Member(StoredArray):
    """A .npy in the archive."""

    def __init__(self, members: zipfile.ZipFile, path: Path, key: str) -> None:
        super().__init__(path, key)
        self._members = members

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        with self._members.open(archive.member(self._members, f"{self.name}.npy")) as stream:
            yield stream

    def _header(self) -> Header:
        with self._open() as stream:
            # Version 1, which holds every array of numbers, has a header of at most 64 KiB. The others may have one of
            # 4 GiB.
            if np.lib.format.read_magic(stream) != (1, 0):
                raise Refused(f"holds {self.name} in another version of .npy than save_weights writes")
            try:
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=HEADER_LIMIT)
            except (MemoryError, RecursionError) as error:  # Python's parser says so of deep nesting
                raise Refused(f"is damaged: the header of {self.name} is nested too deeply") from error
        return shape, dtype

    def _values(self) -> Array:
        with self._open() as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=HEADER_LIMIT)
            if stream.read(1):  # at the end the archive compares its checksum
                raise Refused(f"is damaged: {self.name} is longer than its header says")
        return array

    def text(self) -> str:
        """The index: a string in a .npy."""
        shape, dtype = self._header()
        if shape or dtype.kind != "U" or dtype.itemsize > INDEX_LIMIT:
            raise Refused(f"is damaged: {self.name} is {dtype}{shape}, no text of at most {INDEX_LIMIT} bytes")
        values = self._values()
        # NumPy makes a str of any numbers, and Python trusts them to be characters.
        if (values.reshape(-1).view(np.dtype(np.uint32).newbyteorder(dtype.byteorder)) > sys.maxunicode).any():
            raise Refused(f"is damaged: {self.name} is no text")
        return str(values)
