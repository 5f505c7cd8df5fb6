"""localconv.quantize and QuantizedKernel: values, scales, files, and what they refuse."""

import contextlib
import copy
import io
import pickle
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import whatever_errstate
from oracle import assert_same_bits
from stored import BFLOAT16, FLOAT16, FLOAT32, FLOAT64

import localconv
from localconv import QuantizedKernel, layers
from localconv.convert import convert
from localconv.core.quantized import LARGEST_SCALE

DTYPES = (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)
SHAPES = [(8, 12, 2), (1, 1, 1), (5, 3, 17), (3, 3, 4, 9), (2, 3, 2, 5, 4), (0, 3, 2)]
NORMAL = np.finfo(np.float32).smallest_normal


def kernel_of(shape, dtype=FLOAT32, seed=0):
    """Normal values, each filter's of a size of its own."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-3, 3, shape[-1:])
    return (rng.standard_normal(shape) * sizes).astype(np.float32).astype(dtype)


def check(kernel, small):
    """Against the definition, in float64. The quotient's rounding may move a value to the other side of a half."""
    assert (small.values.dtype, small.scales.dtype) == (np.int8, np.float32)
    assert small.values.shape == kernel.shape
    assert small.scales.shape == kernel.shape[:-2] + kernel.shape[-1:]
    numbers, eps = kernel.astype(np.float64), np.finfo(np.float32).eps
    scales = np.maximum(abs(numbers).max(-2, initial=0) / 127, NORMAL)
    np.testing.assert_allclose(small.scales, scales, rtol=eps)
    assert (small.scales >= NORMAL).all()
    assert (abs(small.values.astype(int)) <= 127).all()
    by = small.scales.astype(np.float64)[..., None, :]
    assert (abs(numbers / by - small.values) <= 0.5 + 127 * eps).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_scales(shape, dtype):
    kernel = kernel_of(shape, dtype)
    before = kernel.tobytes()
    small = localconv.quantize(kernel)
    assert type(small) is QuantizedKernel
    check(kernel, small)
    assert kernel.tobytes() == before
    if kernel.size:
        assert (abs(small.values).max(-2) == 127).all()


def test_largest_values_and_ties():
    """Where the largest is 127 times a power of two the scale is exact: halves go to the even neighbour."""
    column = np.array([127, -127, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 126.5, -126.49, 0, 3])
    expected = [127, -127, 0, 2, 2, 0, -2, 0, 126, -126, 0, 3]
    for dtype in (FLOAT32, FLOAT64):
        kernel = np.stack([column, column / 64, -column * 1024], -1)[None].astype(dtype)
        small = localconv.quantize(kernel, mode="int8")
        np.testing.assert_array_equal(small.scales, [[1, 1 / 64, 1024]])
        np.testing.assert_array_equal(small.values[0].T, [expected, expected, np.negative(expected)])


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5)),
    exponent=st.integers(-44, 36),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
    zeros=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size(shape, exponent, spread, zeros, seed):
    """Of subnormal numbers too, whose scale is the smallest normal one."""
    rng = np.random.default_rng(seed)
    kernel = rng.uniform(-1, 1, shape) * 10.0 ** (exponent - spread * rng.uniform(0, 1, shape))
    if zeros:
        kernel[:, :, rng.integers(shape[2])] = 0
    kernel = kernel.astype(np.float32)
    small = localconv.quantize(kernel)
    check(kernel, small)
    back = small.dequantize()
    half_step = small.scales.astype(np.float64)[:, None, :] * (0.5 + 254 * np.finfo(np.float32).eps)
    assert (abs(back.astype(np.float64) - kernel) <= half_step).all()


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-39, 1e-300])
def test_scales_are_never_zero_or_subnormal(value):
    kernel = np.full((2, 3, 4), value)
    small = localconv.quantize(kernel if value == 1e-300 else kernel.astype(np.float32))
    np.testing.assert_array_equal(small.scales, NORMAL)
    assert (abs(small.dequantize() - kernel) <= NORMAL / 2).all()


