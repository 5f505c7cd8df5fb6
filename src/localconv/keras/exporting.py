"""Whether a model is being exported, for compiled kernels, which no file can hold.

Keras tells its layers nothing of an export: they are called as they are by `fit`. So the functions that are being run
are searched for Keras's own, by their public names. That takes time, and is left to tensors that are being traced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import keras


def is_exporting(tensor: Any) -> bool:
    """Whether this call, one of whose inputs is given, is traced for a file: by `Model.export`, `ExportArchive`, or
    TensorFlow's own functions for SavedModel and LiteRT.
    """
    is_traced = _IS_TRACED.get(keras.backend.backend())
    if is_traced is None or not is_traced(tensor):
        return False
    if _is_read_by_dynamo():
        return True
    exporters, frame = _exporters(), inspect.currentframe()
    while frame is not None and frame.f_code not in exporters:
        frame = frame.f_back
    return frame is not None


def _is_read_by_dynamo() -> bool:
    """Whether PyTorch reads this code instead of running it, for a file or not: then there are no frames to search."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_dynamo_compiling()


def _is_traced_by_tensorflow(tensor: Any) -> bool:
    import tensorflow as tf

    return not tf.executing_eagerly()


def _is_traced_by_torch(tensor: Any) -> bool:
    import torch

    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _is_traced_by_jax(tensor: Any) -> bool:
    import jax

    return isinstance(tensor, jax.core.Tracer)


_IS_TRACED: dict[str, Callable[[Any], bool]] = {
    "tensorflow": _is_traced_by_tensorflow,
    "torch": _is_traced_by_torch,
    "jax": _is_traced_by_jax,
}


@cache
def _exporters() -> frozenset[Any]:
    """The code of all functions that export."""
    archive = keras.export.ExportArchive
    functions = [keras.Model.export, archive.track_and_add_endpoint, archive.add_endpoint, archive.write_out]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        functions += [tf.saved_model.save, tf.lite.TFLiteConverter.from_keras_model, tf.lite.TFLiteConverter.convert]
    return frozenset(inspect.unwrap(function).__code__ for function in functions)
