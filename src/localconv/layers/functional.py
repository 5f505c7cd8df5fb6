"""`conv1d` as a function whose variables live in a store by name, like tf.layers.conv1d of TensorFlow 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from ..arrays import Array
from . import initializers, naming
from .arguments import flag
from .conv import Conv1D
from .variables import Variable

__all__ = ["clear_session", "conv1d", "get_regularization_losses", "global_variables", "trainable_variables", "variable_scope"]


@dataclass
class _Scope:
    """An open variable scope: the prefix of names in it, whether layers take existing variables, and names in use."""

    prefix: str = ""
    reuse: bool = False
    names: set[str] = field(default_factory=set)


# In the order of creation.
_store: dict[str, Variable] = {}
# By the full name of the layer, of its last call.
_activity_losses: dict[str, Any] = {}
_root = _Scope()
_scope: ContextVar[_Scope | None] = ContextVar("localconv variable scope", default=None)


def _current() -> _Scope:
    return _scope.get() or _root


@contextlib.contextmanager
def variable_scope(name: str, reuse: bool | None = None) -> Iterator[str]:
    """Within this context, variables are called ``NAME/...``.

    Parameters
    ----------
    name : str
        Scopes nest: the names are joined by '/'.
    reuse : bool, optional
        True: layers in this scope take the variables that exist. Inner scopes inherit it. Automatic names begin anew each time a
        scope is opened, so that the same calls find the same variables.

    Yields
    ------
    str
        The full prefix, without the last '/'.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If it is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv import layers
    >>> layers.clear_session()
    >>> x = np.ones((1, 5, 2), np.float32)
    >>> with layers.variable_scope('encoder'):
    ...     y = layers.conv1d(x, 4, 3)
    >>> with layers.variable_scope('encoder', reuse=True):
    ...     z = layers.conv1d(x, 4, 3)
    >>> [v.name for v in layers.global_variables()], bool((y == z).all())
    (['encoder/conv1d/kernel:0', 'encoder/conv1d/bias:0'], True)
    """
    _check_name(name)
    outer = _current()
    outer.names.add(name)
    inner = _Scope(f"{outer.prefix}{name}/", outer.reuse if reuse is None else flag(reuse, "reuse") or outer.reuse)
    token = _scope.set(inner)
    try:
        yield inner.prefix[:-1]
    finally:
        _scope.reset(token)


def conv1d(inputs: ArrayLike, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid",
           data_format: str | None = "channels_last", dilation_rate: Any = 1, activation: Any = None, use_bias: bool = True,
           kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros(),  # noqa: B008  # immutable, shown in the signature
           kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None, kernel_constraint: Any = None,
           bias_constraint: Any = None, trainable: bool = True, name: str | None = None, reuse: bool | None = None) -> Array:
    """1D convolution whose weights are made by the first call with a name, and kept in a store by that name.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (..., steps, channels), or (..., channels, steps) with channels_first. Its dtype, float32 or float64, is that of the
        weights.
    filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias
        As in `Conv1D`.
    kernel_initializer : str, dict or callable, optional
        None is glorot_uniform.
    bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        As in `Conv1D`.
    trainable : bool, optional
        Whether the variables are among `trainable_variables`.
    name : str, optional
        The variables are ``NAME/kernel:0`` and ``NAME/bias:0``, behind the prefix of the open `variable_scope`. Default: conv1d,
        conv1d_1, ... within the scope.
    reuse : bool, optional
        True: take the variables of an earlier layer of that name (``conv1d`` without a name). None: what the scope says.

    Returns
    -------
    ndarray
        As `Conv1D` returns.

    Raises
    ------
    ValueError
        With reuse, if there are no such variables or they have another shape or dtype; without it, if there are. Also for
        arguments that `Conv1D` refuses; nothing is stored then.
    TypeError
        As `Conv1D`.

    Notes
    -----
    Follows tf.compat.v1.layers.conv1d of TensorFlow 2.15.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv import layers
    >>> layers.clear_session()
    >>> x = np.ones((2, 10, 3), np.float32)
    >>> layers.conv1d(x, 8, 3, activation='relu', name='c').shape
    (2, 8, 8)
    >>> [v.name for v in layers.trainable_variables()]
    ['c/kernel:0', 'c/bias:0']
    """
    scope = _current()
    again = scope.reuse if reuse is None else flag(reuse, "reuse") or scope.reuse
    used = _layer_name(name, scope, reuse)
    if again:
        kernel_initializer = bias_initializer = "zeros"  # the values are taken from the store
    layer = Conv1D(filters, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias, kernel_initializer,
                   bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint,
                   trainable=trainable, name=f"{scope.prefix}{used}", dtype=_dtype_of(inputs))
    x = layer._as_input(inputs, "inputs")
    layer.build((None, *x.shape[1:]) if x.ndim else ())
    _share(layer, again)
    scope.names.add(used)
    y = layer(x)
    if layer.activity_regularizer is not None:
        _activity_losses[layer.name] = layer.losses[0]
    return y


def trainable_variables() -> list[Variable]:
    """Return the stored variables that training changes, in the order of their creation."""
    return [variable for variable in _store.values() if variable.trainable]


def global_variables() -> list[Variable]:
    """Return all stored variables, in the order of their creation."""
    return list(_store.values())


def get_regularization_losses() -> list[Any]:
    """Return the penalties: on each stored variable that was made with a regularizer, then on the last outputs of layers with one."""
    losses = [variable.regularizer(variable.value) for variable in _store.values() if variable.regularizer is not None]
    return losses + list(_activity_losses.values())


def clear_session() -> None:
    """Forget all stored variables and start all automatic names anew."""
    _store.clear()
    _activity_losses.clear()
    _root.names.clear()
    naming.restart()


def _share(layer: Conv1D, again: bool) -> None:
    """Put a layer's new variables into the store, or stored ones into the layer."""
    new = list(layer._variables)
    for variable in new:
        _check_stored(variable, again)
    if not again:
        for variable in new:
            variable.trainable = layer.trainable
            _store[variable.name] = variable
        return
    layer._variables = [_store[variable.name] for variable in new]
    layer.kernel = layer._variables[0]
    layer.bias = layer._variables[1] if layer.use_bias else None


