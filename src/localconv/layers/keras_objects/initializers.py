"""The first values of weights: Glorot, He, LeCun and the other initializers of Keras.

An initializer is any callable ``initializer(shape, dtype=...)`` that returns an array-like. The built-in ones also take
``rng``, a `numpy.random.Generator` for those made without a seed of their own.

What Keras calls the fans of a locally connected kernel follows from the shape it is stored in, and is not what a filter
at one position sees: with 98 positions, 3 taps, 2 channels and 4 filters the limits of glorot_uniform are 0.078, 0.017
and 0.036 for implementations 1, 2 and 3, where a convolution with the same windows has 0.577. Outputs and gradients are
then far too small at the start. The default here is Keras's, so that models start as theirs do; ``fans='position'`` is
the value its users call right.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ...core.arguments import parts_of, shortened
from ...core.arrays import Array
from ..arguments import shown
from ..variables import float_dtype
from .registry import Configurable, Registry

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "compute_fans",
    "get",
    "serialize",
]

Fans = tuple[float, float] | str | None

MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")

# Standard deviation of a standard normal variable cut at 2: sqrt(1 - 4 * pdf(2) / (2 * cdf(2) - 1)).
_CUT_DEVIATION = 0.87962566103423978


class Initializer(Configurable):
    """Base class of initializers: subclasses define ``_values(shape, rng)``.

    ``get_config()`` returns the constructor's arguments as JSON can hold them, and ``from_config``
    makes an equal object of them.
    """

    seed: int | None = None

    def __call__(
        self, shape: Sequence[int], dtype: DTypeLike | None = None, rng: np.random.Generator | None = None
    ) -> Array:
        """Return a new array.

        Parameters
        ----------
        shape : sequence of ints
        dtype : {'float32', 'float64'}, optional
            Default: `floatx`.
        rng : numpy.random.Generator, optional
            Where the values come from if this has no seed. With a seed every call returns the same values.

        Raises
        ------
        ValueError, TypeError
            For a shape or dtype that does not fit.
        """
        element = float_dtype(dtype)
        if rng is None or self.seed is not None:
            rng = np.random.default_rng(self.seed)
        with np.errstate(all="ignore"):
            return np.asarray(self._values(_shape(shape), rng), element, order="C")

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not define _values")


class Zeros(Initializer):
    """All 0."""

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    """All 1."""

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.ones(shape)


class Constant(Initializer):
    """The same value everywhere.

    Parameters
    ----------
    value : float or array_like, optional
        An array must have, or broadcast to, the shape.
    """

    def __init__(self, value: ArrayLike = 0) -> None:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"value must be a real number or an array of them, got {shown(value)}")
        self.value = array

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        try:
            return np.broadcast_to(self.value, shape).copy()
        except ValueError:
            raise ValueError(f"value must broadcast to the shape {shape}, got shape {self.value.shape}") from None

    def get_config(self) -> dict[str, Any]:
        """Return the value, nested lists for an array."""
        return {"value": self.value.tolist()}


class RandomUniform(Initializer):
    """Uniform between `minval` and `maxval`; with a `seed` every call returns the same values."""

    _config_names = ("minval", "maxval", "seed")

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval, self.seed = _finite(minval, "minval"), _finite(maxval, "maxval"), checked_seed(seed)
        if minval > maxval:
            raise ValueError(f"minval must not be above maxval, got minval={minval}, maxval={maxval}")

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal with this mean and standard deviation; with a `seed` every call returns the same values."""

    _config_names = ("mean", "stddev", "seed")

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = _finite(mean, "mean"), _finite(stddev, "stddev"), checked_seed(seed)
        if stddev < 0:
            raise ValueError(f"stddev must be at least 0, got {stddev}")

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """Normal with this mean and standard deviation, values beyond two deviations drawn again.

    `seed` as in `RandomNormal`.
    """

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return self.mean + self.stddev * _cut_normal(shape, rng)


