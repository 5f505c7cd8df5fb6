"""Validation of arguments: sizes, padding, groups and data format as the floors below take them,
or an error that names the argument.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .config import CHANNELS_FIRST, DATA_FORMATS, image_data_format

Ints = tuple[int, ...]
IntOrInts = int | Sequence[int]
Padding = str | tuple[tuple[int, int], ...]
PaddingLike = str | Sequence[Sequence[int]]

# The names of paddings that every family takes, by the number of spatial axes.
PADDINGS = {1: ("valid", "same", "causal"), 2: ("valid", "same"), 3: ("valid", "same")}

# What padding holds, by PyTorch's names: zeros, which are in no sum, or pixels of the input.
ZEROS = "zeros"
PADDING_MODES = (ZEROS, "reflect", "replicate", "circular")

# Letters of what a file holds, in messages.
LONGEST_SHOWN = 1000


def ints(value: IntOrInts, count: int | None, name: str, minimum: int = 1, scalar: bool = True) -> Ints:
    """`value` as a tuple of `count` ints (None: any number);
    a single int stands for all of them where `scalar` allows it.
    """
    # The two usual forms first, and nothing called for them: this is a part of what a small call costs.
    if type(value) is int and scalar and count is not None and value >= minimum:
        return (value,) * count
    if type(value) is tuple and (count is None or len(value) == count):
        for part in value:
            if type(part) is not int or part < minimum:
                break
        else:
            return value
    wanted = "ints" if count is None else "an int" if scalar and count == 1 else f"{count} ints"
    if isinstance(value, (str, bytes, set, frozenset, dict)):
        raise TypeError(f"{name} must be {wanted}, got {brief(value)}")
    parts: tuple[Any, ...]
    try:
        parts = parts_of(value)
    except TypeError:
        if not scalar or count is None:
            raise TypeError(f"{name} must be a sequence of {wanted}, got {brief(value)}") from None
        parts = (value,) * count
    result = tuple(_int(part, name, wanted, value) for part in parts)
    if count is not None and len(result) != count:
        raise ValueError(f"{name} must be {wanted}, got {brief(value)}")
    if result and min(result) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {brief(value)}")
    return result


def brief(value: Any) -> str:
    """`value` as errors show it: of an array the shape, and not all of what is long."""
    if isinstance(value, np.ndarray) and value.ndim > 0 and value.size > 8:
        return f"an array of shape {value.shape}"
    return shortened(repr(value), 200)


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """A text in messages: of a very long one the beginning."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def parts_of(value: Any) -> tuple[Any, ...]:
    """The parts of a sequence. TypeError if it has none;
    Python has another error for a memoryview of several dimensions.
    """
    try:
        return tuple(value)
    except NotImplementedError as error:
        raise TypeError(str(error)) from None


def _int(part: Any, name: str, wanted: str, value: Any) -> int:
    if isinstance(part, (bool, np.bool)):
        raise TypeError(f"{name} must be {wanted}, got {brief(value)}")
    try:
        return operator.index(part)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, got {brief(value)}") from None


def groups_of(groups: int) -> int:
    """`groups`, an integer of at least 1."""
    if type(groups) is not int:
        groups = _int(groups, "groups", "an int", groups)
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    return groups


def is_channels_first(data_format: str | None) -> bool:
    """Whether a data format, None for the default one, has the channels in front."""
    if data_format is None:
        data_format = image_data_format()
    elif data_format not in DATA_FORMATS:
        raise ValueError(f"data_format must be None or one of {DATA_FORMATS}, got {data_format!r}")
    return data_format == CHANNELS_FIRST


def padding_of(padding: PaddingLike, rank: int, more: tuple[str, ...] = ()) -> Padding:
    """A name of a padding that has `rank` axes, or the pairs (before, after) of every axis, as tuples; more: names
    beside those that every family takes.
    """
    names = (*PADDINGS[rank], *more)
    if isinstance(padding, str):
        if padding not in names:
            raise ValueError(f"padding must be one of {names} or {rank} pairs (before, after), got {padding!r}")
        return padding
    try:
        parts = parts_of(padding)
    except TypeError:
        raise TypeError(_no_padding(rank, names, padding)) from None
    if len(parts) != rank:
        raise ValueError(f"padding must have one pair (before, after) for each of {rank} spatial axes, got {padding!r}")
    if any(isinstance(part, (int, np.integer)) for part in parts):
        raise TypeError(_no_padding(rank, names, padding))
    pairs = tuple(ints(part, 2, "padding", minimum=0, scalar=False) for part in parts)
    return tuple((before, after) for before, after in pairs)


def flag(value: bool, name: str) -> bool:
    """`value`, True or False."""
    if type(value) not in (bool, np.bool):  # isinstance would ask the object, and bool() of a subclass too
        raise TypeError(f"{name} must be True or False, got {shortened(repr(value), 200)}")
    return bool(value)


def padding_mode_of(padding_mode: str) -> str:
    """`padding_mode`, one of the names that are known."""
    if not isinstance(padding_mode, str):
        raise TypeError(f"padding_mode must be one of {PADDING_MODES}, got {brief(padding_mode)}")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}")
    return padding_mode


def _no_padding(rank: int, names: tuple[str, ...], padding: object) -> str:
    """What is said to somebody who gave one number for an axis, as PyTorch has it."""
    one = ", ".join(["(1, 1)"] * rank) + ("," if rank == 1 else "")
    return (
        f"padding must be {', '.join(map(repr, names))} or {rank} pairs (before, after), got {brief(padding)}; one "
        f"pixel on every side is padding=({one})"
    )


def is_masked(value: object) -> bool:
    """Whether this is a masked array. Naming `np.ma` would import it, and the first call would wait for that."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and issubclass(type(value), masked.MaskedArray)
