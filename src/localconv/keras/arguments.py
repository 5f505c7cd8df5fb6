"""Arguments of layers: checked, and made into Keras's objects."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import activations, constraints, initializers, regularizers

from ..core.config import DATA_FORMATS

AUTO, COMPILED, OPS = ENGINES = ("auto", "compiled", "ops")

# What Keras makes of an argument, and back, by the argument's kind.
KINDS = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints, "activation": activations}


def kind_of(name: str) -> Any:
    return KINDS[name.rpartition("_")[2]]


def keras_object(name: str, given: Any) -> Any:
    """What Keras makes of an argument."""
    if isinstance(given, str) and given == "l1_l2" and kind_of(name) is regularizers:
        # Keras 2's name, with its factors.
        return regularizers.L1L2(l1=0.01, l2=0.01)
    return kind_of(name).get(given)


def one_of(value: Any, name: str, allowed: tuple[Any, ...]) -> Any:
    if isinstance(value, bool) or value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, np.bool)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def lower(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    return value.lower()


def data_format_of(value: str | None) -> str:
    if value is None:
        value = keras.config.image_data_format()
    return str(one_of(lower(value, "data_format"), "data_format", DATA_FORMATS))
