"""`conv1d` as a function whose variables live in a store by name, like tf.layers.conv1d of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from ..arrays import Array
from . import initializers
from .conv import Conv1D
from .scopes import Reuse, VariableScope, checked_reuse, here, inner_scope, store
from .variables import Variable

__all__ = ["conv1d"]

BASE_NAME = "conv1d"


def conv1d(
    inputs: ArrayLike,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = "channels_last",
    dilation_rate: Any = 1,
    activation: Any = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = initializers.Zeros(),  # noqa: B008  # immutable, shown in the signature
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
    activity_regularizer: Any = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool = True,
    name: str | VariableScope | None = None,
    reuse: Reuse | None = None,
) -> Array:
    """1D convolution whose weights are made by the first call with a name, and kept in a store by that name.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (..., steps, channels), or (..., channels, steps) with channels_first. Its dtype, float32 or float64, is
        that of the weights.
    filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias
        As in `Conv1D`.
    kernel_initializer, bias_initializer : str, dict or callable, optional
        None: what the scope says, else glorot_uniform.
    kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        As in `Conv1D`. `get_regularization_losses` has the penalties.
    trainable : bool, optional
        Whether the variables are among `trainable_variables`.
    name : str or VariableScope, optional
        The variables are ``NAME/kernel:0`` and ``NAME/bias:0``, behind the name of the open `variable_scope`. A
        `VariableScope` stands for itself: the variables are ``SCOPE/kernel:0`` and ``SCOPE/bias:0``, and what holds is
        what that scope says. Default: conv1d, conv1d_1, ... within the scope.
    reuse : bool or AUTO_REUSE, optional
        True: take the variables of an earlier layer of that name (``conv1d`` without a name). AUTO_REUSE: take those
        that exist and make the others. None and False: what the scope says.

    Returns
    -------
    ndarray
        As `Conv1D` returns.

    Raises
    ------
    ValueError
        With reuse, if there are no such variables or they have another shape or dtype; without it, if there are. For a
        `name` or `reuse` that `variable_scope` refuses, and arguments that `Conv1D` refuses.
    TypeError
        As `Conv1D`, and for a `name` of another type.

    Notes
    -----
    Follows tf.compat.v1.layers.conv1d of TensorFlow 2.15. Unlike there, a call that is refused stores nothing and takes
    no automatic name; and `get_regularization_losses` has the penalty on a layer's last output, not on those of all
    calls, which compute at once.

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
    automatic = name is None or (isinstance(name, str) and not name)
    given = BASE_NAME if automatic and checked_reuse(reuse) else None if automatic else name
    with store.lock:
        scope = inner_scope(given, BASE_NAME, reuse=reuse, argument="name")
        layer = Conv1D(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            _initializer(kernel_initializer, scope, "kernel:0"),
            _initializer(bias_initializer, scope, "bias:0"),
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            trainable=trainable,
            name=scope.name or BASE_NAME,
            dtype=_dtype_of(inputs),
        )
        x = layer._as_input(inputs, "inputs")
        layer.build((None, *x.shape[1:]) if x.ndim else ())
        _share(layer, scope)
        here().opened |= {scope.name}
        if not isinstance(name, VariableScope):
            here().close(scope.name)
    y = layer(x)
    if layer.activity_regularizer is not None:
        loss = layer._activity_loss
        with store.lock:
            store.penalties[scope.name, "activity"] = lambda: loss
    return y


def _initializer(initializer: Any, scope: VariableScope, name: str) -> Any:
    """What gives a variable its first value: the call's initializer or the scope's.

    Nothing costly where the store has the variable.
    """
    found = initializers.get(scope.initializer if initializer is None else initializer)
    return initializers.Zeros() if scope.reuse and scope.full_name(name) in store.variables else found


def _share(layer: Conv1D, scope: VariableScope) -> None:
    """Put a layer's new variables into the store and stored ones into the layer; nothing if one of them is refused."""
    new = layer._variables
    for variable, name in zip(new, ("kernel:0", "bias:0"), strict=False):
        variable.name = scope.full_name(name)
    layer._variables = [_checked_stored(variable, scope.reuse) or variable for variable in new]
    layer.kernel = layer._variables[0]
    layer.bias = layer._variables[1] if layer.use_bias else None
    for variable in layer._variables:
        if variable.name in store.variables:
            continue
        variable.trainable = layer.trainable
        store.variables[variable.name] = variable
        for kind, regularizer in (("scope", scope.regularizer), ("own", variable.regularizer)):
            if regularizer is not None:
                store.penalties[variable.name, kind] = _penalty(regularizer, variable)


def _penalty(regularizer: Callable[[Array], Any], variable: Variable) -> Callable[[], Any]:
    return lambda: regularizer(variable.value)


def _checked_stored(variable: Variable, reuse: Reuse) -> Variable | None:
    """The stored variable to take instead of a new one, if any.

    ValueError, in TensorFlow's words, if neither is allowed.
    """
    label, stored = variable.name.removesuffix(":0"), store.variables.get(variable.name)
    if stored is None:
        if reuse is True:
            raise ValueError(
                f"Variable {label} does not exist, or was not created by a layer of that name. Did you mean to set "
                "reuse=AUTO_REUSE in the variable_scope, or reuse=None?"
            )
        return None
    if reuse is False:
        raise ValueError(
            f"Variable {label} already exists, disallowed. Did you mean to set reuse=True or reuse=AUTO_REUSE in the "
            "variable_scope?"
        )
    if stored.shape != variable.shape:
        raise ValueError(
            f"Trying to share variable {label}, but specified shape {variable.shape} and found shape {stored.shape}."
        )
    if stored.dtype != variable.dtype:
        raise ValueError(
            f"Trying to share variable {label}, but specified dtype {variable.dtype} and found dtype {stored.dtype}."
        )
    return stored


def _dtype_of(inputs: ArrayLike) -> Any:
    """The dtype of an input that has one; None, for the default, of anything else."""
    name = getattr(getattr(inputs, "dtype", None), "name", None)
    return name if name in ("float32", "float64") else None