@pytest.mark.parametrize(
    "form",
    [
        lambda kernel: kernel[::-1].copy()[::-1],
        np.asfortranarray,
        lambda kernel: kernel.astype(kernel.dtype.newbyteorder()),
        lambda kernel: np.repeat(kernel, 2, 1)[:, ::2],
        memoryview,
    ],
    ids=["backwards", "Fortran's order", "byte-swapped", "every other", "memoryview"],
)
def test_forms(form):
    kernel = kernel_of((8, 12, 5))
    expected = localconv.quantize(kernel)
    small = localconv.quantize(form(kernel))
    assert_same_bits(small.values, expected.values)
    assert_same_bits(small.scales, expected.scales)


def test_lists_and_memory_maps(tmp_path):
    kernel = kernel_of((8, 12, 5), FLOAT64)
    expected = localconv.quantize(kernel)
    kernel.tofile(tmp_path / "kernel.raw")
    mapped = np.memmap(tmp_path / "kernel.raw", FLOAT64, "r", shape=kernel.shape)
    for same in (kernel.tolist(), mapped):
        assert_same_bits(localconv.quantize(same).values, expected.values)
        assert_same_bits(localconv.quantize(same).scales, expected.scales)


# --- the object -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attributes(shape):
    small = localconv.quantize(kernel_of(shape))
    assert (small.shape, small.ndim, small.size) == (shape, len(shape), int(np.prod(shape)))
    assert small.nbytes == small.values.nbytes + small.scales.nbytes
    assert small.dtype == np.int8
    assert str(shape) in repr(small)
    assert str(small.nbytes) in repr(small)


def test_dequantize():
    """A new float32 array of values times scales, rounded once; -128 is a value as any other."""
    values = np.resize(np.arange(-128, 128, dtype=np.int8), (4, 64, 3))
    scales = kernel_of((4, 1, 3))[:, 0]
    small = QuantizedKernel(values, scales)
    back = small.dequantize()
    assert_same_bits(back, values.astype(np.float32) * scales[:, None, :])
    assert back.flags.c_contiguous
    back[...] = 7
    assert_same_bits(small.dequantize(), values.astype(np.float32) * scales[:, None, :])


def test_parts_are_taken_as_they_are():
    """Values are not copied: those of a memory map stay on the disk."""
    values, scales = np.ones((2, 3, 4), np.int8), np.ones((2, 4), np.float32)
    small = QuantizedKernel(values, scales)
    assert np.shares_memory(small.values, values)
    np.testing.assert_array_equal(small.scales, scales)


def test_file():
    small = localconv.quantize(kernel_of((3, 3, 4, 9)))
    file = io.BytesIO()
    np.savez(file, values=small.values, scales=small.scales)
    file.seek(0)
    with np.load(file) as parts:
        check_equal(QuantizedKernel(**parts), small)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(protocol):
    small = localconv.quantize(kernel_of((8, 12, 5)))
    check_equal(pickle.loads(pickle.dumps(small, protocol)), small)


def test_pickles_name_the_public_class():
    """So that modules may move."""
    assert b"clocalconv\nQuantizedKernel\n" in pickle.dumps(QuantizedKernel(VALUES, SCALES), 0)


def test_copies():
    small = localconv.quantize(kernel_of((8, 12, 5)))
    check_equal(copy.copy(small), small)
    deep = copy.deepcopy(small)
    check_equal(deep, small)
    assert not np.shares_memory(deep.values, small.values)
    assert not np.shares_memory(deep.scales, small.scales)


def check_equal(small, expected):
    assert type(small) is QuantizedKernel
    assert_same_bits(small.values, expected.values)
    assert_same_bits(small.scales, expected.scales)
    x = np.ones((1, *[6] * (small.ndim - 2), small.shape[-2]), np.float32)
    if small.ndim == 4:
        result, other = (localconv.conv2d(x, k, data_format="channels_last") for k in (small, expected))
    else:
        x = np.ones((1, len(small.values), small.shape[1]), np.float32)
        result, other = (localconv.local_conv1d(x, k, 1, data_format="channels_last") for k in (small, expected))
    assert_same_bits(result, other)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_integers(dtype):
    with pytest.raises(TypeError, match=r"kernel.*kernel\.astype\(np\.float32\)") as caught:
        localconv.quantize(np.ones((2, 3, 4), dtype))
    for word in ("float16", "bfloat16", "float32", "float64", dtype):
        assert word in str(caught.value)


