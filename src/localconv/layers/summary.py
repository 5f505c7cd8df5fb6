"""The table that `Sequential.summary` prints, in the layout of Keras 2.15; and what shells and notebooks show."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..core.arguments import parts_of
from .arguments import positive_int, shown
from .variables import Variable

LINE = 65
COLUMNS = (0.45, 0.85, 1.0)
TRAINABLE_COLUMN = 11
# Three spaces belong to every column.
NARROWEST = 4
LONGEST = 10_000
# A field that is too long is cut behind one of these, if it has one.
BREAKS = ("),", "},", "],", "',")


def print_summary(
    model: Any,
    line_length: int | None,
    positions: Sequence[float] | None,
    write: Callable[[str], object],
    show_trainable: bool,
) -> None:
    """Write the table of a built model line by line."""
    length, columns = _columns(line_length, positions)
    header = ["Layer (type)", "Output Shape", "Param #"]
    if show_trainable:
        length += TRAINABLE_COLUMN
        columns.append(length)
        header.append("Trainable")
    write(f'Model: "{model.name}"')
    write("_" * length)
    _write_row(header, columns, write)
    write("=" * length)
    for number, layer in enumerate(model.layers, 1):
        fields = [f"{layer.name} ({_kind(layer)})", str(layer.output_shape), str(layer.count_params())]
        _write_row([*fields, "Y" if layer.trainable else "N"] if show_trainable else fields, columns, write)
        if number < len(model.layers):
            write(" " * length)
    if model.layers:
        write(" " * length)
    write("=" * length)
    for title, variables in (
        ("Total", model.weights),
        ("Trainable", model.trainable_weights),
        ("Non-trainable", model.non_trainable_weights),
    ):
        write(f"{title} params: {sum(variable.size for variable in variables)} ({_memory(variables)})")
    write("_" * length)


def text_of(model: Any) -> str:
    """A line for the model, and one for each layer at its index; those of models inside it are indented."""
    count = len(model.layers)
    lines = [f"<Sequential {shown(model.name)}, {count} layer{'' if count == 1 else 's'}"]
    lines += [
        f"{'  ' * depth}[{index}] {_kind(layer)} {shown(layer.name)}: {_facts(layer)}"
        for depth, index, layer in _walk(model)
    ]
    return "\n".join(lines) + ">"


def html_of(model: Any) -> str:
    """The same as a table."""
    rows = [
        f'<tr><td style="text-align: left; padding-left: {depth}em">[{index}]</td>'
        f"<td>{html.escape(_kind(layer))}</td><td>{html.escape(shown(layer.name))}</td>"
        f"<td>{html.escape(_facts(layer))}</td></tr>"
        for depth, index, layer in _walk(model)
    ]
    title = f"<tr><th></th><th>Sequential</th><th>{html.escape(shown(model.name))}</th><th></th></tr>"
    return f"<table>{title}{''.join(rows)}</table>"


def _walk(model: Any) -> Iterator[tuple[int, int, Any]]:
    """All layers, also those of models inside this one, with how deep they are and their index there."""
    stack = [(1, index, layer) for index, layer in enumerate(model.layers)][::-1]
    while stack:
        depth, index, layer = stack.pop()
        yield depth, index, layer
        inner = layer.layers if hasattr(layer, "layers") else []
        stack += [(depth + 1, place, below) for place, below in enumerate(inner)][::-1]


def _kind(layer: Any) -> str:
    """A layer's class, and how it is quantized."""
    return ", ".join([type(layer).__name__, *([layer.quantization_mode] if layer.quantization_mode else [])])


def _facts(layer: Any) -> str:
    """A layer's output and how many parameters it has, as far as that is known."""
    return f"{layer.output_shape}, {layer.count_params()} parameters" if layer.built else "not built"


def _columns(line_length: int | None, positions: Sequence[float] | None) -> tuple[int, list[int]]:
    """The length of a line, and where its three columns end. ValueError if one has no room for a letter."""
    length = LINE if line_length is None else positive_int(line_length, "line_length")
    try:
        ends = [float(end) for end in parts_of(COLUMNS if positions is None else positions)]
        columns = [int(length * end if ends[-1] <= 1 else end) for end in ends]
    except (TypeError, ValueError, OverflowError, IndexError):
        raise ValueError(f"positions must be three numbers, got {positions!r}") from None
    rooms = [end - start for start, end in zip([0, *columns], columns, strict=False)]
    if len(columns) != len(COLUMNS) or min(rooms) < NARROWEST or max(length, columns[-1]) > LONGEST:
        raise ValueError(
            f"positions must be the ends of three columns of at least {NARROWEST} characters, in a line of at most "
            f"{LONGEST}; got positions={positions!r} and line_length={line_length!r}"
        )
    return length, columns


def _write_row(fields: Sequence[str], ends: Sequence[int], write: Callable[[str], object]) -> None:
    """Write the fields in their columns, over as many lines as the longest one needs."""
    left = list(fields)
    while any(left):
        line, start = "", 0
        for column, end in enumerate(ends):
            last = column == len(ends) - 1
            room = end - start - (0 if last else 3)  # two spaces behind a column, and one in front of the first
            cuts = [left[column][:room].find(mark) + len(mark) for mark in BREAKS if mark in left[column][:room]]
            cut = min(cuts, default=room)
            line += (" " if column == 0 else "") + left[column][:cut]
            left[column] = left[column][cut:]
            line = line.ljust(end) if last else f"{line}  ".ljust(end)
            start = end
        write(line)


def _memory(variables: Sequence[Variable]) -> str:
    size = float(sum(variable.value.nbytes for variable in variables))
    for unit in ("Byte", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"
