"""``python -m localconv``: the configuration, what is in a file, and files in other formats."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .machine import show_config
from .version import __version__

# What is wrong with arguments or files; as argparse has it.
WRONG = 2

HEADER = ("layer", "class", "weight", "shape", "dtype", "bytes")
LONGEST = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                options.run(options)
                sys.stdout.flush()
            finally:
                for warning in caught:
                    print(f"localconv: warning: {printable(str(warning.message))}", file=sys.stderr)
    except BrokenPipeError:
        # Who reads has seen enough. What Python would still write at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        print(f"localconv: error: {printable(str(error))}", file=sys.stderr)
        return WRONG
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localconv",
        description="Without a command, print versions, instruction sets and threads of this installation.",
    )
    parser.add_argument("--version", action="version", version=f"localconv {__version__}")
    parser.set_defaults(run=lambda options: show_config())
    commands = parser.add_subparsers(metavar="command")

    found = commands.add_parser("inspect", help="list the layers and weights in a file", description=_inspect.__doc__)
    found.add_argument("file", help="a model or weights: .keras, .h5, .weights.h5, .npz")
    found.add_argument("--json", action="store_true", help="as JSON, for programs")
    found.set_defaults(run=_inspect)

    found = commands.add_parser("convert", help="write a file in another format", description=_convert.__doc__)
    found.add_argument("old", help="a model (.keras, .h5) or weights (.h5, .npz)")
    found.add_argument("new", help=".keras for a model, .npz for weights, .h5 for either")
    found.add_argument("--quantize", metavar="MODE", help="make a model's kernels int8, float16 or bfloat16")
    found.add_argument("--overwrite", action="store_true", help="replace the new file if it is there")
    found.set_defaults(run=_convert)
    return parser


def _inspect(options: argparse.Namespace) -> None:
    """List the layers and weights in a file, without making a model or reading the weights' values."""
    from .layers.contents import contents_of

    contents = contents_of(options.file)
    if options.json:
        print(json.dumps(contents, indent=2))
        return
    for line in _table(contents):
        print(line)


def _convert(options: argparse.Namespace) -> None:
    """Write a model, or weights, in the format that the new file's suffix names. The old file stays as it is."""
    from .layers.conversion import convert_file

    convert_file(options.old, options.new, options.quantize, options.overwrite)


def _table(contents: dict[str, Any]) -> Iterator[str]:
    """The lines that show what a file holds."""
    model = contents["model"]
    kind = "weights only" if model is None else f"{model['class']} {model['name'] or ''}".rstrip()
    yield printable(f"{contents['file']}: {contents['bytes']} bytes, {kind}")
    rows = [HEADER]
    for layer in contents["layers"]:
        kind = ", ".join(filter(None, [layer["class"], layer.get("quantization_mode")]))
        begin = (layer["name"], kind)
        for weight in layer["weights"]:
            shape = "(" + ", ".join(map(str, weight["shape"])) + ("," if len(weight["shape"]) == 1 else "") + ")"
            rows.append((*begin, weight["name"], shape, weight["dtype"], str(weight["bytes"])))
            begin = ("", "")
        if not layer["weights"]:
            rows.append((*begin, "", "", "", ""))
    cells = [[_short(printable(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        words = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*words, row[-1].rjust(widths[-1])]).rstrip()
    count = len(contents["layers"])
    yield (
        f"{count} layer{'' if count == 1 else 's'}, {contents['parameters']} parameters, {contents['weight_bytes']} "
        "bytes of weights"
    )


def printable(text: str) -> str:
    """A text from a file as a terminal may have it: what could steer that, or break the line, is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
