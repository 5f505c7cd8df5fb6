"""The docstrings of functions for three dimensions, made of those for two: what they say is said in one place."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

# What two dimensions are called, and three. A 2D docstring says what depends on the rank in these words only.
_WORDS = {
    "2D": "3D",
    "2d": "3d",
    "rows, columns": "depths, rows, columns",
    "kh * kw": "kd * kh * kw",
    "kh, kw": "kd, kh, kw",
    "(i * kw + j) * channels + c": "((h * kh + i) * kw + j) * channels + c",
    "(c * kh + i) * kw + j": "((c * kd + h) * kh + i) * kw + j",
    "tap (i, j)": "tap (h, i, j)",
    "two ints or two pairs": "three ints or three pairs",
    "2 ints": "3 ints",
    "4 ints": "5 ints",
}
_EXAMPLES = "Examples\n--------\n"


def as_in_2d(function: Callable[..., object], examples: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Give a function for three dimensions the docstring of that for two, with examples of its own."""

    def documented(of_3d: Callable[_P, _R]) -> Callable[_P, _R]:
        if function.__doc__ is not None:  # python -OO
            text = cleandoc(function.__doc__).partition(_EXAMPLES)[0]
            for two, three in _WORDS.items():
                text = text.replace(two, three)
            of_3d.__doc__ = text + _EXAMPLES + cleandoc(examples) + "\n"
        return of_3d

    return documented
