"""Wrong arguments are refused by an error that names the argument."""

import decimal
import re

import numpy as np
import pytest
from operations import OPERATIONS, of_kind

import localconv
from localconv.core import settings

FUNCTIONS = of_kind("forward", "columns", "local_filter", "local_correlation")
CONVOLUTIONS = of_kind("forward")
RIGHT = {name: OPERATIONS[name].right for name in FUNCTIONS}
ARRAYS = [(f, name) for f in FUNCTIONS for name in OPERATIONS[f].arrays]
ACCEPTED = "float16, bfloat16, float32 and float64"


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def call(function, **changes):
    return OPERATIONS[function].call(**changes)


def refused(function, error, name, *words, **changes):
    """The call raises just this kind of error; its message names the argument and has these words."""
    with pytest.raises(error, match=rf"\b{name}\b") as caught:
        call(function, **changes)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_right_arguments_are_right(function):
    assert call(function).shape == OPERATIONS[function].out


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "bool", "complex64", "complex128", "O", "U3"])
def test_other_dtypes(function, name, dtype):
    wrong = RIGHT[function][name].astype(dtype)
    refused(function, TypeError, name, ACCEPTED, str(wrong.dtype), **{name: wrong})


@pytest.mark.skipif(np.dtype("longdouble").itemsize == 8, reason="this platform's long double is float64")
@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_long_double(function, name):
    refused(function, TypeError, name, ACCEPTED, **{name: RIGHT[function][name].astype("longdouble")})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_masked_arrays(function, name):
    """Their mask would be lost."""
    refused(function, TypeError, name, ACCEPTED, ".filled(0)", **{name: np.ma.masked_array(RIGHT[function][name])})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_arrays_of_objects(function, name):
    """As pandas makes of mixed columns: the error says how they become floats."""
    refused(function, TypeError, name, f"{name}.astype(np.float32)", **{name: RIGHT[function][name].astype(object)})


@pytest.mark.parametrize(
    ("function", "shape", "words"),
    [
        ("local_conv2d", (5, 5, 3, 2, 4, 6), "reshaped to (25, 24, 6) it is one"),
        ("local_conv3d", (3, 3, 2, 3, 2, 2, 2, 6), "localconv.convert makes one of other layouts"),
        ("local_conv2d", (6, 4, 5, 5, 3, 2), "localconv.convert makes one of other layouts"),
        ("local_conv1d", (5, 3, 4, 6), "reshaped to (5, 12, 6) it is one"),
        ("local_conv2d", (3, 2, 4, 6), "one kernel for all positions is for conv2d"),
        ("conv2d", (25, 24, 6), "a kernel of its own for every position is for local_conv2d"),
        ("conv3d", (18, 24, 6), "a kernel of its own for every position is for local_conv3d"),
    ],
)
def test_kernels_of_other_axes(function, shape, words):
    """The error names what they may be meant for."""
    refused(function, ValueError, "kernel", str(shape), words, kernel=zeros(*shape))


