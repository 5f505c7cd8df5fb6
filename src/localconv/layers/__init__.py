"""Layers: what the layers of Keras 2.15 and tf.layers.conv1d do, in NumPy, with training and Keras's files.

Locally connected: `LocallyConnected1D` to `LocallyConnected3D`, `convert_implementation`; of low rank:
`LowRankLocallyConnected1D`, `LowRankLocallyConnected2D`. Convolutions: `Conv1D` to `Conv3D` and the function `conv1d`.
Around them: `Sequential`, `Dense`, `Flatten`, `Activation`, `Dropout`, `MaxPooling1D` to `MaxPooling3D`. `activations`,
`initializers`, `regularizers` and `constraints` hold what the layers' arguments name.
"""

from typing import TYPE_CHECKING, Any

from ..hints import MissingName
from . import activations, constraints, initializers, regularizers
from .activations import ActivationFunction
from .base import InputSpec, Layer
from .conv import Conv1D, Conv2D, Conv3D, Convolution1D, Convolution2D, Convolution3D
from .core import Activation, Dense, Dropout, Flatten, InputLayer, MaxPooling1D, MaxPooling2D, MaxPooling3D
from .keras_objects.registry import custom_object_scope
from .local import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D, convert_implementation
from .low_rank import LowRankLocallyConnected1D, LowRankLocallyConnected2D
from .progress import ProgressBar
from .sequential import Sequential, load_model
from .tf1.functional import conv1d
from .tf1.scopes import (
    AUTO_REUSE,
    VariableScope,
    clear_session,
    get_regularization_losses,
    get_variable_scope,
    global_variables,
    trainable_variables,
    variable_scope,
)
from .variables import Variable

__all__ = [
    "AUTO_REUSE",
    "Activation",
    "ActivationFunction",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Convolution1D",
    "Convolution2D",
    "Convolution3D",
    "Dense",
    "Dropout",
    "Flatten",
    "InputLayer",
    "InputSpec",
    "Layer",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "LocallyConnected3D",
    "LowRankLocallyConnected1D",
    "LowRankLocallyConnected2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "ProgressBar",
    "Sequential",
    "Variable",
    "VariableScope",
    "activations",
    "clear_session",
    "constraints",
    "conv1d",
    "convert_implementation",
    "custom_object_scope",
    "get_regularization_losses",
    "get_variable_scope",
    "global_variables",
    "initializers",
    "load_model",
    "regularizers",
    "trainable_variables",
    "variable_scope",
]


def __dir__() -> list[str]:
    return list(__all__)


if not TYPE_CHECKING:  # for type checkers a module with this function has every name

    def __getattr__(name: str) -> Any:
        raise MissingName(__name__, name)
