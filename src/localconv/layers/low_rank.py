"""Low-rank locally connected layers: at every position a weighted sum of a few filter banks, which is never expanded.

Elsayed, Ramachandran, Shlens and Kornblith (2020), "Revisiting Spatial Invariance with Low-Rank Local Connectivity".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..core import engine
from ..core.arrays import Array
from ..core.bank import SMALL, KernelBank
from ..core.windows import Convolution
from .arguments import Shape, check_output, flag, positive_int, shown
from .base import Fans, InputSpec
from .keras_objects import activations, constraints, initializers, regularizers
from .local import LocallyConnected1D, LocallyConnected2D, UnsharedLayer
from .variables import Variable
from .weighted import DEFAULT_INITIALIZER, set_gradient, shared_arguments

__all__ = ["LowRankLocallyConnected1D", "LowRankLocallyConnected2D"]

PADDINGS = ("valid", "same")
# Arguments that a locally connected layer does not have.
OWN_ARGUMENTS = (
    "rank",
    "separable",
    "normalize_weights",
    "weights_initializer",
    "weights_regularizer",
    "weights_constraint",
)
# What the expanded kernel is made with.
PLAIN_KERNEL = {"kernel_initializer": "zeros", "kernel_regularizer": None, "kernel_constraint": None}
NOT_QUANTIZED = (
    "the filter banks of low-rank layers stay as they are; layer.to_local() is a locally connected layer, which can be "
    "quantized"
)


def _norm(x: Array) -> Array:
    return np.asarray(np.sqrt(np.square(x).sum(-1, keepdims=True) + x.dtype.type(SMALL)))


def _unit_norm_gradient(grad_output: Array, x: Array, y: Array) -> Array:
    return np.asarray((grad_output - y * (grad_output * y).sum(-1, keepdims=True)) / _norm(x))


# How the weights of a position are normalised, with the derivative.
NORMALIZATIONS: dict[str | None, activations.ActivationFunction] = {
    None: activations.linear,
    "softmax": activations.softmax,
    "norm": activations.ActivationFunction(lambda x: x / _norm(x), _unit_norm_gradient),
}


class Combination(NamedTuple):
    """A kernel as it was computed: the bank, and the weights of its positions before they were normalised."""

    bank: KernelBank
    sums: Array


class _LowRank(UnsharedLayer):
    """What the layers of all ranks share."""

    rank: int
    separable = False
    position_weights: Variable | None = None
    row_weights: Variable | None = None
    column_weights: Variable | None = None
    _full: type[LocallyConnected1D] | type[LocallyConnected2D]

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        rank: int,
        strides: Any,
        padding: str,
        data_format: str | None,
        shared: dict[str, Any],
        normalize_weights: str | None,
        weights_initializer: Any,
        weights_regularizer: Any,
        weights_constraint: Any,
        base: dict[str, Any],
    ) -> None:
        if base.get("quantization_mode") is not None:
            raise ValueError(f"quantization_mode must be None: {NOT_QUANTIZED}, got {shown(base['quantization_mode'])}")
        super().__init__(filters, kernel_size, strides, padding, data_format, shared, base)
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {PADDINGS}, got {shown(padding)}")
        if not (normalize_weights is None or isinstance(normalize_weights, str)) or (
            normalize_weights not in NORMALIZATIONS
        ):
            raise ValueError(
                f"normalize_weights must be one of {tuple(NORMALIZATIONS)}, got {shown(normalize_weights)}"
            )
        self.rank = positive_int(rank, "rank")
        self.normalize_weights = normalize_weights
        self.weights_initializer = initializers.get(weights_initializer)
        self.weights_regularizer = regularizers.get(weights_regularizer)
        self.weights_constraint = constraints.get(weights_constraint)
        self.input_spec = InputSpec(ndim=self.spatial_axes + 2)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return {
            **super().get_config(),
            **self._window_config(),
            **self._shared_config(),
            "rank": self.rank,
            "normalize_weights": self.normalize_weights,
            "weights_initializer": initializers.serialize(self.weights_initializer),
            "weights_regularizer": regularizers.serialize(self.weights_regularizer),
            "weights_constraint": constraints.serialize(self.weights_constraint),
        }

    def to_local(self) -> LocallyConnected1D | LocallyConnected2D:
        """Return the locally connected layer that computes the same, with the expanded kernel.

        Returns
        -------
        LocallyConnected1D or LocallyConnected2D
            Built, of this layer's name, activation and dtype, with implementation 1; its bias is that of this layer.
            What held or penalised the kernel of this layer does not hold for the expanded one.

        Raises
        ------
        ValueError
            If the layer is not built.

        Examples
        --------
        >>> import numpy as np
        >>> from localconv.layers import LowRankLocallyConnected1D
        >>> layer = LowRankLocallyConnected1D(2, 3, rank=2)
        >>> x = np.ones((1, 10, 4), np.float32)
        >>> y = layer(x)
        >>> local = layer.to_local()
        >>> local.kernel.shape, bool(abs(local(x) - y).max() < 1e-5)
        ((8, 12, 2), True)
        """
        if not self.built:
            raise ValueError(f"layer {self.name} must be built before it is expanded: call it, or `build`")
        config = {name: value for name, value in self.get_config().items() if name not in OWN_ARGUMENTS}
        made = self._full.from_config(config | PLAIN_KERNEL)
        made.build(self.input_shape)
        made.set_weights([self._computed_kernel().bank.expand(), *([] if self.bias is None else [self.bias.value])])
        return made

    def _build(self, shape: Shape) -> None:
        spatial, channels = self._known(shape)
        convolution = Convolution(self._local_spec(), spatial, channels, self.filters)
        check_output(convolution.output, shape, self.name)
        self._spec, self._convolution = convolution.spec, convolution
        fans = convolution.depth, convolution.taps * self.filters
        bank_shape = (self.rank, convolution.depth, self.filters)
        self._make_weights(bank_shape, convolution.bias_shape, fans)
        self.input_spec = self._input_spec(spatial, channels)

    def _make_kernel(self, shape: tuple[int, ...], position_fans: Fans | None) -> None:
        self.kernel = self.add_weight(
            "kernel",
            shape,
            lambda shape, dtype: self._first_filters(dtype, position_fans),
            self.kernel_regularizer,
            self.kernel_constraint,
        )
        output = self._convolution.output
        if self.separable:
            self.row_weights, self.column_weights = (
                self._make_position_weights(name, (size, self.rank), 1 / (2 * math.sqrt(self.rank)))
                for name, size in zip(("row_weights", "column_weights"), output, strict=True)
            )
        else:
            self.position_weights = self._make_position_weights(
                "position_weights", (*output, self.rank), 1 / math.sqrt(self.rank)
            )

    def _make_position_weights(self, name: str, shape: tuple[int, ...], constant: float) -> Variable:
        initializer = self.weights_initializer or initializers.Constant(constant)
        return self.add_weight(name, shape, initializer, self.weights_regularizer, self.weights_constraint)

    def _first_filters(self, dtype: DTypeLike, position_fans: Fans | None) -> Array:
        """The first values of the kernel: those of a shared convolution to the filters of all banks."""
        made, initializer = self._convolution, self.kernel_initializer or DEFAULT_INITIALIZER
        shape = (*self.kernel_size, made.channels, self.rank * self.filters)
        values = initializers.initial(initializer, shape, np.dtype(dtype), self._rng, position_fans)
        by_bank = np.moveaxis(values.reshape(made.taps, made.channels, self.rank, self.filters), 2, 0)
        rows = by_bank.swapaxes(1, 2) if self._channels_first else by_bank
        return rows.reshape(self.rank, made.depth, self.filters)

    def _quantized_state(self, mode: str) -> dict[str, Any]:
        raise NotImplementedError(f"layer {self.name} ({type(self).__name__}) cannot be quantized: {NOT_QUANTIZED}")

    def _computed_kernel(self) -> Combination:  # type: ignore[override]
        if self.separable:
            assert self.row_weights is not None
            assert self.column_weights is not None
            with np.errstate(all="ignore"):
                sums = self.row_weights.value[:, None] + self.column_weights.value
        else:
            assert self.position_weights is not None
            sums = self.position_weights.value
        sums = sums.reshape(-1, self.rank)
        return Combination(KernelBank(self.kernel.value, NORMALIZATIONS[self.normalize_weights](sums)), sums)

    def _product(self, x: Array, kernel: Combination, bias: Array | None, relu: bool) -> Array:  # type: ignore[override]
        return engine.forward(self._spec, x, kernel.bank, bias, None, relu)

    def _input_gradient(self, x: Array, kernel: Combination, gradient: Array) -> Array:  # type: ignore[override]
        return engine.grad_input(self._spec, x.shape, kernel.bank, gradient)

    def _set_kernel_gradients(self, x: Array, kernel: Combination, gradient: Array, trainable: list[Variable]) -> None:
        variables = [self.kernel, self.position_weights, self.row_weights, self.column_weights]
        if not any(variable in trainable for variable in variables):
            return
        for_filters, for_weights = engine.grad_bank(self._spec, x, kernel.bank, gradient)
        assert for_weights is not None
        assert kernel.bank.weights is not None
        normalization = NORMALIZATIONS[self.normalize_weights]
        by_position = normalization.gradient(for_weights, kernel.sums, kernel.bank.weights)
        by_position = by_position.reshape(*self._convolution.output, self.rank)
        gradients = [for_filters, by_position]
        if self.separable:
            with np.errstate(all="ignore"):
                gradients += [by_position.sum(1), by_position.sum(0)]
        for variable, made in zip(variables, gradients, strict=False):
            if variable is not None and variable in trainable:
                set_gradient(variable, made)


class LowRankLocallyConnected1D(_LowRank):
    """1D convolution whose filters at every position are a weighted sum of `rank` filter banks.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 1 int
    rank : int
        The number of filter banks K. With 1 the layer is a convolution that is scaled at every position; with as many
        as positions it can be any locally connected layer.
    strides : int or sequence of 1 int, optional
    padding : {'valid', 'same'}, optional
    data_format, activation, use_bias
        As in `LocallyConnected1D`, with a bias for every position and filter.
    kernel_initializer : str, dict or callable, optional
        For all banks at once: it is asked for the kernel of a convolution to ``rank * filters`` filters, of shape
        kernel_size + (channels, rank * filters), as in the paper.
    bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        As in `LocallyConnected1D`.
    normalize_weights : {None, 'softmax', 'norm'}, optional
        What becomes of the K weights of a position before they are used: nothing, positive numbers of sum 1, or a
        vector of length 1.
    weights_initializer : str, dict or callable, optional
        None: the constant ``1 / sqrt(rank)``, with which the layer begins as a convolution.
    weights_regularizer, weights_constraint : str, dict or callable, optional
        Of the weights as they are stored.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.

    Attributes
    ----------
    kernel : Variable
        Once the layer is built: the filter banks, (rank, kernel_size * channels, filters), rows as in implementation 1
        of `LocallyConnected1D`.
    position_weights : Variable
        (positions, rank).
    bias : Variable or None
        (positions, filters).

    Raises
    ------
    ValueError
        For arguments that do not fit; sizes that are unknown when the layer is built.

    See Also
    --------
    localconv.KernelBank : what the layer computes with.
    LocallyConnected1D : filters of their own at every position.

    Notes
    -----
    G. F. Elsayed, P. Ramachandran, J. Shlens, S. Kornblith: Revisiting Spatial Invariance with Low-Rank Local
    Connectivity, ICML 2020.

    The kernel of position p is ``sum_k weights[p, k] * kernel[k]``. It is not made: neither memory nor the number of
    parameters grows with ``positions * kernel_size * channels * filters``. `to_local` makes it, and `quantize` is a
    NotImplementedError.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import LowRankLocallyConnected1D
    >>> layer = LowRankLocallyConnected1D(16, 3, rank=4, name='low')
    >>> layer(np.ones((1, 100, 8), np.float32)).shape
    (1, 98, 16)
    >>> [(v.name, v.shape) for v in layer.weights]
    [('low/kernel:0', (4, 24, 16)), ('low/position_weights:0', (98, 4)), ('low/bias:0', (98, 16))]
    """

    spatial_axes = 1
    _full = LocallyConnected1D

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        rank: int,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        normalize_weights: str | None = None,
        weights_initializer: Any = None,
        weights_regularizer: Any = None,
        weights_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            rank,
            strides,
            padding,
            data_format,
            shared_arguments(locals()),
            normalize_weights,
            weights_initializer,
            weights_regularizer,
            weights_constraint,
            base,
        )


class LowRankLocallyConnected2D(_LowRank):
    """2D convolution whose filters at every position are a weighted sum of `rank` filter banks.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    rank : int
        The number of filter banks K. With 1 the layer is a convolution that is scaled at every position; with as many
        as positions it can be any locally connected layer.
    strides : int or sequence of 2 ints, optional
    padding : {'valid', 'same'}, optional
    data_format, activation, use_bias
        As in `LocallyConnected2D`, with a bias for every position and filter.
    kernel_initializer : str, dict or callable, optional
        For all banks at once: it is asked for the kernel of a convolution to ``rank * filters`` filters, of shape
        kernel_size + (channels, rank * filters), as in the paper.
    bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        As in `LocallyConnected2D`.
    separable : bool, optional
        Whether the weights of a position are the sum of those of its row and those of its column, as in the paper:
        ``(rows + columns) * rank`` parameters in place of ``rows * columns * rank``.
    normalize_weights : {None, 'softmax', 'norm'}, optional
        What becomes of the K weights of a position (of their sum if they are separable) before they are used: nothing,
        positive numbers of sum 1, or a vector of length 1.
    weights_initializer : str, dict or callable, optional
        None: the constant ``1 / sqrt(rank)``, half of that for rows and for columns, with which the layer begins as a
        convolution.
    weights_regularizer, weights_constraint : str, dict or callable, optional
        Of the weights as they are stored.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.

    Attributes
    ----------
    kernel : Variable
        Once the layer is built: the filter banks, (rank, kh * kw * channels, filters), rows as in implementation 1 of
        `LocallyConnected2D`.
    position_weights : Variable or None
        output_size + (rank,), unless they are separable.
    row_weights, column_weights : Variable or None
        (output rows, rank) and (output columns, rank), if they are.
    bias : Variable or None
        output_size + (filters,).

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; sizes that are unknown when the layer is built.

    See Also
    --------
    localconv.KernelBank : what the layer computes with.
    LocallyConnected2D : filters of their own at every position.

    Notes
    -----
    As in `LowRankLocallyConnected1D`. The authors' layer has the same weights by other names: its kernel_bases are
    (kh, kw, channels, rank * filters), and its bias is a sum of one for the filters and one for rows, columns or
    positions.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import LowRankLocallyConnected2D
    >>> arguments = {'rank': 4, 'separable': True, 'normalize_weights': 'softmax', 'name': 'low'}
    >>> layer = LowRankLocallyConnected2D(16, 3, **arguments)
    >>> layer(np.ones((1, 30, 32, 3), np.float32)).shape
    (1, 28, 30, 16)
    >>> for variable in layer.weights:
    ...     print(variable.name, variable.shape)
    low/kernel:0 (4, 27, 16)
    low/row_weights:0 (28, 4)
    low/column_weights:0 (30, 4)
    low/bias:0 (28, 30, 16)
    """

    spatial_axes = 2
    _full = LocallyConnected2D

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        rank: int,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        separable: bool = False,
        normalize_weights: str | None = None,
        weights_initializer: Any = None,
        weights_regularizer: Any = None,
        weights_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            rank,
            strides,
            padding,
            data_format,
            shared_arguments(locals()),
            normalize_weights,
            weights_initializer,
            weights_regularizer,
            weights_constraint,
            base,
        )
        self.separable = flag(separable, "separable")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {"separable": self.separable}
