"""The docstrings of functions and classes for three dimensions, made of those for two: what they say is said in one
place.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import TypeVar

_T = TypeVar("_T", bound=Callable[..., object])

# What two dimensions are called, and three. A 2D docstring says what depends on the rank in these words only, none of
# which is broken by a line's end.
_WORDS = {
    "2D": "3D",
    "2d": "3d",
    "rows, columns": "depths, rows, columns",
    "rows and columns": "depths, rows and columns",
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
    # Behind "2D": Keras has no such layer.
    "Follows tf.keras.layers.LocallyConnected3D of Keras 2.15.": "Keras 2's rules for LocallyConnected2D, carried on.",
}
_EXAMPLES = "Examples\n--------\n"


def as_in_2d(of_2d: Callable[..., object], examples: str) -> Callable[[_T], _T]:
    """Give a function or class for three dimensions the docstring of that for two, with examples of its own."""

    def documented(of_3d: _T) -> _T:
        if of_2d.__doc__ is not None:  # python -OO
            text = cleandoc(of_2d.__doc__).partition(_EXAMPLES)[0]
            for two, three in _WORDS.items():
                text = text.replace(two, three)
            of_3d.__doc__ = text + _EXAMPLES + cleandoc(examples) + "\n"
        return of_3d

    return documented
