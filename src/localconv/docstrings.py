"""The docstrings of functions and classes for three dimensions, made of those for two: what they say is said in one
place.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import TypeVar

_Documented = TypeVar("_Documented")

# What two dimensions are called, and three. A 2D docstring says what depends on the rank in these words only, none of
# which is broken by a line's end.
_WORDS = {
    "2D": "3D",
    "2d": "3d",
    "rows, columns": "depths, rows, columns",
    "Rows and columns": "Depths, rows and columns",
    "output rows, output columns": "output depths, output rows, output columns",
    "output rows * output columns": "output depths * output rows * output columns",
    "kernel rows * kernel columns": "kernel depths * kernel rows * kernel columns",
    "kh * kw": "kd * kh * kw",
    "kh, kw": "kd, kh, kw",
    "(i * kw + j) *": "((h * kh + i) * kw + j) *",
    "(c * kh + i) * kw + j": "((c * kd + h) * kh + i) * kw + j",
    "tap (i, j)": "tap (h, i, j)",
    "two ints or two pairs": "three ints or three pairs",
    "2 ints": "3 ints",
    "4 ints": "5 ints",
    # PyTorch's words.
    "C, H, W": "C, D, H, W",
    "H * W": "D * H * W",
    "memory is channels_last": "memory is channels_last_3d",
}
_NOTES = "Notes\n-----\n"
_EXAMPLES = "Examples\n--------\n"


def as_in_2d(
    of_2d: Callable[..., object], examples: str, notes: str | None = None
) -> Callable[[_Documented], _Documented]:
    """Give a function or class for three dimensions the docstring of that for two, with examples of its own, and
    notes where those for two do not hold.
    """

    def documented(of_3d: _Documented) -> _Documented:
        if of_2d.__doc__ is not None:  # python -OO
            text = cleandoc(of_2d.__doc__).partition(_EXAMPLES)[0]
            if notes is not None:
                text = text.partition(_NOTES)[0]
            for two, three in _WORDS.items():
                text = text.replace(two, three)
            if notes is not None:
                text += _NOTES + cleandoc(notes) + "\n\n"
            of_3d.__doc__ = text + _EXAMPLES + cleandoc(examples) + "\n"
        return of_3d

    return documented
