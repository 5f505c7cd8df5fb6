"""What the constructors of layers check, in Keras's words."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from ..core.arguments import LONGEST_SHOWN, Ints, parts_of, shortened
from ..core.config import DATA_FORMATS, image_data_format

Shape = tuple[int | None, ...]

_T = TypeVar("_T", bound=type)

LARGEST = 2**63 - 1  # of an array's sizes
MOST_AXES = 64  # of an array
PADDINGS = ("valid", "same", "causal")


def named_constructor(layer: _T) -> _T:
    """Give a class the constructor that it inherits as its own, so that Python's errors of missing arguments name it
    and not the private class that the constructor is from.
    """
    inherited: Any = layer.__init__  # type: ignore[misc]
    own = FunctionType(
        inherited.__code__, inherited.__globals__, "__init__", inherited.__defaults__, inherited.__closure__
    )
    own.__qualname__, own.__annotations__ = f"{layer.__qualname__}.__init__", inherited.__annotations__
    layer.__init__ = own  # type: ignore[misc]
    return layer


def shown(value: Any) -> str:
    """A value in messages: of a very long one, as a file may hold it, the beginning."""
    # Of a text no more is escaped than is shown.
    return shortened(repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value))


def as_path(value: Any, name: str) -> Path:
    """A path that was given. TypeError if it is none."""
    if not isinstance(value, (str, PathLike)):
        raise TypeError(f"{name} must be a str or an os.PathLike of one, got {shown(value)}")
    return Path(value)


def positive_int(value: Any, name: str) -> int:
    """A size. ValueError unless an integer above 0; a float that is one, as Keras takes, counts."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer. Received {name}={shown(value)}."
        ) from None
    if number <= 0 or isinstance(value, bool):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a strictly positive value. Received {name}={shown(value)}."
        )
    if number > LARGEST:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected at most {LARGEST}. Received {name}={shown(value)}."
        )
    return number


def finite_number(value: Any, name: str, least: float | None = None) -> float:
    """A number, an int as it is. ValueError unless it is finite, and at least `least`."""
    if isinstance(value, (bool, str)) or not math.isfinite(value) or (least is not None and value < least):
        raise ValueError(
            f"{name} must be a finite number{'' if least is None else f' of at least {least}'}, got {shown(value)}"
        )
    return value if type(value) is int else float(value)


def int_tuple(value: Any, rank: int, name: str) -> Ints:
    """`rank` ints above 0; one int stands for all. ValueError for anything else."""
    message = f"The `{name}` argument must be a tuple of {rank} integers. Received: {shown(value)}"
    try:
        parts = (operator.index(value),) * rank
    except TypeError:
        try:
            parts = tuple(operator.index(part) for part in parts_of(value))
        except TypeError:
            raise ValueError(message) from None
    if len(parts) != rank or isinstance(value, bool):
        raise ValueError(message)
    if 0 in parts and name == "strides":
        raise ValueError(f"The argument `strides` cannot contains 0(s). Received: {shown(parts)}")
    if min(parts) <= 0:
        wrong = {part for part in parts if part <= 0}
        raise ValueError(f"{message} including {wrong} that does not satisfy the requirement `> 0`.")
    if max(parts) > LARGEST:
        raise ValueError(f"{message}, which is above {LARGEST}.")
    return parts


def padding_name(value: Any) -> str:
    """valid, same or causal, in whatever case. ValueError for anything else."""
    if not isinstance(value, str) or value.lower() not in PADDINGS:
        raise ValueError(
            'The `padding` argument must be one of "valid", "same" (or "causal", only for `Conv1D`). Received: '
            f"{shortened(str(value))}"
        )
    return value.lower()


def data_format_name(value: Any) -> str:
    """channels_last or channels_first, in whatever case; `image_data_format` for None. ValueError for anything else."""
    if value is None:
        return image_data_format()
    if not isinstance(value, str) or value.lower() not in DATA_FORMATS:
        raise ValueError(
            'The `data_format` argument must be one of "channels_first", "channels_last". Received: '
            f"{shortened(str(value))}"
        )
    return value.lower()


def flag(value: Any, name: str) -> bool:
    """A bool. TypeError for anything but a bool or what NumPy makes of one."""
    if isinstance(value, str) or value is None or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def shape_tuple(value: Any, name: str) -> Shape:
    """A shape whose sizes are ints of at least 0, or None where unknown. TypeError or ValueError for anything else."""
    if isinstance(value, (str, bytes, memoryview)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of ints and None, got {shown(value)}")
    if len(value) > MOST_AXES:
        raise ValueError(f"{name} must have at most {MOST_AXES} sizes, as arrays have, got {len(value)}")
    sizes: list[int | None] = []
    for part in value:
        if part is None:
            sizes.append(None)
            continue
        try:
            sizes.append(operator.index(part))
        except TypeError:
            raise TypeError(f"{name} must be a tuple of ints and None, got {shown(value)}") from None
        if not 0 <= part <= LARGEST:
            raise ValueError(f"{name} must hold sizes from 0 to {LARGEST}, got {shown(value)}")
    return tuple(sizes)


def check_output(output: Shape, input_shape: Shape, layer_name: str) -> None:
    """Raise ValueError if a size of the output is 0 or less."""
    if any(n is not None and n <= 0 for n in output):
        raise ValueError(
            f"One of the dimensions in the output is <= 0 due to downsampling in {shortened(layer_name)}. "
            f"Consider increasing the input size. Received input shape {input_shape} which would produce output shape "
            "with a zero or negative value in a dimension."
        )
