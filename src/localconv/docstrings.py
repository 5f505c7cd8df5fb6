"""Docstrings that are whole, though what several of them say is written once: arguments that a docstring takes from
another function, and docstrings for three dimensions, made of those for two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from inspect import cleandoc
from textwrap import fill
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
    "two pairs (before, after)": "three pairs (before, after)",
    "2 ints": "3 ints",
    "4 ints": "5 ints",
    # PyTorch's words.
    "C, H, W": "C, D, H, W",
    "H * W": "D * H * W",
    "memory is channels_last": "memory is channels_last_3d",
    # Behind "2D": Keras has no such layer.
    "Follows tf.keras.layers.LocallyConnected3D of Keras 2.15.": "Keras 2's rules for LocallyConnected2D, carried on.",
}
# What one dimension is called in the arguments that functions of two take from it, and those of any number.
_OF_2D = {
    "of 1 int": "of 2 ints",
    "{'valid', 'same', 'causal'} or ((before, after),)": "{'valid', 'same'} or two pairs (before, after)",
    "{'valid', 'same', 'causal', 'inside'} or ((before, after),)": (
        "{'valid', 'same', 'inside'} or two pairs (before, after)"
    ),
    "ceil(steps / strides)": "ceil(size / strides)",
    " 'causal' pads ``(kernel_size - 1) * dilation_rate`` steps in front.": "",
    "Steps from one": "Pixels along every axis from one",
}
_OF_ANY = {
    "of 1 int": "of ints",
    "or ((before, after),)": "or pairs (before, after)",
    "ceil(steps / strides)": "ceil(size / strides)",
    "'causal' pads": "'causal', of one axis, pads",
    "Steps from one": "Steps, or pixels along every axis, from one",
    " As in Keras, strides and dilation_rate cannot both be above 1.": "",
}
_EXAMPLES = "Examples\n--------\n"
_HEADING = re.compile(r"^(\w[\w ]*)\n-+\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\S[^\n]*)\n((?:(?: .*)?(?:\n|\Z))*)", re.MULTILINE)
_TAKEN = re.compile(r"As (?:in )?`([\w.]+)`\.")
# Lines of at most 120 letters where the docstring is indented as in the source.
_filled = partial(
    fill, width=116, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
)


def whole(*sources: Callable[..., object]) -> Callable[[_T], _T]:
    """Give a function the docstring that it has, with what it takes from the docstrings of others in its place.

    An entry of arguments that reads "As in `NAME`." becomes the entries of that function for them; of a whole section
    that reads so, or of errors "As `NAME`.", the section of that function takes the place.
    """

    def documented(target: _T) -> _T:
        if target.__doc__ is not None:  # python -OO
            names = {f"{source.__module__}.{source.__qualname__}": source for source in sources}
            target.__doc__ = _completed(target.__doc__, getattr(target, "__name__", ""), names)
        return target

    return documented


def docstring_from_2d(of_2d: Callable[..., object], examples: str) -> Callable[[_T], _T]:
    """Give a function or class for three dimensions the docstring of that for two, with examples of its own."""

    def documented(of_3d: _T) -> _T:
        if of_2d.__doc__ is not None:  # python -OO
            text = _reworded(cleandoc(of_2d.__doc__).partition(_EXAMPLES)[0], _WORDS)
            of_3d.__doc__ = text + _EXAMPLES + cleandoc(examples) + "\n"
        return of_3d

    return documented


def _completed(text: str, target: str, sources: Mapping[str, Callable[..., object]]) -> str:
    """A docstring with what it takes from those of `sources`; ValueError if these have no such thing."""
    summary, sections = _sections(text)
    result = summary
    for heading, body in sections.items():
        taken = _TAKEN.fullmatch(body.removeprefix("TypeError, ValueError").strip())
        if taken:
            body = _sections(_source(taken[1], sources).__doc__ or "")[1][heading]
        elif heading == "Parameters":
            body = "\n".join(_described(names, said, target, sources) for names, said in _ENTRY.findall(body))
        result += f"{heading}\n{'-' * len(heading)}\n{body}\n\n"
    return result.rstrip() + "\n"


def _described(head: str, said: str, target: str, sources: Mapping[str, Callable[..., object]]) -> str:
    """An entry of the section Parameters, or those that it stands for."""
    taken = _TAKEN.fullmatch(said.strip())
    if not taken:
        return f"{head}\n{said}".rstrip()
    source = _source(taken[1], sources)
    words, known = _words_between(source.__name__, target), _arguments(source.__doc__ or "")
    result = []
    for name in head.split(", "):
        if name not in known:
            raise ValueError(f"{target} takes {name} from {taken[1]}, whose docstring has no entry for it")
        first, rest = known[name]
        result += [_reworded(first, words), _filled(_reworded(rest, words))]
    return "\n".join(result)


def _source(name: str, sources: Mapping[str, Callable[..., object]]) -> Callable[..., object]:
    """The one of the sources that a docstring means."""
    matches = [source for full, source in sources.items() if f".{full}".endswith(f".{name.removeprefix('localconv.')}")]
    if len(matches) != 1:
        raise ValueError(f"a docstring takes something from {name}, which must be among {list(sources)}")
    return matches[0]


# Import waits for what follows, and several functions take from one.
@lru_cache(maxsize=8)
def _sections(docstring: str) -> tuple[str, dict[str, str]]:
    """What a docstring begins with, and what it has under each heading."""
    summary, *parts = _HEADING.split(cleandoc(docstring))
    return summary, {heading: body.strip("\n") for heading, body in zip(parts[::2], parts[1::2], strict=True)}


@lru_cache(maxsize=8)
def _arguments(docstring: str) -> dict[str, tuple[str, str]]:
    """The entries that a docstring has for one argument each: their first lines, and the others as one."""
    entries = _ENTRY.findall(_sections(docstring)[1]["Parameters"])
    return {head.partition(" : ")[0]: (head, " ".join(said.split())) for head, said in entries}


def _words_between(source: str, target: str) -> Mapping[str, str]:
    """The words that change where a function takes arguments from one of another number of dimensions."""
    if "1d" not in source or "1d" in target:
        return {}
    return _OF_2D if "2d" in target else _OF_ANY


def _reworded(text: str, words: Mapping[str, str]) -> str:
    """A text with other words."""
    for old, new in words.items():
        text = text.replace(old, new)
    return text