class VarianceScaling(Initializer):
    """Random values whose variance is ``scale / n``, n being a number of connections.

    Parameters
    ----------
    scale : float, optional
    mode : {'fan_in', 'fan_out', 'fan_avg'}, optional
        Whether n is the fan in, the fan out or their mean.
    distribution : {'truncated_normal', 'untruncated_normal', 'uniform'}, optional
        Case-insensitive; 'normal' is truncated_normal. The uniform limit is ``sqrt(3 * scale / n)``.
    seed : int, optional
        With it every call returns the same values.
    fans : (fan_in, fan_out) or 'position', optional
        None: those that Keras takes from the stored shape (`compute_fans`). 'position': ``taps * channels / groups``
        and ``taps * filters``, those of the filter at one position, which the layer tells; the same as None for
        ordinary convolutions. The module's docstring says why they differ for locally connected layers.

    Raises
    ------
    ValueError
        For a value that is none of those above.

    Notes
    -----
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks"; He et al.
    (2015), "Delving deep into rectifiers"; LeCun et al. (1998), "Efficient BackProp".

    Examples
    --------
    >>> from localconv.layers import initializers
    >>> values = initializers.GlorotUniform(seed=1, fans=(6, 12))((98, 6, 4))
    >>> bool(abs(values).max() <= (6 / (6 + 12)) ** 0.5)
    True
    """

    _config_names: tuple[str, ...] = ("scale", "mode", "distribution", "seed")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        fans: Fans = None,
    ) -> None:
        if _finite(scale, "scale") <= 0:
            raise ValueError(f"`scale` must be positive float. Received: scale={scale}.")
        if mode not in MODES:
            raise ValueError(f"Invalid `mode` argument: {shortened(str(mode))}. Please use one of the {MODES}.")
        if not isinstance(distribution, str):
            raise TypeError(f"distribution must be a string, got {shown(distribution)}")
        lower = distribution.lower()
        self.distribution = "truncated_normal" if lower == "normal" else lower
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"Invalid `distribution` argument: {shortened(distribution)}. Allowed distributions: {DISTRIBUTIONS}."
            )
        self.scale, self.mode, self.seed, self.fans = scale, mode, checked_seed(seed), _fans(fans)

    def __call__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        rng: np.random.Generator | None = None,
        position_fans: tuple[float, float] | None = None,
    ) -> Array:
        """Return a new array; as `Initializer`, and `position_fans` is what ``fans='position'`` stands for.

        Raises
        ------
        ValueError
            Also with ``fans='position'`` and no `position_fans`, because a shape alone does not tell them.
        """
        if self.fans != "position":
            return super().__call__(shape, dtype, rng)
        if position_fans is None:
            raise ValueError("fans='position' needs a layer that tells them, or position_fans")
        return VarianceScaling(self.scale, self.mode, self.distribution, self.seed, position_fans)(shape, dtype, rng)

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        fans = compute_fans(shape) if self.fans is None else self.fans
        assert not isinstance(fans, str)
        n = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": (fans[0] + fans[1]) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "truncated_normal":
            return math.sqrt(variance) / _CUT_DEVIATION * _cut_normal(shape, rng)
        return rng.normal(0, math.sqrt(variance), shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; fans only if given, as Keras knows no such argument."""
        config = super().get_config()
        if self.fans is not None:
            config["fans"] = self.fans if isinstance(self.fans, str) else list(self.fans)
        return config


class _Named(VarianceScaling):
    """A member of the family whose scale, mode and distribution are fixed."""

    family: tuple[float, str, str]
    _config_names = ("seed",)

    def __init__(self, seed: int | None = None, fans: Fans = None) -> None:
        super().__init__(*self.family, seed, fans)


class GlorotUniform(_Named):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))``; `seed` and `fans` as in `VarianceScaling`."""

    family = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Named):
    """Truncated normal of standard deviation ``sqrt(2 / (fan_in + fan_out))``.

    `seed` and `fans` as in `VarianceScaling`.
    """

    family = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Named):
    """Uniform within ``sqrt(6 / fan_in)``; `seed` and `fans` as in `VarianceScaling`."""

    family = (2.0, "fan_in", "uniform")


class HeNormal(_Named):
    """Truncated normal of standard deviation ``sqrt(2 / fan_in)``; `seed` and `fans` as in `VarianceScaling`."""

    family = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Named):
    """Uniform within ``sqrt(3 / fan_in)``; `seed` and `fans` as in `VarianceScaling`."""

    family = (1.0, "fan_in", "uniform")


class LecunNormal(_Named):
    """Truncated normal of standard deviation ``sqrt(1 / fan_in)``; `seed` and `fans` as in `VarianceScaling`."""

    family = (1.0, "fan_in", "truncated_normal")