@pytest.mark.parametrize("wrong", [None, "kernel", object(), {}, np.ones((2, 3, 4), complex)], ids=repr)
def test_no_array_of_numbers(wrong):
    with pytest.raises(TypeError, match="kernel"):
        localconv.quantize(wrong)


def test_masked_arrays():
    with pytest.raises(TypeError, match="kernel"):
        localconv.quantize(np.ma.masked_array(np.ones((2, 3, 4))))


def test_quantized_already():
    with pytest.raises(TypeError, match="kernel"):
        localconv.quantize(localconv.quantize(np.ones((2, 3, 4))))


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)], ids=str)
def test_too_few_axes(shape):
    with pytest.raises(ValueError, match="kernel"):
        localconv.quantize(np.ones(shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(dtype, wrong):
    for place in ((0, 0, 0), (1, 2, 3)):
        kernel = np.ones((2, 3, 4), dtype)
        kernel[place] = wrong
        with pytest.raises(ValueError, match="kernel"):
            localconv.quantize(kernel)


def test_values_past_float32():
    """Finite in float64, but without a scale in float32; or with one whose multiples are infinite."""
    for value in (1e300, 1e39):
        with pytest.raises(ValueError, match="kernel"):
            localconv.quantize(np.full((2, 3, 4), value))


def test_the_largest_values_of_float32():
    """Come back finite."""
    kernel = np.full((2, 3, 4), np.finfo(np.float32).max)
    kernel[:, 1] *= -1
    back = localconv.quantize(kernel).dequantize()
    np.testing.assert_allclose(back, kernel, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errstate_changes_nothing_of_small_values(dtype):
    """Subnormal values and scales lose digits by definition."""
    with np.errstate(all="ignore"):
        kernel = np.resize(np.array([1e-45, 1e-40, -1e-38, 5e-324, 1, 0, 1e-7, 3e-5]), (6, 4, 3)).astype(dtype)

    def compute():
        small = localconv.quantize(kernel)
        return small.values, small.scales, small.dequantize()

    whatever_errstate(compute)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("scale", [LARGEST_SCALE, 1e-40, 1e-45])
def test_errstate_changes_nothing_of_large_and_small_scales(scale, dtype):
    """-128, which only files have, is infinite at the largest scale, in whatever is computed."""
    values = np.resize(np.arange(-128, 128, dtype=np.int8), (64, 4, 1))
    small = QuantizedKernel(values, np.full((64, 1), scale, np.float32))
    x = np.zeros((1, 65, 2), dtype)
    x[:, ::2] = 1

    def compute():
        gradient = localconv.grad.local_conv1d_input(np.shape(x), small, x[:, :64, :1], 2, 1)
        return small.dequantize(), localconv.local_conv1d(x, small, 2, 1), gradient

    back, y, _ = whatever_errstate(compute)
    assert np.isneginf(back).any() == np.isneginf(y).any() == (scale == LARGEST_SCALE)


@pytest.mark.parametrize("wrong", ["int4", "INT8", "float16", "", None, 8, np.int8, b"int8", ["int8"]], ids=repr)
def test_modes(wrong):
    with pytest.raises((TypeError, ValueError), match="mode"):
        localconv.quantize(np.ones((2, 3, 4)), wrong)


VALUES, SCALES = np.ones((2, 3, 4), np.int8), np.ones((2, 4), np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool", "float32", "O"])
def test_values_of_other_dtypes(dtype):
    with pytest.raises(TypeError, match="values"):
        QuantizedKernel(VALUES.astype(dtype), SCALES)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64", "bool", "complex64", "O"])
def test_scales_of_other_dtypes(dtype):
    with pytest.raises(TypeError, match="scales"):
        QuantizedKernel(VALUES, SCALES.astype(dtype))


@pytest.mark.parametrize("wrong", [None, "values", 3, {}, object()], ids=repr)
def test_parts_that_are_no_arrays(wrong):
    with pytest.raises(TypeError, match="values"):
        QuantizedKernel(wrong, SCALES)
    with pytest.raises(TypeError, match="scales"):
        QuantizedKernel(VALUES, wrong)


def test_masked_parts():
    """Their mask would be lost; an array of int8 that has one is not refused for its int8."""
    with pytest.raises(TypeError, match=r"got a masked array: \.filled\(0\) makes a plain one"):
        QuantizedKernel(np.ma.masked_array(VALUES), SCALES)
    with pytest.raises(TypeError, match="values"):
        QuantizedKernel(np.ma.masked_array(VALUES), SCALES)
    with pytest.raises(TypeError, match="scales"):
        QuantizedKernel(VALUES, np.ma.masked_array(SCALES))


@pytest.mark.parametrize("shape", [(), (4,), (3, 4)], ids=str)
def test_values_of_too_few_axes(shape):
    with pytest.raises(ValueError, match="values"):
        QuantizedKernel(np.ones(shape, np.int8), np.ones(shape[1:], np.float32))


@pytest.mark.parametrize(
    "shape", [(), (4,), (2,), (3, 4), (1, 4), (2, 1), (4, 2), (2, 3, 4), (2, 1, 4), (0, 4)], ids=str
)
def test_shapes_of_scales(shape):
    with pytest.raises(ValueError, match="scales"):
        QuantizedKernel(VALUES, np.ones(shape, np.float32))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite(wrong):
    scales = SCALES.copy()
    scales[1, 3] = wrong
    with pytest.raises(ValueError, match="scales"):
        QuantizedKernel(VALUES, scales)


def test_missing_parts():
    with pytest.raises(TypeError):
        QuantizedKernel(VALUES)
    with pytest.raises(TypeError):
        QuantizedKernel()


@pytest.mark.parametrize("name", ["values", "scales"])
def test_parts_are_not_assigned(name):
    """The core reads them by sizes that were checked once."""
    kernel = localconv.quantize(np.ones((2, 3, 4), np.float32))
    with pytest.raises(AttributeError, match=name):
        setattr(kernel, name, np.ones(1))


def by_kernel(kernel):
    """A result that reads all of a kernel of the shape of `VALUES`."""
    return localconv.local_conv1d(np.ones((1, 4, 1), "f"), kernel, 3, 1, "channels_last")


MISUSES = {
    "caller's values": lambda values, scales, small: setattr(values, "shape", (4, 3, 2)),
    "caller's scales": lambda values, scales, small: setattr(scales, "shape", (4, 2)),
    "values": lambda values, scales, small: setattr(small.values, "shape", (24, 1, 1)),
    "scales": lambda values, scales, small: setattr(small.scales, "shape", (8, 1)),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_shapes_of_parts_that_others_set(misuse):
    """Nobody else has the views that the core reads by."""
    values, scales = VALUES.copy(), SCALES.copy()
    small = QuantizedKernel(values, scales)
    expected = by_kernel(small)
    MISUSES[misuse](values, scales, small)
    assert small.shape == VALUES.shape
    assert small.scales.shape == SCALES.shape
    assert np.array_equal(by_kernel(small), expected)


THROUGH = {
    "array": lambda array: array,
    "view": lambda array: array[...],
    "view of a view": lambda array: array[...][...],
    "strides": np.lib.stride_tricks.as_strided,
    "memoryview": lambda array: np.asarray(memoryview(array)),
    "dlpack": np.from_dlpack,
    "interface": lambda array: np.asarray(types.SimpleNamespace(__array_interface__=array.__array_interface__)),
    "ctypes": lambda array: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(array)),
}


@pytest.mark.parametrize("part", ["values", "scales"])
@pytest.mark.parametrize("through", THROUGH)
def test_parts_are_not_freed(part, through):
    """Resizing would free the memory that the kernel reads, whatever NumPy's own `refcheck` says: it is refused, or
    the kernel has a copy.
    """
    parts = {"values": VALUES.copy(), "scales": SCALES.copy()}
    small = QuantizedKernel(**{name: THROUGH[through](array) for name, array in parts.items()})
    with contextlib.suppress(ValueError):
        parts[part].resize((1_000_000,), refcheck=False)
    with contextlib.suppress(ValueError):
        parts[part].resize((0,), refcheck=False)
    assert (parts[part].size > 0) == np.shares_memory(parts[part], getattr(small, part))
    assert np.array_equal(by_kernel(small), by_kernel(QuantizedKernel(VALUES, SCALES)))


@pytest.mark.parametrize("part", ["values", "scales"])
def test_maps_and_bytes_are_not_copied(part, tmp_path):
    parts = {"values": VALUES, "scales": SCALES}
    np.save(tmp_path / "part.npy", parts[part])
    mapped = np.load(tmp_path / "part.npy", mmap_mode="r")
    given = np.frombuffer(parts[part].tobytes(), parts[part].dtype).reshape(parts[part].shape)
    for array in (mapped, given):
        small = QuantizedKernel(**(parts | {part: array}))
        assert np.shares_memory(getattr(small, part), array)


@pytest.mark.parametrize("part", ["values", "scales"])
def test_a_part_that_resizes_the_other_when_asked(part):
    """Nothing is asked before the memory of both is held."""
    parts = {"values": VALUES.copy(), "scales": SCALES.copy()}
    other = parts["scales" if part == "values" else "values"]

    class Meddling(np.ndarray):
        @property
        def dtype(self):
            with contextlib.suppress(ValueError):
                other.resize((0,), refcheck=False)
            return np.ndarray.dtype.__get__(self)

    small = QuantizedKernel(**(parts | {part: parts[part].view(Meddling)}))
    assert np.array_equal(by_kernel(small), by_kernel(QuantizedKernel(VALUES, SCALES)))


@pytest.mark.parametrize("part", ["values", "scales"])
def test_parts_are_handed_out_read_only(part):
    small = QuantizedKernel(VALUES.copy(), SCALES.copy())
    with pytest.raises(ValueError, match="read-only"):
        getattr(small, part)[...] = 0


class Lying(np.ndarray):
    """Says that it has another shape."""

    shape = property(lambda self: VALUES.shape if self.dtype == np.int8 else SCALES.shape)


@pytest.mark.parametrize("part", ["values", "scales"])
def test_subclasses_whose_shape_lies(part):
    small = {"values": np.ones((1, 1, 1), np.int8), "scales": np.ones((1, 1), np.float32)}[part].view(Lying)
    with pytest.raises(ValueError, match="scales must have shape"):
        QuantizedKernel(**({"values": VALUES, "scales": SCALES} | {part: small}))


def local_layer():
    """Whose kernel has the shape of `VALUES`."""
    layer = layers.LocallyConnected1D(4, 3, use_bias=False, input_shape=(4, 1))
    layer.build((None, 4, 1))
    return layer


NO_ARRAY = r"a QuantizedKernel is no array: kernel\.dequantize\(\) is one of float32, and in files kernel\.values"
USES = {
    "asarray": np.asarray,
    "array of a dtype": lambda kernel: np.array(kernel, np.float32),
    "without a copy": lambda kernel: np.array(kernel, copy=False),
    "in a list": lambda kernel: np.asarray([kernel, kernel]),
    "stack": lambda kernel: np.stack([kernel, kernel]),
    "multiply": lambda kernel: np.multiply(kernel, 2),
    "on the right": lambda kernel: np.ones(4) * kernel,
    "abs": np.abs,
    "reshape": lambda kernel: np.reshape(kernel, -1),
    "isfinite": np.isfinite,
    "assigned": lambda kernel: np.zeros(kernel.shape).__setitem__(..., kernel),
    "savez": lambda kernel: np.savez(io.BytesIO(), kernel=kernel),
    "savez by order": lambda kernel: np.savez(io.BytesIO(), kernel),
    "save": lambda kernel: np.save(io.BytesIO(), kernel),
    "weights of a layer": lambda kernel: local_layer().set_weights([kernel]),
    "another layout": lambda kernel: convert(kernel, "rows", "flax", (3,), output_size=(2,)),
}


@pytest.mark.parametrize("use", USES)
def test_it_is_no_array(use):
    """NumPy would make an array of one object, and files of that by pickling."""
    with pytest.raises(TypeError, match=NO_ARRAY):
        USES[use](QuantizedKernel(VALUES, SCALES))


def test_functions_name_the_argument():
    """Which come before NumPy."""
    small = QuantizedKernel(VALUES, SCALES)
    with pytest.raises(TypeError, match=r"inputs must be .*: only a kernel may be a QuantizedKernel"):
        localconv.local_conv1d(small, np.ones((2, 3, 4), "f"), 3, 1, "channels_last")
    with pytest.raises(TypeError, match="out must be a numpy array"):
        localconv.local_conv1d(np.ones((1, 4, 1), "f"), small, 3, 1, "channels_last", out=small)
