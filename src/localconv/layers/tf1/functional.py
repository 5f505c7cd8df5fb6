"""`conv1d` as a function whose variables live in a store by name, like tf.layers.conv1d of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.arguments import ints
from ...core.arrays import Array, as_array
from ..conv import Conv1D
from ..keras_objects import constraints, initializers, regularizers
from ..variables import Variable, float_dtype
from ..weighted import DEFAULT_INITIALIZER
from .scopes import AUTO_REUSE, Reuse, VariableScope, checked_name, checked_reuse, here, inner_scope, store

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
        `name` or `reuse` that `variable_scope` refuses, arguments that `Conv1D` refuses, and what a custom getter of
        the scope returns that is no such weight.
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
        layer = _StoredConv1D(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            1,
            activation,
            use_bias,
            scope.initializer if kernel_initializer is None else kernel_initializer,
            scope.initializer if bias_initializer is None else bias_initializer,
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
        layer.scope = scope
        layer._check_shape(x.shape)
        layer.build((None, *x.shape[1:]) if x.ndim else ())
        layer.keep()
        here().opened |= {scope.name}
        if not isinstance(name, VariableScope):
            here().close(scope.name)
    y = layer(x)
    if layer.activity_regularizer is not None:
        loss = layer._activity_loss
        with store.lock:
            store.penalties[scope.name, "activity"] = lambda: loss
    return y


class _StoredConv1D(Conv1D):
    """The layer of one call, whose weights are those of the store: `scope` says how they are called and come there.

    What `build` makes is in the store after `keep`; a call that is refused stores nothing.
    """

    scope: VariableScope

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._made: dict[str, Variable] = {}
        self._penalties: dict[tuple[str, str], Callable[[], Any]] = {}

    def keep(self) -> None:
        """Put what this layer's weights added into the store."""
        store.variables.update(self._made)
        store.penalties.update(self._penalties)

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        constraint: Any = None,
        trainable: bool = True,
        position_fans: Any = None,
    ) -> Variable:
        """Take a weight from the store, by the scope's custom getter if it has one, or make it."""
        custom, full_name = self.scope.custom_getter, self.scope.full_name(name)
        weight = (self._stored if custom is None else partial(custom, self._stored))(
            name=full_name,
            shape=tuple(shape),
            dtype=self.dtype,
            initializer=initializer,
            regularizer=self.scope.regularizer,
            reuse=self.scope.reuse,
            trainable=trainable and self.trainable,
            constraint=constraint,
        )
        variable = self._usable(weight, full_name, tuple(shape))
        if self._made.get(variable.name) is variable:
            variable.regularizer = regularizer
        if store.variables.get(variable.name) is not variable:
            self._penalize(full_name, "own", regularizer, variable)
        self._variables.append(variable)
        return variable

    def _stored(
        self,
        name: str,
        shape: Sequence[int] | None = None,
        dtype: Any = "float32",
        initializer: Any = None,
        regularizer: Any = None,
        reuse: Reuse | None = None,
        trainable: bool | None = None,
        constraint: Any = None,
    ) -> Variable:
        """The stored variable of a full name, or a new one: the getter that custom getters are given."""
        full_name, element = checked_name(name, "name"), float_dtype(dtype)
        sizes = None if shape is None else ints(shape, None, "shape")
        reuse = AUTO_REUSE if reuse is None else checked_reuse(reuse)
        stored = self._made.get(f"{full_name}:0", store.variables.get(f"{full_name}:0"))
        if stored is not None:
            return _shareable(stored, full_name, sizes, element, reuse)
        if reuse is True:
            raise ValueError(
                f"Variable {full_name} does not exist, or was not created by a layer of that name. Did you mean to set "
                "reuse=AUTO_REUSE in the variable_scope, or reuse=None?"
            )
        if sizes is None:
            raise ValueError(f"shape must be given to make the variable {full_name}, got None")
        fans = initializers.compute_fans(sizes)
        value = initializers.initial(
            initializers.get(initializer or DEFAULT_INITIALIZER), sizes, element, self._rng, fans
        )
        trained = trainable is None or trainable
        made = Variable(value, f"{full_name}:0", element, trained, constraint=constraints.get(constraint))
        self._made[made.name] = made
        self._penalize(full_name, "scope", regularizers.get(regularizer), made)
        return made

    def _penalize(self, name: str, kind: str, regularizer: Any, variable: Variable) -> None:
        if regularizer is not None:
            self._penalties[f"{name}:0", kind] = lambda: regularizer(variable.value)

    def _usable(self, value: Any, name: str, shape: tuple[int, ...]) -> Variable:
        """What a custom getter returned as a weight of this layer: an array is one of this call."""
        weight = (
            value
            if isinstance(value, Variable)
            else as_array(value, f"what custom_getter returns for {name}", "floats")
        )
        if weight.shape != shape or weight.dtype != self.dtype:
            raise ValueError(
                f"custom_getter must return a Variable or an array of shape {shape} and dtype {self.dtype} for {name}, "
                f"got {'None' if value is None else f'one of shape {weight.shape} and dtype {weight.dtype}'}"
            )
        return weight if isinstance(weight, Variable) else Variable(weight, f"{name}:0", self.dtype)


def _shareable(
    stored: Variable, name: str, shape: tuple[int, ...] | None, dtype: np.dtype[Any], reuse: Reuse
) -> Variable:
    """The stored variable. ValueError, in TensorFlow's words, if it may not be taken or is not what is asked for."""
    if reuse is False:
        raise ValueError(
            f"Variable {name} already exists, disallowed. Did you mean to set reuse=True or reuse=AUTO_REUSE in the "
            "variable_scope?"
        )
    for what, wanted, found in (("shape", shape, stored.shape), ("dtype", dtype, stored.dtype)):
        if wanted is not None and wanted != found:
            raise ValueError(
                f"Trying to share variable {name}, but specified {what} {wanted} and found {what} {found}."
            )
    return stored


def _dtype_of(inputs: ArrayLike) -> Any:
    """The dtype of an input that has one; None, for the default, of anything else."""
    name = getattr(getattr(inputs, "dtype", None), "name", None)
    return name if name in ("float32", "float64") else None