def test_what_is_reshaped_is_right():
    """Also where rows have the channels outside."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (2, 4, 7, 6)).astype("float32")
    kernel = rng.integers(-8, 9, (5, 5, 4, 3, 2, 6)).astype("float32")
    with pytest.raises(ValueError, match=r"reshaped to \(25, 24, 6\) it is one"):
        localconv.local_conv2d(x, kernel, (3, 2), 1, None, "channels_first")
    result = localconv.local_conv2d(x, kernel.reshape(25, 24, 6), (3, 2), 1, None, "channels_first")
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (2, 3))
    np.testing.assert_array_equal(result, np.einsum("bcijhw,ijchwf->bfij", windows, kernel))


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_images_without_a_batch(function):
    name = "inputs" if "local" in function else "x"
    image = RIGHT[function][name][0]
    words = f"got shape {image.shape}; a single image is a batch of shape {(1, *image.shape)}"
    refused(function, ValueError, name, words, **{name: image})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("wrong", [None, "image.png", object(), {}, decimal.Decimal(1), [[1, 2], [3, 4]]], ids=repr)
def test_no_array_of_numbers(function, name, wrong):
    refused(function, TypeError, name, **{name: wrong})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_ragged_lists(function, name):
    with pytest.raises((TypeError, ValueError)):
        call(function, **{name: [[1.0, 2.0], [3.0]]})


@pytest.mark.parametrize("function", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", ["int64", "int8", "complex64", "O"])
def test_dtype_of_bias(function, dtype):
    refused(function, TypeError, "bias", ACCEPTED, bias=np.zeros(6, dtype))


# --- numbers of axes and their sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_number_of_axes(function, name):
    """Too few and too many; but the convolutions' x takes any number of batch axes, and im2col's may be 1D to 3D."""
    right = RIGHT[function][name]
    any_batch = function.startswith("conv") and name == "x"
    wrongs = [right[(0,) * n] for n in range(1, right.ndim + 1)]
    wrongs += [] if any_batch else [right[None]]
    for wrong in wrongs:
        if not (function == "im2col" and 3 <= wrong.ndim <= 5):
            refused(function, ValueError, name, **{name: wrong})


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        ("local_conv1d", (4, 12, 6)),  # a position too few
        ("local_conv1d", (6, 12, 6)),  # one too many
        ("local_conv1d", (1, 12, 6)),
        ("local_conv1d", (5, 11, 6)),
        ("local_conv1d", (5, 24, 6)),  # Keras would reinterpret the batch
        ("local_conv1d", (5, 6, 6)),
        ("local_conv1d", (5, 4, 6)),
        ("local_conv1d", (0, 12, 6)),
        ("local_conv1d", (5, 12, 0)),
        ("local_conv1d", (5, 0, 6)),
        ("local_conv2d", (20, 24, 6)),
        ("local_conv2d", (25, 12, 6)),
        ("local_conv2d", (25, 24, 0)),
        ("conv1d", (3, 3, 6)),
        ("conv1d", (3, 8, 6)),
        ("conv1d", (3, 2, 6)),  # TensorFlow would take it for two groups
        ("conv1d", (0, 4, 6)),
        ("conv1d", (3, 0, 6)),
        ("conv1d", (3, 4, 0)),
        ("conv2d", (3, 2, 2, 6)),
        ("conv2d", (3, 0, 4, 6)),
        ("conv2d", (3, 2, 4, 0)),
    ],
)
def test_shape_of_kernel(function, shape):
    refused(function, ValueError, "kernel", kernel=zeros(*shape))


@pytest.mark.parametrize("function", ["local_conv1d", "local_conv2d", "conv1d", "conv2d"])
def test_shape_of_inputs(function):
    """A size that the kernel does not fit: the error names one of the two."""
    name = "inputs" if "local" in function else "x"
    shape = RIGHT[function][name].shape
    refused(function, ValueError, f"{name}|kernel", **{name: zeros(*shape[:-1], 5)})
    refused(function, ValueError, f"{name}|kernel", **{name: zeros(*shape[:-1], 0)})
    if "local" in function:
        refused(function, ValueError, f"{name}|kernel", **{name: zeros(2, 8, *shape[2:])})


@pytest.mark.parametrize("function", ["im2col", "conv1d", "conv2d"])
def test_no_channels(function):
    refused(function, ValueError, "x|kernel|channels", x=zeros(*RIGHT[function]["x"].shape[:-1], 0))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("rows", "padding"), [(2, "valid"), (0, "valid"), (0, "same")])
def test_empty_output(function, rows, padding):
    """An image that the window does not fit in, or that has no pixels at all."""
    name = next(name for name in ("inputs", "x", "input_shape") if name in RIGHT[function])
    image = RIGHT[function][name]
    shape = image if function == "col2im" else image.shape
    shape = (shape[0], rows, *shape[2:])
    with pytest.raises(ValueError, match=rf"\b(output|{name})\b"):
        call(function, padding=padding, **{name: shape if function == "col2im" else zeros(*shape)})


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_shape_of_bias(function):
    for shape in ((), (5,), (1,), (7,), (0,), (1, 6), (2, 6), (6, 1)):
        refused(function, ValueError, "bias", bias=zeros(*shape))
    if not function.startswith("local"):
        refused(function, ValueError, "bias", bias=zeros(*OPERATIONS[function].out[1:]))


@pytest.mark.parametrize("function", ["local_conv1d", "local_conv2d"])
def test_full_bias_is_shaped_as_keras_stores_it(function):
    """(*out, filters) in both data formats: the shape of a channels_first output is refused."""
    out = OPERATIONS[function].out[1:-1]
    assert call(function, bias=zeros(*out, 6)).shape == OPERATIONS[function].out
    refused(function, ValueError, "bias", bias=zeros(6, *out))


@pytest.mark.parametrize("wrong", [(5,), (5, 5, 1), (4, 5), (5, 4), (0, 0), (25, 1), (-5, 5)], ids=str)
def test_output_shape(wrong):
    refused("local_conv2d", ValueError, "output_shape", output_shape=wrong)


@pytest.mark.parametrize("wrong", ["55", (5.0, 5.0), (True, 5), 5.0, (5, None), {5: 5}], ids=repr)
def test_type_of_output_shape(wrong):
    with pytest.raises((TypeError, ValueError), match="output_shape"):
        call("local_conv2d", output_shape=wrong)


@pytest.mark.parametrize(
    "wrong",
    [(2, 7, 6), (2, 7, 6, 4, 1), (3, 7, 6, 4), (2, 7, 6, 5), (2, 8, 6, 4), (-2, 7, 6, 4), (2, 7, 6, 0), (2,), 2, ()],
    ids=str,
)
def test_input_shape(wrong):
    with pytest.raises((ValueError, TypeError), match=r"input_shape|cols|kernel_size"):
        call("col2im", input_shape=wrong)


@pytest.mark.parametrize("wrong", [(2.0, 7, 6, 4), "2764", None, (2, 7, 6, True), (None, 7, 6, 4)], ids=repr)
def test_type_of_input_shape(wrong):
    refused("col2im", TypeError, "input_shape", input_shape=wrong)


# --- kernel_size, strides, dilation_rate, groups ----------------------------------------------------------------------

SIZES = [(f, name) for f in FUNCTIONS for name in ("kernel_size", "strides", "dilation_rate")]
SIZES = [(f, name) for f, name in SIZES if name != "kernel_size" or name in RIGHT[f]]


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_sizes_below_one(function, name):
    rank = OPERATIONS[function].rank
    for wrong in (0, -1, -(2**70), (0,) * rank, (1,) * (rank - 1) + (-3,)):
        refused(function, ValueError, name, **{name: wrong})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_number_of_sizes(function, name):
    rank = OPERATIONS[function].rank
    for wrong in ((), (1,) * (rank + 1), [1] * (rank - 1) or [1, 1]):
        refused(function, ValueError, name, **{name: wrong})


@pytest.mark.parametrize(("function", "name"), SIZES)
@pytest.mark.parametrize("wrong", [1.0, np.float64(1), True, False, "1", None, b"1", 1j, ["1"]], ids=repr)
def test_type_of_sizes(function, name, wrong):
    refused(function, TypeError, name, **{name: wrong})


@pytest.mark.parametrize(
    ("function", "name", "wrong", "expected"),
    [
        ("conv1d", "strides", "1", "an int"),
        ("conv1d", "strides", (1, 1), "an int"),
        ("conv2d", "strides", 1.0, "2 ints"),
        ("conv2d", "strides", (1, 1, 1), "2 ints"),
        ("local_conv2d", "output_shape", 5, "a sequence of 2 ints"),
        ("col2im", "input_shape", None, "a sequence of ints"),
    ],
)
def test_sizes_that_are_wanted(function, name, wrong, expected):
    with pytest.raises((TypeError, ValueError), match=re.escape(f"{name} must be {expected}, got {wrong!r}")):
        call(function, **{name: wrong})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_sizes_without_an_order(function, name):
    """Sets and dicts are no sequences, whatever they hold."""
    for wrong in ({1: 1}, {1}, {1: 2, 2: 1}, {1, 2}):
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
            call(function, **{name: wrong})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_types_within_sizes(function, name):
    rank = OPERATIONS[function].rank
    for wrong in (1.0, True, np.bool_(True), None, "1", (1,), 1 + 0j):
        refused(function, TypeError, name, **{name: (1,) * (rank - 1) + (wrong,)})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_sizes_past_64_bits(function, name):
    with pytest.raises((ValueError, MemoryError)):
        call(function, **{name: 2**70})


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_groups(function):
    for wrong in (0, -1, 5, 8, 2**70):
        refused(function, ValueError, "groups", groups=wrong)
    for wrong in (1.0, True, None, "1", (1,)):
        refused(function, TypeError, "groups", groups=wrong)


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_groups_divide_channels_and_filters(function):
    """The shapes fit, but 4 channels are not 3 groups, and 5 filters are not 2."""
    kernel = RIGHT[function]["kernel"]
    refused(function, ValueError, "groups", groups=3, kernel=kernel[..., : kernel.shape[-2] // 3, :])
    refused(function, ValueError, "groups", groups=2, kernel=kernel[..., : kernel.shape[-2] // 2, :5])


@pytest.mark.parametrize("function", ["conv1d", "conv2d", "im2col"])
def test_strides_with_dilation(function):
    """As in Keras for the convolutions (for im2col there is no such rule)."""
    changes = {"strides": 2, "dilation_rate": 2}
    if function == "im2col":
        assert call(function, **changes).shape == (2, 4, 24)
        return
    with pytest.raises(ValueError, match=r"strides.*dilation_rate|dilation_rate.*strides"):
        call(function, **changes)
    if function == "conv2d":  # on different axes too
        refused(function, ValueError, "strides", strides=(2, 1), dilation_rate=(1, 2))


# --- padding and data_format ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", ["VALID", "Same", "full", "", "reflect", "valid "])
def test_unknown_padding(function, wrong):
    refused(function, ValueError, "padding", repr(wrong), "valid", "same", padding=wrong)


@pytest.mark.parametrize("function", ["local_conv2d", "conv2d", "im2col", "col2im"])
def test_causal_padding_is_for_one_dimension(function):
    refused(function, ValueError, "padding", "causal", padding="causal")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pairs_of_padding(function):
    rank = OPERATIONS[function].rank
    right = ((0, 0),) * (rank - 1)
    for wrong in ((-1, 0), (0, -1), (1,), (1, 2, 3), ()):
        refused(function, ValueError, "padding", padding=(*right, wrong))
    for wrong in ((1.0, 0), (True, 0), (None, 0), ("1", 0), 1, None):
        refused(function, TypeError, "padding", padding=(*right, wrong))
    refused(function, ValueError, "padding", padding=((1, 1),) * (rank + 1))
    refused(function, ValueError, "padding", padding=())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [None, 1, 0, 1.5, True], ids=repr)
def test_type_of_padding(function, wrong):
    refused(function, TypeError, "padding", padding=wrong)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [b"valid", {"valid"}, {0: (0, 0)}, ("same",), ("valid", "valid")], ids=repr)
def test_padding_that_is_no_pair(function, wrong):
    with pytest.raises((TypeError, ValueError), match=r"\bpadding\b"):
        call(function, padding=wrong)


@pytest.mark.parametrize("exponent", range(40, 61))  # NumPy itself counts 2**63 bytes at most
@pytest.mark.parametrize("less", [0, 3, 10])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_kernels_that_claim_to_be_endless(isa, exponent, less, axis):
    """A kernel whose elements are all one value, and padding for it: more bytes than 63 bits count, in some plan."""
    size = 2**exponent - less
    kernel = np.broadcast_to(np.float32(1), [size if k == axis else 1 for k in range(3)])
    x = np.ones((1, 3, 1 if axis != 1 else 4), np.float32)
    padding = ((size - 3, 0),) if axis == 0 else "valid"
    with pytest.raises((ValueError, MemoryError)):
        localconv.conv1d(x, kernel, padding=padding, data_format="channels_last", groups=1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_padding_past_64_bits(function):
    rank = OPERATIONS[function].rank
    for huge in (2**50, 2**55, 2**58, 2**59, 2**60, 2**62, 2**63, 2**70):
        with pytest.raises((ValueError, MemoryError)):
            call(function, padding=((huge, huge),) * rank)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", ["channels_middle", "Channels_Last", "NHWC", ""])
def test_unknown_data_format(function, wrong):
    refused(function, ValueError, "data_format", repr(wrong), "channels_last", "channels_first", data_format=wrong)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [1, b"channels_last", ["channels_last"], True], ids=repr)
def test_type_of_data_format(function, wrong):
    with pytest.raises((TypeError, ValueError), match="data_format"):
        call(function, data_format=wrong)


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_that_is_no_array(function):
    right = zeros(*OPERATIONS[function].out)
    for wrong in (right.tolist(), 1.0, "out", np.float32(0), memoryview(right), np.ma.masked_array(right)):
        refused(function, TypeError, "out", out=wrong)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "complex64", "O", np.dtype("f4").newbyteorder("S")])
def test_dtype_of_out(function, dtype):
    refused(function, TypeError, "out", "float32", out=np.zeros(OPERATIONS[function].out, dtype))


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_dtype_of_out_for_mixed_input(function):
    """The result is float64: a float32 out would lose it."""
    kernel = RIGHT[function]["kernel"].astype("float64")
    refused(function, TypeError, "out", "float64", out=zeros(*OPERATIONS[function].out), kernel=kernel)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shape_of_out(function):
    batch, *rest = OPERATIONS[function].out
    wrongs = [
        rest,
        (1, batch, *rest),
        (1, *rest),
        (3, *rest),
        (batch, *rest[:-1], rest[-1] + 1),
        (),
        OPERATIONS[function].out[::-1],
    ]
    for wrong in wrongs:
        refused(function, ValueError, "out", out=zeros(*wrong))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_read_only_out(function):
    out = zeros(*OPERATIONS[function].out)
    out.flags.writeable = False
    refused(function, ValueError, "out", out=out)


@pytest.mark.parametrize(("function", "name"), [*ARRAYS, *((f, "bias") for f in CONVOLUTIONS)])
def test_out_that_overlaps_an_input(function, name):
    """All of it, and in a single element at either end."""
    shape, array = OPERATIONS[function].out, RIGHT[function].get(name, zeros(6))
    size = int(np.prod(shape))
    for start in (0, 1 - array.size, size - 1):
        memory = zeros(array.size + size)
        first = max(0, -start)
        out = memory[first : first + size].reshape(shape)
        other = memory[first + start : first + start + array.size].reshape(array.shape)
        assert np.shares_memory(out, other)
        refused(function, ValueError, "out", out=out, **{name: other})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_out_that_is_a_neighbour_of_an_input(function, name):
    """In one block of memory, but with nothing in common."""
    shape, array = OPERATIONS[function].out, RIGHT[function][name]
    memory = zeros(array.size + int(np.prod(shape)))
    out = memory[array.size :].reshape(shape)
    assert call(function, out=out, **{name: memory[: array.size].reshape(array.shape)}) is out


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_error_leaves_out_as_it_was(function):
    out = np.full(OPERATIONS[function].out, 7, "float32")
    refused(function, ValueError, "padding", padding="full", out=out)
    assert (out == 7).all()


# --- signatures, settings, hooks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_extensions_are_by_name_only(function):
    right = list(RIGHT[function].values())
    many = {"local_conv1d": 6, "local_conv2d": 7}.get(function, 7)
    with pytest.raises(TypeError, match="positional"):
        getattr(localconv, function)(*right, *[None] * (many - len(right)))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unknown_arguments(function):
    with pytest.raises(TypeError, match="weights"):
        call(function, weights=zeros(1))


@pytest.mark.parametrize("wrong", ["float16", "int32", "float", "Float32", "", "complex64"])
def test_unknown_floatx(wrong):
    with pytest.raises(ValueError, match=r"float32.*float64"):
        localconv.set_floatx(wrong)
    assert localconv.floatx() == "float32"


@pytest.mark.parametrize("wrong", ["NHWC", "", "Channels_last"])
def test_unknown_image_data_format(wrong):
    before = localconv.image_data_format()
    with pytest.raises(ValueError, match=r"channels_last.*channels_first|channels_first.*channels_last"):
        localconv.set_image_data_format(wrong)
    assert localconv.image_data_format() == before


def test_number_of_threads():
    for wrong in (0, -1, -(2**70)):
        with pytest.raises(ValueError, match=r"\b(threads|n)\b"):
            localconv.set_num_threads(wrong)
    for wrong in (1.0, "2", (1,), True):
        with pytest.raises(TypeError):
            localconv.set_num_threads(wrong)


@pytest.mark.parametrize("wrong", ["sse9", "", "AVX2", "avx2 "])
def test_unknown_isa(wrong):
    before = settings.get_isa()
    with pytest.raises(ValueError, match=r"isa|instruction") as caught:
        settings.set_isa(wrong)
    assert repr(wrong) in str(caught.value)
    assert settings.get_isa() == before


@pytest.mark.parametrize("wrong", ["winograd", "Columns", "", None, 3])
def test_unknown_algorithms(wrong):
    with pytest.raises(ValueError, match=re.escape(repr(wrong))), settings.forced("columns", wrong):
        pass
    assert settings.current().forced == ()


@pytest.mark.parametrize(
    ("function", "x", "kernel", "more", "advice"),
    [
        ("conv2d", (2, 3, 8, 9), (5, 5, 3, 16), {}, "it fits with data_format='channels_first'"),
        (
            "conv1d",
            (2, 9, 4),
            (3, 4, 16),
            {"data_format": "channels_first"},
            "it fits with data_format='channels_last'",
        ),
        ("conv2d", (2, 8, 9, 4), (16, 4, 3, 3), {}, "go to the end with transpose(2, 3, 1, 0)"),
        ("conv2d", (2, 8, 9, 4), (16, 2, 3, 4), {"groups": 2}, "go to the end with transpose(2, 3, 1, 0)"),
        (
            "conv1d",
            (2, 4, 9),
            (16, 4, 3),
            {},
            "with transpose(2, 1, 0), and the images need data_format='channels_first'",
        ),
        ("local_conv1d", (2, 4, 9), (7, 12, 5), {"kernel_size": 3}, "it fits with data_format='channels_first'"),
        ("conv2d", (2, 8, 9, 4), (3, 3, 5, 16), {}, "got shape (3, 3, 5, 16)"),
        ("local_conv1d", (2, 4, 9), (8, 12, 5), {"kernel_size": 3}, "got (8, 12, 5)"),
    ],
)
def test_what_a_kernel_that_does_not_fit_may_have_meant(function, x, kernel, more, advice):
    strides = {"strides": 1} if function.startswith("local") else {}
    with pytest.raises(ValueError, match=re.escape(advice) + "$"):
        getattr(localconv, function)(np.ones(x), np.ones(kernel), **more, **strides)
