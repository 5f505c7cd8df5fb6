"""Models in files as ONNX files, by Keras: for ``python -m localconv convert``."""

from __future__ import annotations

import tempfile
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import keras

from ..layers.conversion import KERAS_BACKENDS
from ..layers.files.atomic import write_whole
from .engines import set_engine
from .files import load_model
from .install import install

__all__ = ["export_file"]


def export_file(
    old: str | PathLike[str], new: str | PathLike[str], mode: str | None = None, overwrite: bool = False
) -> None:
    """Write the model that a file holds as an ONNX file, by `keras.Model.export` on the backend at hand.

    Parameters
    ----------
    old : path
        What `keras.models.load_model` opens in its safe mode, files of Keras 2 too: see `install`, which is called.
    new : path
    mode : {'int8'}, optional
        Quantize the model, as `keras.Model.quantize` does, all layers of Keras too.
    overwrite : bool, optional
        Whether a file of the name `new` may be replaced.

    Raises
    ------
    ValueError
        On a backend from which Keras writes no ONNX, for another `mode`, and for what Keras does not open or export.
    OSError
        If a file cannot be read or written; FileExistsError if `new` is there, without `overwrite`.
    ImportError
        If a package is missing that Keras needs: tf2onnx on TensorFlow, jax2onnx on JAX, onnxscript on PyTorch.
    """
    if keras.backend.backend() not in KERAS_BACKENDS:
        raise ValueError(
            f"Keras's backend must be one of {', '.join(KERAS_BACKENDS)} to write ONNX files, got "
            f"{keras.backend.backend()!r}: the variable KERAS_BACKEND names it"
        )
    if mode not in (None, "int8"):
        raise ValueError(f"mode must be 'int8' for a model that Keras opens, got {mode!r}")
    install()
    # Keras writes neither whole or not at all, nor without replacing.
    write_whole(new, lambda file: _write(Path(old), mode, file), overwrite)


def _write(old: Path, mode: str | None, file: BinaryIO) -> None:
    try:
        model: Any = load_model(old, compile=False)
        if mode is not None:
            model.quantize(mode)
        set_engine(model, "ops")
        # Keras on JAX and on PyTorch exports only what has been called; and a Sequential has no `input` before.
        inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        model(keras.tree.map_structure(_one_image, inputs))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            with warnings.catch_warnings():
                # Of PyTorch's tracer for every size that it sees, and of what its exporter and tf2onnx find outdated.
                warnings.simplefilter("ignore")
                model.export(str(path), format="onnx", verbose=False)
            file.write(path.read_bytes())
    except (OSError, ImportError):
        raise
    except Exception as error:
        # PyTorch's exporter puts the whole graph behind a blank line.
        text, _, _ = str(error).partition("\n\n")
        raise ValueError(f"{old} cannot be exported by Keras: {text}") from error


def _one_image(tensor: Any) -> Any:
    """Zeros in the shape of a model's input, of a batch of one; other unknown sizes are 1 too."""
    return keras.ops.zeros([size or 1 for size in tensor.shape], tensor.dtype)
