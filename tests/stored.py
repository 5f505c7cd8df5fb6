"""Kernels of fewer bytes and arrays of 16 bits: the values that they stand for, and the dtypes that results have.

float16 and bfloat16 hold the integers up to 256, which is what the exact data of operations.py and oracle.py are, so
that twins take them in float32 without a loss.
"""

import ml_dtypes
import numpy as np

from localconv import QuantizedKernel

FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
HALVES = (FLOAT16, BFLOAT16)
# Around vectors and register tiles of every instruction set.
FILTERS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65)
BATCHES = (1, 2, 8, 9, 16, 17, 33)


def every_value(dtype):
    """All 65,536 values of 16 bits, in the order of their patterns: infinities, NaN and subnormals among them."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def half_kernel(dtype, shape, seed=0, any_value=False):
    """Normal values, rounded; or any pattern of bits."""
    rng = np.random.default_rng(seed)
    if any_value:
        return rng.integers(0, 2**16, shape, np.uint16).view(dtype)
    return rng.standard_normal(shape).astype(dtype)


def exact_quantized(shape, seed=0):
    """A quantized kernel whose sums float32 holds exactly: small integers times powers of two, each filter and place
    with one of its own, so that another one's scale shows.
    """
    rng = np.random.default_rng(seed)
    scales = 2.0 ** rng.integers(-2, 3, shape[:-2] + shape[-1:])
    return QuantizedKernel(rng.integers(-8, 9, shape, np.int8), scales.astype(np.float32))


def widened(value):
    """What an argument of fewer bytes stands for, in float32; anything else as it is."""
    if isinstance(value, QuantizedKernel):
        return value.values.astype(np.float32) * value.scales[..., None, :]
    if isinstance(value, np.ndarray) and value.dtype.newbyteorder("=") in HALVES:
        return value.astype(np.float32)
    return value


def all_widened(arguments):
    return {name: widened(value) for name, value in arguments.items()}


def promoted(*values):
    """The dtype of a result: two kinds of 16 bits have float32 in common, which is also what a quantized kernel is."""
    kinds = {FLOAT32 if isinstance(v, QuantizedKernel) else v.dtype.newbyteorder("=") for v in values if v is not None}
    if len(kinds) == 1:
        return kinds.pop()
    return FLOAT64 if FLOAT64 in kinds else FLOAT32


def result_dtype(operation, arguments):
    """As `promoted`, of an operation of operations.py; but gradients of 16-bit arrays for a kernel come in float32."""
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray | QuantizedKernel)]
    dtype = promoted(*arrays)
    return FLOAT32 if operation.accumulates and dtype in HALVES else dtype


def redrawn(rng, arguments, dtypes=(FLOAT16, BFLOAT16, FLOAT32, FLOAT64)):
    """Exact arguments with each array in one of these dtypes, and the kernel, now and then, quantized."""
    arguments = dict(arguments)
    if "kernel" in arguments and rng.random() < 0.3:
        arguments["kernel"] = exact_quantized(arguments["kernel"].shape, rng.randrange(2**32))
    dtypes = [rng.choice(dtypes)] if rng.random() < 0.3 else dtypes
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            arguments[name] = value.astype(rng.choice(dtypes))
    return arguments


def assert_same_numbers(result, expected):
    """Equal to the bit, but that a NaN may be any NaN."""
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    missing = np.isnan(widened(expected))
    np.testing.assert_array_equal(np.isnan(widened(result)), missing)
    assert result[~missing].tobytes() == expected[~missing].tobytes()