class Orthogonal(Initializer):
    """`gain` times a random matrix with orthonormal columns, or rows if it is wider than high.

    A shape of more axes is that matrix reshaped, its last axis being the columns. Saxe et al. (2014), "Exact solutions
    to the nonlinear dynamics of learning in deep linear neural networks". With a `seed` every call returns the same
    values.

    Raises
    ------
    ValueError
        When called with a shape of less than 2 axes.
    """

    _config_names = ("gain", "seed")

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain, self.seed = _finite(gain, "gain"), checked_seed(seed)

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ValueError(
                "The tensor to initialize must be at least two-dimensional. "
                f"Received: shape={shape} of rank {len(shape)}."
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diagonal(r))  # makes the distribution uniform over orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class Identity(Initializer):
    """`gain` times the identity matrix, which need not be square.

    Raises
    ------
    ValueError
        When called with a shape of other than 2 axes.
    """

    _config_names = ("gain",)

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = _finite(gain, "gain")

    def _values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ValueError(
                "Identity matrix initializer can only be used for 2D matrices. "
                f"Received: shape={shape} of rank {len(shape)}."
            )
        return self.gain * np.eye(*shape)


REGISTRY = Registry(
    "initializer",
    "keras.initializers",
    {
        Zeros: ("zeros", "zero"),
        Ones: ("ones", "one"),
        Constant: ("constant",),
        RandomUniform: ("random_uniform", "uniform"),
        RandomNormal: ("random_normal", "normal"),
        TruncatedNormal: ("truncated_normal",),
        VarianceScaling: ("variance_scaling",),
        GlorotUniform: ("glorot_uniform",),
        GlorotNormal: ("glorot_normal",),
        HeUniform: ("he_uniform",),
        HeNormal: ("he_normal",),
        LecunUniform: ("lecun_uniform",),
        LecunNormal: ("lecun_normal",),
        Orthogonal: ("orthogonal",),
        Identity: ("identity",),
    },
)
get = REGISTRY.get


def serialize(initializer: Any) -> Any:
    """Return the config dict of an initializer, None for None."""
    return REGISTRY.serialize(initializer)


def initial(
    initializer: Callable[..., ArrayLike],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rng: np.random.Generator,
    position_fans: tuple[float, float] | None = None,
) -> Array:
    """What any initializer gives for a weight. ValueError if it is of another shape."""
    if isinstance(initializer, VarianceScaling):
        return initializer(shape, dtype, rng, position_fans)
    if isinstance(initializer, Initializer):
        return initializer(shape, dtype, rng)
    values = np.asarray(initializer(shape, dtype=dtype))
    if values.shape != shape:
        raise ValueError(f"the initializer {initializer!r} must return an array of shape {shape}, got {values.shape}")
    return values


def compute_fans(shape: Sequence[int]) -> tuple[int, int]:
    """Return fan in and fan out of a kernel of this shape, as Keras computes them.

    Parameters
    ----------
    shape : sequence of ints
        The last two axes are channels and filters, all before them taps.

    Returns
    -------
    (int, int)
        ``taps * channels`` and ``taps * filters``.
    """
    shape = _shape(shape)
    if len(shape) < 2:
        return (1, 1) if not shape else (shape[0], shape[0])
    taps = math.prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def _cut_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Standard normal values, those beyond 2 drawn again."""
    values = rng.standard_normal(shape).reshape(-1)
    outside = np.flatnonzero(np.abs(values) > 2)
    while outside.size:
        values[outside] = rng.standard_normal(outside.size)
        outside = outside[np.abs(values[outside]) > 2]
    return values.reshape(shape)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(n) for n in parts_of(shape))
    except TypeError:
        raise TypeError(f"shape must be a sequence of ints, got {shown(shape)}") from None
    if any(n < 0 for n in sizes):
        raise ValueError(f"shape must hold ints of at least 0, got {shown(shape)}")
    return sizes


def _finite(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return value if type(value) is int else float(value)


def checked_seed(seed: int | None) -> int | None:
    """A seed as an int, or None. TypeError or ValueError otherwise."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an int or None, got {shown(seed)}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    return int(seed)


def _fans(fans: Any) -> Fans:
    if fans is None or (isinstance(fans, str) and fans == "position"):
        return fans
    if not isinstance(fans, (list, tuple)) or len(fans) != 2:
        raise ValueError(f"fans must be None, (fan_in, fan_out) or 'position', got {shown(fans)}")
    pair = _finite(fans[0], "fans"), _finite(fans[1], "fans")
    if min(pair) <= 0:
        raise ValueError(f"fans must be above 0, got {shown(fans)}")
    return pair
