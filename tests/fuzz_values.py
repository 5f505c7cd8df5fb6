"""What the fuzzer's rounds share: values in strange clothes, wrong values, and what a finding is."""

import numpy as np
from stored import exact_quantized

from localconv import QuantizedKernel

REFUSALS = (ValueError, TypeError, MemoryError)
# Sizes that no array here has: an argument with one is refused, or has no effect on how much there is to compute.
FAR = (2**31 - 1, 2**31, 2**32, 2**47, 2**50, 2**55, 2**58, 2**60, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)
NUMBERS = (0, -1, -(2**63), 1, 2, 3, 7, *FAR)
ODD = (
    None,
    True,
    1.0,
    2.5,
    float("nan"),
    "3",
    b"3",
    "",
    "valid",
    [],
    (),
    {},
    {1, 2},
    object(),
    np.int8(2),
    np.float64(1),
    np.array(3),
    1j,
    np.ones((2, 2)),
    memoryview(np.ones((2, 2))),
)


class Subclass(np.ndarray):
    """An array that is not quite NumPy's."""


class Finding(Exception):
    """A call did what no call may do."""


# ---------------------------------------------------------------------------------------------- the same value, dressed


def dress(rng, array):
    """An array, or a quantized kernel, of the same values and another form."""
    if isinstance(array, QuantizedKernel):
        return QuantizedKernel(dress_integers(rng, array.values), dress_native(rng, array.scales))
    if array.size == 0 or array.ndim == 0:
        return array
    padded = np.full((2 * array.shape[0] + 1, *array.shape[1:]), np.nan, array.dtype)
    padded[1::2] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)
    shifted = raw[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    forms = {
        "as it is": array,
        "every other": padded[1::2],
        "backwards": array[::-1].copy()[::-1],
        "transposed": np.ascontiguousarray(array.T).T,
        "misaligned": shifted,
        "byte-swapped": array.astype(array.dtype.newbyteorder()),
        "read-only": frozen,
        "list": array.tolist() if array.dtype == np.float64 else array,
        "subclass": array.view(Subclass),
    }
    return rng.choice(list(forms.values()))


def dress_integers(rng, array):
    """As `dress`, without NaN between the values."""
    frozen = array.copy()
    frozen.flags.writeable = False
    spaced = np.repeat(array, 2, -1)[..., ::2]
    return rng.choice([array, array[::-1].copy()[::-1], array.T.copy().T, spaced, frozen, array.view(Subclass)])


def dress_native(rng, array):
    """As `dress`, in the machine's byte order, which scales have to have."""
    dressed = dress(rng, array)
    return dressed if dressed.dtype.isnative else array


# ----------------------------------------------------------------------------------------------------------- wrong ones


def spoil(rng, name, value):
    """A value for an argument that is probably wrong."""
    if isinstance(value, QuantizedKernel):
        return rng.choice(spoilt_quantized(value))
    if isinstance(value, np.ndarray):
        endless = np.lib.stride_tricks.as_strided(value, (2**40, *value.shape[1:]), (0, *value.strides[1:]))
        with np.errstate(invalid="ignore"):  # NaN as an integer
            others = [value.astype(kind) for kind in (np.float16, np.int64, complex, object, np.longdouble)]
        others += [exact_quantized(value.shape)] if value.ndim > 2 else []
        others += [value[0], value[None], value[:0], value[..., :-1], value[..., :1], value.T, value.ravel(), endless]
        others += [
            np.broadcast_to(value[:1], value.shape),
            np.ma.masked_array(value),
            np.zeros((0,) * value.ndim, value.dtype),
        ]
        return rng.choice([*others, np.float32(3), None, "x", [[1.0], [1.0, 2.0]], {}])
    if rng.random() < 0.4:
        return rng.choice(ODD)
    if isinstance(value, tuple) and value and rng.random() < 0.8:
        parts = list(value)
        if name == "padding":
            return tuple(
                rng.choice([pair, (rng.choice(NUMBERS), 0), (0, rng.choice(FAR)), (rng.randint(0, 30), 1), 3])
                for pair in parts
            )
        place = rng.randrange(len(parts))
        parts[place] = rng.choice([*NUMBERS, *ODD])
        return rng.choice([tuple(parts), parts, parts[:-1], [*parts, 1]])
    return rng.choice(NUMBERS)


def spoilt_quantized(kernel):
    """Its parts alone, kernels of other shapes, and, which is right, the array that it stands for."""
    values, scales = kernel.values, kernel.scales
    others = [
        (values[None], scales[None]),
        (values[:0], scales[:0]),
        (values[:-1], scales[:-1]),
        (values[..., :-1], scales[..., :-1]),
        (values[..., :-1, :], scales),
    ]
    return [values, scales, kernel.dequantize(), None, "x", [kernel], *(QuantizedKernel(*parts) for parts in others)]


def bits(arguments):
    """Every byte of the arrays, those of a quantized kernel among them."""
    parts = [(v.values, v.scales) if isinstance(v, QuantizedKernel) else (v,) for v in arguments.values()]
    return [
        np.asarray(v).tobytes()
        for part in parts
        for v in part
        if isinstance(v, np.ndarray) and v.size < 10**6 and v.dtype != object
    ]


def describe(arguments):
    return {
        key: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
    }
