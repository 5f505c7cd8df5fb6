"""What computes in a whole model: `set_engine`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import keras

from . import backends
from .arguments import ENGINES, one_of
from .involution import Involution2D
from .layers import LocallyConnected
from .ops import LocalCorrelation, LocalFilter

__all__ = ["set_engine"]

LAYERS = (LocallyConnected, Involution2D, LocalFilter, LocalCorrelation)

Model = TypeVar("Model")


def set_engine(model: Model, engine: str) -> Model:
    """Let another engine compute in all layers of localconv in a model, in place.

    Parameters
    ----------
    model : keras.Layer
        A model, or one layer. Layers in models inside it and in wrappers (TimeDistributed, Bidirectional) are found,
        and those that a layer or a subclassed model has in its attributes, in lists, tuples, sets and dicts too; not
        those that only a function knows, such as that of a Lambda.
    engine : {'auto', 'compiled', 'ops'}
        As in `LocallyConnected2D`.

    Returns
    -------
    keras.Layer
        `model` itself. Weights, losses and optimizers stay as they are.

    Raises
    ------
    TypeError
        For what is no layer of Keras.
    ValueError
        For another engine, and 'compiled' where the backend has no compiled kernels. No layer is changed then.

    Notes
    -----
    What Keras compiled of `model`, and of models inside it, for `fit`, `evaluate` and `predict` is made anew when it is
    called next. A model around them, and a program of your own (`tf.function`, `jax.jit`), keep what they traced.

    The engine is part of the layers' configs: a model that is saved has it when it is opened. `Model.export` needs no
    call of this: with 'auto' what is exported is as with 'ops'.

    Examples
    --------
    >>> import keras
    >>> from localconv.keras import LocallyConnected1D, set_engine
    >>> steps = keras.layers.TimeDistributed(LocallyConnected1D(4, 3))
    >>> model = set_engine(keras.Sequential([keras.Input((5, 10, 2)), steps]), 'ops')
    >>> model.layers[0].layer.engine
    'ops'
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a layer or a model of Keras, got {type(model).__name__}")
    one_of(engine, "engine", ENGINES)
    backends.is_compiled(engine)  # which refuses what the backend has not
    found = list(_layers_in(model))
    for layer in found:
        if isinstance(layer, LAYERS):
            layer._take_engine(engine)
    for inner in found:
        if isinstance(inner, keras.Model):
            inner.train_function = inner.test_function = inner.predict_function = None
            if inner.jit_compile:
                # Keras looks at the layers again: if they cannot be compiled any more, it says so, and does not.
                inner.jit_compile = True
    return model


def _layers_in(layer: Any) -> Iterator[Any]:
    """A layer and all those inside it, each once."""
    stack, seen = [layer], set[int]()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        if isinstance(value, keras.layers.Layer):
            yield value
            inside = vars(value).values()
        elif isinstance(value, Mapping):
            inside = value.values()
        elif isinstance(value, (list, tuple, set)):
            inside = value
        else:
            continue
        seen.add(id(value))
        stack += inside
