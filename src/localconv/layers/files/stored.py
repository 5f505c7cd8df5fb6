"""What a file of weights looks like to those who load it, whatever its format, and how much it may ask for.

A file becomes a list of `StoredLayer`, and its arrays become descriptions: shapes and dtypes from their headers. What
belongs to which weight is decided by these; an array is read when the weight that it fits is known, so that memory
follows the model, not the file.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.arguments import shortened
from ...core.arrays import Array

MIB = 2**20

# What a file declares (unpacked members of archives, datasets, texts) may be so many times what it is itself, or this
# if that is more.
LARGEST_RATIO = 20
SMALL_ENOUGH = 64 * MIB

# Names of layers and weights: of all together, with what Python takes for each.
NAMES_LIMIT = 16 * MIB
NAME_OVERHEAD = 64

# JSON: a model's config, a .npz's index. It is lists and dicts, which take twenty times their text. A layer has about
# ten of them in a config: enough for ten thousand layers.
JSON_LIMIT = 16 * MIB
MOST_PARTS = 100_000

# Of an error: some values as they are shown, and words around them.
LONGEST_MESSAGE = 4000

# Of a file that was taken for a model's; a continuation of its path.
WEIGHTS_ONLY = "holds no model but weights only: make the model, then load_weights"

# What to do about files that Keras 2 reads, and this package not.
NO_SHAPE = (
    "Make the model in code with the input_shape of its first layer, then load_weights reads the weights of this file; "
    "`python -m localconv inspect FILE` lists the layers"
)
BY_KERAS_2 = "Make the model in code in Keras 2, whose load_weights reads the weights of this file, and save it there"

Source = io.RawIOBase | io.BytesIO
Header = tuple[tuple[int, ...], np.dtype[np.generic]]


class Refused(ValueError):
    """What is wrong with a file, in words that continue its path; `reading` puts that in front."""


@contextlib.contextmanager
def reading(path: Path, otherwise: str = "is damaged") -> Iterator[None]:
    """Within this context, whatever the parsers of files raise is a ValueError that names the file.

    Other than that is only what is not the content's fault: no memory, no such file, no permission, no module.
    A message never has more of the content than `LONGEST_MESSAGE`, nor has one that it would be printed with.
    """
    try:
        yield
    except Refused as error:
        raise ValueError(f"{path} {shortened(str(error), LONGEST_MESSAGE)}") from error.__cause__
    except (MemoryError, FileNotFoundError, PermissionError, IsADirectoryError, ImportError):
        raise
    except Exception as error:
        text = str(error) or repr(error)
        message = f"{path} {otherwise}: {shortened(text, LONGEST_MESSAGE)}"
        raise ValueError(message) from (error if len(text) <= LONGEST_MESSAGE else None)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading. OSError if that cannot be, ValueError if it is none."""
    _check_not_of_tensorflow(path)
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a directory the system says so itself
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb", buffering=0) as file:
        yield file


def _check_not_of_tensorflow(path: Path) -> None:
    """ValueError for what TensorFlow saves in several files, a model in a folder or a checkpoint."""
    kind = (
        "a SavedModel, a folder"
        if (path / "saved_model.pb").exists()
        else "a checkpoint, several files"
        if not path.exists() and Path(f"{path}.index").exists()
        else None
    )
    if kind is not None:
        raise ValueError(
            f"{path} is {kind} of TensorFlow's, which only that reads: load it in Keras 2 (tensorflow up to 2.15, or "
            "tf_keras) and save it there as .keras or .h5, a model by save, weights by save_weights"
        )


def limit_of(size: int) -> int:
    """How many bytes something of this size in a file may declare."""
    return max(SMALL_ENOUGH, LARGEST_RATIO * size)


def has_too_many_parts(text: str) -> bool:
    """Whether a JSON text may have more than `MOST_PARTS` lists and dicts; known before any is made."""
    return text.count("{") + text.count("[") > MOST_PARTS


class NameLimit:
    """How much of `NAMES_LIMIT` a file has left."""

    def __init__(self) -> None:
        self.left = NAMES_LIMIT

    def take(self, count: int, size: int) -> None:
        """Count so many names of this size together. ValueError if it is too much."""
        self.left -= size + NAME_OVERHEAD * count
        if self.left < 0:
            raise Refused(f"holds more than {NAMES_LIMIT} bytes of names of layers and weights")

    def take_to_save(self, count: int, size: int) -> None:
        """`take` for names that are still to be written. ValueError if no file that has them could be read."""
        try:
            self.take(count, size)
        except Refused:
            raise ValueError(
                f"names of layers and weights must have at most {NAMES_LIMIT} bytes together to be saved, each counted "
                f"as {NAME_OVERHEAD} more"
            ) from None


class StoredArray(ABC):
    """An array in a file that is open.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    name : str
        Of the array in it.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @property
    def shape(self) -> tuple[int, ...]:
        """From the header. ValueError if that is not one of an array of real numbers."""
        return self._checked_header[0]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """From the header. The same errors."""
        return self._checked_header[1]

    def read(self) -> Array:
        """All values. ValueError if the file does not hold what the header says."""
        expected = self._checked_header
        with reading(self.path):
            array = self._values()
            if (array.shape, array.dtype) != expected:
                raise Refused(
                    f"holds {self.name} as {array.dtype}{array.shape}, and declares {expected[1]}{expected[0]}"
                )
        return array

    @cached_property
    def _checked_header(self) -> Header:
        with reading(self.path):
            shape, dtype = self._header()
            if dtype.kind not in "fiub":
                raise Refused(f"holds {self.name} as {dtype}, not as real numbers")
        return shape, dtype

    @abstractmethod
    def _header(self) -> Header:
        """Shape and dtype, without reading the values."""

    @abstractmethod
    def _values(self) -> Array:
        """The values."""


@dataclass
class StoredLayer:
    """A layer's weights in a file: its name, where the file has one, the arrays in order, and which of the model's
    layers they are for, where the file says that itself.
    """

    name: str | None
    weights: list[StoredArray]
    layer: Any = None
