"""``python -m localconv``: the configuration, what is in a file, and files in other formats."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from .core.machine import show_config
from .version import __version__

# What is wrong with arguments or files; as argparse has it.
WRONG = 2

HEADER = ("layer", "class", "weight", "shape", "dtype", "bytes")
LONGEST = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    with _open_streams():
        options = _parser().parse_args(arguments)
        try:
            return _run(options)
        finally:
            _finish(sys.stdout)
            _finish(sys.stderr)


def _run(options: argparse.Namespace) -> int:
    """Run a command; whatever goes wrong, say so on stderr and return the status of it."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                options.run(options)
                sys.stdout.flush()
            finally:
                for warning in caught:
                    _complain(f"warning: {warning.message}")
    except BrokenPipeError:
        pass  # Who reads has seen enough.
    except (ValueError, OSError, ImportError) as error:
        _complain(f"error: {error}")
        return WRONG
    return 0


@contextlib.contextmanager
def _open_streams() -> Iterator[None]:
    """Give a process that was started without stdout or stderr (``>&-``) one that keeps nothing.

    Python has None there, which prints to the other stream; and the next file to be opened would get the number of the
    missing one, and with it what a library in C prints.
    """
    with contextlib.ExitStack() as streams:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, streams.enter_context(open(os.devnull, "w", encoding="utf-8")))
                streams.callback(setattr, sys, name, None)
        yield


def _complain(text: str) -> None:
    """Print a warning or an error. A stderr that takes none changes nothing of what the command does."""
    with contextlib.suppress(OSError):
        print(f"localconv: {printable(text, sys.stderr.encoding)}", file=sys.stderr)


def _finish(stream: TextIO) -> None:
    """Write what a stream still holds, or throw it away: Python would try again at its end, and say that it cannot."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localconv",
        description="Without a command, print versions, instruction sets and threads of this installation.",
    )
    parser.add_argument("--version", action="version", version=f"localconv {__version__}")
    parser.set_defaults(run=lambda options: show_config())
    commands = parser.add_subparsers(metavar="command")

    inspect = commands.add_parser("inspect", help="list the layers and weights in a file", description=_inspect.__doc__)
    inspect.add_argument("file", help="a model or weights: .keras, .h5, .weights.h5, .npz")
    inspect.add_argument("--json", action="store_true", help="as JSON, for programs")
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser("convert", help="write a file in another format", description=_convert.__doc__)
    convert.add_argument("old", help="a model (.keras, .h5) or weights (.h5, .npz)")
    convert.add_argument(
        "new", help=".keras for a model, .npz for weights, .h5 or .hdf5 for either, .onnx for other runtimes"
    )
    convert.add_argument("--quantize", metavar="MODE", help="make a model's kernels int8, float16 or bfloat16")
    convert.add_argument("--overwrite", action="store_true", help="replace the new file if it is there")
    convert.set_defaults(run=_convert)
    return parser


def _inspect(options: argparse.Namespace) -> None:
    """List the layers and weights in a file, without making a model or reading the weights' values."""
    from .layers.files.contents import contents_of

    contents = contents_of(options.file)
    if options.json:
        print(json.dumps(contents, indent=2))
        return
    for line in _table(contents, sys.stdout.encoding):
        print(line)


def _convert(options: argparse.Namespace) -> None:
    """Write a model, or weights, in the format that the new file's suffix names. The old file stays as it is.

    An .onnx of models that localconv.layers does not have is written by Keras 3, where that is installed.
    """
    from .layers.conversion import OfOtherLayers, convert_file
    from .layers.quantization import checked_mode

    if options.quantize is not None:
        checked_mode(options.quantize, "--quantize")
    arguments = options.old, options.new, options.quantize, options.overwrite
    try:
        try:
            convert_file(*arguments)
        except OfOtherLayers as error:
            _exporter_of_keras(error)(*arguments)
    except FileExistsError as error:
        raise ValueError(f"{options.new} is there already: --overwrite replaces it") from error


def _exporter_of_keras(error: Exception) -> Callable[..., None]:
    """What writes a file of a model that only Keras opens, for the reason that is given."""
    if importlib.util.find_spec("keras") is None:
        raise ValueError(
            f"{error}. Keras 3 writes ONNX files of such models, and is not installed here: pip install "
            "'keras>=3.15' and one of its backends"
        ) from error
    from .layers.conversion import KERAS_BACKENDS

    try:
        from .keras.conversion import export_file
    except ImportError as missing:
        backends = [name for name in KERAS_BACKENDS if importlib.util.find_spec(name)]
        raise ValueError(
            f"{error}. Keras 3 writes ONNX files of such models, and does not start here: {missing}. The environment "
            "variable KERAS_BACKEND names its backend; of those that write ONNX files, installed "
            f"{'is ' + ' and '.join(backends) if backends else 'are none'}"
        ) from error
    return export_file


def _table(contents: dict[str, Any], encoding: str | None) -> Iterator[str]:
    """The lines that show what a file holds, in letters of an encoding."""
    model = contents["model"]
    kind = "weights only" if model is None else f"{model['class']} {model['name'] or ''}".rstrip()
    yield printable(f"{contents['file']}: {contents['bytes']} bytes, {kind}", encoding)
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
    cells = [[_short(printable(cell, encoding)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        words = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*words, row[-1].rjust(widths[-1])]).rstrip()
    count = len(contents["layers"])
    yield (
        f"{count} layer{'' if count == 1 else 's'}, {contents['parameters']} parameters, {contents['weight_bytes']} "
        "bytes of weights"
    )


def printable(text: str, encoding: str | None = None) -> str:
    """A text from a file as a terminal may have it: what could steer that, or break the line, is escaped, and what its
    encoding has no letters for; None is one that has all.
    """
    visible = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )
    return visible if encoding is None else visible.encode(encoding, "backslashreplace").decode(encoding)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