def _check_stored(variable: Variable, again: bool) -> None:
    """Raise ValueError, in TensorFlow's words, if a variable cannot be made, or not be taken."""
    label, stored = variable.name.removesuffix(":0"), _store.get(variable.name)
    if not again:
        if stored is not None:
            raise ValueError(f"Variable {label} already exists, disallowed. Did you mean to set reuse=True?")
        return
    if stored is None:
        raise ValueError(f"Variable {label} does not exist, or was not created by a layer of that name. Did you mean to set reuse=None?")
    if stored.shape != variable.shape:
        raise ValueError(f"Trying to share variable {label}, but specified shape {variable.shape} and found shape {stored.shape}.")
    if stored.dtype != variable.dtype:
        raise ValueError(f"Trying to share variable {label}, but specified dtype {variable.dtype} and found dtype {stored.dtype}.")


def _layer_name(name: str | None, scope: _Scope, reuse: bool | None) -> str:
    """The name given, or the next automatic one in the scope."""
    if name is not None:
        _check_name(name)
        return name
    base = "conv1d"
    if reuse or base not in scope.names:
        return base
    number = 1
    while f"{base}_{number}" in scope.names:
        number += 1
    return f"{base}_{number}"


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not name:
        raise ValueError("name must not be empty")


def _dtype_of(inputs: ArrayLike) -> Any:
    """The dtype of an input that has one; None, for the default, of anything else."""
    name = getattr(getattr(inputs, "dtype", None), "name", None)
    return name if name in ("float32", "float64") else None
