"""Wrong arguments of the gradients and the transposed convolutions are refused,
by an error that names each.
"""

import decimal

import numpy as np
import pytest
from operations import FORWARD, OPERATIONS, of_kind

import localconv
from localconv import grad

OF_INPUT, OF_KERNEL, TRANSPOSED = of_kind("input"), of_kind("kernel"), of_kind("transpose")
CONVOLUTIONS = (*OF_INPUT, *OF_KERNEL, *TRANSPOSED)
# Of the functions whose filters come with the data.
OF_FILTER_INPUT, OF_FILTERS = of_kind("local_filter_input"), of_kind("local_filter_filters")
OF_CORRELATION = of_kind("local_correlation_input", "local_correlation_queries")
FUNCTIONS = (*CONVOLUTIONS, *OF_FILTER_INPUT, *OF_FILTERS, *OF_CORRELATION)
ACCUMULATING = (*OF_KERNEL, *OF_FILTERS)
RIGHT = {name: OPERATIONS[name].right for name in FUNCTIONS}
ARRAYS = [(f, name) for f in FUNCTIONS for name in OPERATIONS[f].arrays]
SHAPES = [(f, "input_shape") for f in OF_INPUT] + [(f, "kernel_shape") for f in OF_KERNEL]
SHAPES += [(f, "output_shape") for f in TRANSPOSED]
SHAPES += [(f, next(n for n in RIGHT[f] if n.endswith("_shape"))) for f in FUNCTIONS if f not in CONVOLUTIONS]
ACCEPTED = "float16, bfloat16, float32 and float64"


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def rank_of(function):
    return OPERATIONS[function].rank


def compiled(function):
    return getattr(OPERATIONS[function].module, function)


def call(function, **changes):
    return OPERATIONS[function].call(**changes)


def refused(function, error, name, *words, **changes):
    """The call raises just this kind of error; its message names the argument and has these words."""
    with pytest.raises(error, match=rf"\b({name})\b") as caught:
        call(function, **changes)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_right_arguments_are_right(function):
    result = call(function)
    assert result.shape == OPERATIONS[function].out
    assert (result == 0).all()


def test_where_the_functions_are():
    for name in TRANSPOSED:
        assert getattr(localconv, name) is getattr(localconv.backend, name)
        assert name in localconv.backend.__all__
        assert name in localconv.__all__
    banks = {f"local_conv{rank}d_bank" for rank in (1, 2, 3)}  # test_bank.py has their wrong arguments
    assert set(grad.__all__) == {*FUNCTIONS, "bias", *banks} - {*TRANSPOSED}
    assert localconv.grad is grad


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_other_dtypes(function, name):
    for dtype in ("int64", "int8", "bool", "complex64", "O", "U3"):
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


@pytest.mark.parametrize("function", TRANSPOSED)
def test_images_without_a_batch(function):
    """Whatever the batch of output_shape is."""
    name = "inputs" if "local" in function else "x"
    image, right = RIGHT[function][name][0], RIGHT[function]["output_shape"]
    words = f"got shape {image.shape}; a single image is a batch of shape {(1, *image.shape)}"
    refused(function, ValueError, name, words, **{name: image}, output_shape=(None, *right[1:]))


@pytest.mark.parametrize("function", [name for name in OF_KERNEL if name.startswith("local")])
def test_shapes_of_kernels_with_an_axis_for_each_size(function):
    case = FORWARD[function.removesuffix("_kernel")]
    right = RIGHT[function]["kernel_shape"]
    wrong = (*case.out, *case.kernel_size, case.channels, case.filters)
    refused(function, ValueError, "kernel_shape", f"reshaped to {right} it is one", kernel_shape=wrong)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_no_array_of_numbers(function, name):
    for wrong in (None, "image.png", object(), {}, decimal.Decimal(1), [[1, 2], [3, 4]]):
        refused(function, TypeError, name, **{name: wrong})
    with pytest.raises((TypeError, ValueError)):
        call(function, **{name: [[1.0, 2.0], [3.0]]})


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_number_of_axes(function, name):
    """Too few and too many: the shape asked for beside an array leaves it no choice."""
    right = RIGHT[function][name]
    named = {"grad_output": name, "kernel": name}.get(name, rf"{name}|grad_output|output_shape|kernel_shape")
    for wrong in (*(right[(0,) * n] for n in range(1, right.ndim + 1)), right[None]):
        refused(function, ValueError, named, **{name: wrong})


@pytest.mark.parametrize("function", [*OF_INPUT, *OF_KERNEL, *OF_FILTER_INPUT, *OF_FILTERS, *OF_CORRELATION])
def test_shape_of_grad_output(function):
    """Of another shape than the forward convolution's output: told with both shapes."""
    right = RIGHT[function]["grad_output"].shape
    batch, *sizes, filters = right
    wrongs = [
        (batch + 1, *sizes, filters),
        (0, *sizes, filters),
        (1, *sizes, filters),
        (batch, sizes[0] + 1, *sizes[1:], filters),
        (batch, *sizes[:-1], sizes[-1] - 1, filters),
        (batch, *sizes, filters + 1),
        (batch, *sizes, 1),
        (batch, filters, *sizes),
        (batch * sizes[0], *sizes[1:], filters),
    ]
    for wrong in wrongs:
        refused(function, ValueError, "grad_output", str(right), str(wrong), grad_output=zeros(*wrong))


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name.startswith("conv")])
def test_several_batch_axes_are_not_one(function):
    """(6, ...) and (2, 3, ...) hold the same values, and are not the same shape."""
    batch = {"input_shape": None, "grad_output": None, "x": None, "output_shape": None}
    names = [name for name in RIGHT[function] if name in batch]
    shapes = {
        name: np.shape(RIGHT[function][name]) if name in ("x", "grad_output") else RIGHT[function][name]
        for name in names
    }

    def changed(shape, lead, name):
        shape = (*lead, *shape[1:])
        return zeros(*shape) if name in ("x", "grad_output") else shape

    same = {name: changed(shape, (2, 3), name) for name, shape in shapes.items()}
    assert call(function, **same).shape == (
        OPERATIONS[function].out if function in OF_KERNEL else (2, 3, *OPERATIONS[function].out[1:])
    )
    for name, shape in shapes.items():
        for lead in ((6,), (3, 2), (1, 2, 3)):
            refused(function, ValueError, "|".join(names), **(same | {name: changed(shape, lead, name)}))


@pytest.mark.parametrize(("function", "name"), SHAPES)
def test_shapes_that_do_not_fit(function, name):
    """A size that the arrays contradict; which of them is to blame is open."""
    right = RIGHT[function][name]
    others = "|".join({name, *(n for f, n in ARRAYS if f == function)})
    for axis in range(len(right)):
        for wrong in (right[axis] + 1, right[axis] - 1):
            if (name, axis, wrong) == ("filters_shape", 0, 1):  # the filters of one image for all
                continue
            refused(function, ValueError, others, **{name: (*right[:axis], wrong, *right[axis + 1 :])})
    if name != "kernel_shape":
        assert call(function, **{name: list(right)}).shape == OPERATIONS[function].out
        assert call(function, **{name: np.array(right)}).shape == OPERATIONS[function].out


@pytest.mark.parametrize(("function", "name"), SHAPES)
def test_number_of_sizes_of_shapes(function, name):
    right = RIGHT[function][name]
    for wrong in ((), right[:1], right[1:]):
        refused(function, ValueError, name, **{name: wrong})
    refused(function, ValueError, rf"{name}|grad_output|inputs|x", **{name: (1, *right)})


@pytest.mark.parametrize(("function", "name"), SHAPES)
def test_negative_sizes_of_shapes(function, name):
    right = RIGHT[function][name]
    for axis in range(len(right)):
        refused(function, ValueError, name, **{name: (*right[:axis], -1, *right[axis + 1 :])})
        refused(function, ValueError, name, **{name: (*right[:axis], -(2**70), *right[axis + 1 :])})


@pytest.mark.parametrize(("function", "name"), SHAPES)
def test_no_sizes_in_shapes(function, name):
    """No channels, filters, pixels or taps."""
    right = RIGHT[function][name]
    others = "|".join({name, "output", *(n for f, n in ARRAYS if f == function)})
    for axis in range(name != "kernel_shape", len(right)):
        refused(function, ValueError, others, **{name: (*right[:axis], 0, *right[axis + 1 :])})


@pytest.mark.parametrize(("function", "name"), SHAPES)
def test_type_of_shapes(function, name):
    right = RIGHT[function][name]
    for wrong in (5, 5.0, None, "274", b"274", set(right), dict.fromkeys(right), object()):
        refused(function, TypeError, name, **{name: wrong})
    for axis in range(len(right)):
        for wrong in (float(right[axis]), str(right[axis]), True, (right[axis],), *([None] if axis else [])):
            refused(function, TypeError, name, **{name: (*right[:axis], wrong, *right[axis + 1 :])})


@pytest.mark.parametrize(("function", "name"), [pair for pair in SHAPES if pair[0] not in TRANSPOSED])
def test_an_open_batch_is_for_transposed_convolution(function, name):
    refused(function, TypeError, name, **{name: (None, *RIGHT[function][name][1:])})


@pytest.mark.parametrize("function", TRANSPOSED)
def test_an_open_batch(function):
    """And nothing else may be open."""
    right = RIGHT[function]["output_shape"]
    assert call(function, output_shape=(None, *right[1:])).shape == OPERATIONS[function].out
    for axis in range(1, len(right)):
        refused(function, TypeError, "output_shape", output_shape=(*right[:axis], None, *right[axis + 1 :]))


@pytest.mark.parametrize("function", TRANSPOSED)
def test_transposed_speaks_of_its_own_arguments(function):
    """Not of those of the gradient that it is."""
    x = "inputs" if "local" in function else "x"
    right = RIGHT[function]
    changes = [{x: zeros(*np.add(right[x].shape, step))} for step in np.eye(right[x].ndim, dtype=int)]
    changes += [
        {"output_shape": tuple(np.add(right["output_shape"], step))} for step in np.eye(right[x].ndim, dtype=int)
    ]
    changes += [
        {"kernel": zeros(*np.add(right["kernel"].shape, step))} for step in np.eye(right["kernel"].ndim, dtype=int)
    ]
    for change in changes:
        with pytest.raises(ValueError, match=rf"\b({x}|output_shape|kernel)\b") as caught:
            call(function, **change)
        for word in ("grad_output", "input_shape", "kernel_shape", *(["inputs"] if x == "x" else [])):
            assert word not in str(caught.value)


@pytest.mark.parametrize("function", ["local_conv2d_input", "local_conv2d_kernel"])
def test_output_shape(function):
    assert call(function, output_shape=None).shape == OPERATIONS[function].out
    assert call(function, output_shape=[5, np.int32(5)]).shape == OPERATIONS[function].out
    for wrong in ((5,), (5, 5, 1), (4, 5), (5, 4), (0, 0), (25, 1), (-5, 5), (2, 5, 5, 6)):
        refused(function, ValueError, "output_shape", output_shape=wrong)
    for wrong in ("55", (5.0, 5.0), (True, 5), 5.0, (5, None), {5: 5}):
        with pytest.raises((TypeError, ValueError), match="output_shape"):
            call(function, output_shape=wrong)


@pytest.mark.parametrize("function", [*OF_INPUT, *TRANSPOSED])
def test_shape_of_kernel(function):
    """A kernel that does not fit: the error names it, or what it does not fit."""
    right = RIGHT[function]["kernel"].shape
    names = "|".join({"kernel", *(n for f, n in ARRAYS + SHAPES if f == function)})
    for axis in range(len(right)):
        for size in (right[axis] + 1, right[axis] - 1, 1, 0):
            refused(function, ValueError, names, kernel=zeros(*right[:axis], size, *right[axis + 1 :]))


# --- kernel_size, strides, dilation_rate, groups ----------------------------------------------------------------------

SIZES = [(f, name) for f in FUNCTIONS for name in ("kernel_size", "strides", "dilation_rate")]
SIZES = [(f, name) for f, name in SIZES if name != "kernel_size" or name in RIGHT[f]]


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_sizes(function, name):
    rank = rank_of(function)
    for wrong in (0, -1, -(2**70), (0,) * rank, (1,) * (rank - 1) + (-3,)):
        refused(function, ValueError, name, **{name: wrong})
    for wrong in ((), (1,) * (rank + 1), [1] * (rank - 1) or [1, 1]):
        refused(function, ValueError, name, **{name: wrong})
    with pytest.raises((ValueError, MemoryError)):
        call(function, **{name: 2**70})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_type_of_sizes(function, name):
    for wrong in (1.0, np.float64(1), True, False, "1", None, b"1", 1j, ["1"]):
        refused(function, TypeError, name, **{name: wrong})
    for wrong in (1.0, True, np.bool_(True), None, "1", (1,), 1 + 0j):
        refused(function, TypeError, name, **{name: (1,) * (rank_of(function) - 1) + (wrong,)})
    for wrong in ({1: 1}, {1}, {1: 2, 2: 1}, {1, 2}):
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
            call(function, **{name: wrong})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_groups(function):
    for wrong in (0, -1, 2**70):
        refused(function, ValueError, "groups", groups=wrong)
    for wrong in (2, 5, 8):
        with pytest.raises(ValueError, match="groups"):
            call(function, groups=wrong)
    for wrong in (1.0, True, None, "1", (1,)):
        refused(function, TypeError, "groups", groups=wrong)


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_groups_divide_channels_and_filters(function):
    """The shapes fit, but 4 channels are not 3 groups, and 5 filters are not 2."""
    *shape, depth, filters = FORWARD[function.rsplit("_", 1)[0]].shapes()[1]
    for groups, filters_now in ((3, filters), (2, 5)):
        kernel = (*shape, depth // groups, filters_now)
        changes = {"kernel_shape": kernel} if function in OF_KERNEL else {"kernel": zeros(*kernel)}
        name = next(n for n in ("grad_output", "inputs", "x") if n in RIGHT[function])
        changes[name] = zeros(*RIGHT[function][name].shape[:-1], filters_now)
        refused(function, ValueError, "groups", groups=groups, **changes)


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name.startswith("conv")])
def test_strides_with_dilation(function):
    """Refused as in the forward convolution, whose output would have two positions along every axis."""
    rank = rank_of(function)
    name = "x" if function in TRANSPOSED else "grad_output"
    with pytest.raises(ValueError, match=r"strides.*dilation_rate|dilation_rate.*strides"):
        call(function, strides=2, dilation_rate=2, **{name: zeros(2, *(2,) * rank, 6)})
    if rank == 2:  # on different axes too
        wrong = {"strides": (2, 1), "dilation_rate": (1, 2), name: zeros(2, 3, 4, 6)}
        refused(function, ValueError, "strides", **wrong)


# --- padding and data_format ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_padding(function):
    rank = rank_of(function)
    for wrong in ("VALID", "Same", "full", "", "valid "):
        refused(function, ValueError, "padding", repr(wrong), "valid", "same", padding=wrong)
    if rank == 2:
        refused(function, ValueError, "padding", "causal", padding="causal")
    right = ((0, 0),) * (rank - 1)
    for wrong in ((-1, 0), (0, -1), (1,), (1, 2, 3), ()):
        refused(function, ValueError, "padding", padding=(*right, wrong))
    for wrong in ((1.0, 0), (True, 0), (None, 0), ("1", 0), 1, None):
        refused(function, TypeError, "padding", padding=(*right, wrong))
    for wrong in (((1, 1),) * (rank + 1), ()):
        refused(function, ValueError, "padding", padding=wrong)
    for wrong in (None, 1, 0, 1.5, True):
        refused(function, TypeError, "padding", padding=wrong)
    for wrong in (b"valid", {"valid"}, {0: (0, 0)}, ("same",), ("valid", "valid")):
        with pytest.raises((TypeError, ValueError), match=r"\bpadding\b"):
            call(function, padding=wrong)
    for huge in (2**50, 2**55, 2**58, 2**59, 2**60, 2**62, 2**63, 2**70):
        with pytest.raises((ValueError, MemoryError)):
            call(function, padding=((huge, huge),) * rank)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_data_format(function):
    for wrong in ("channels_middle", "Channels_Last", "NHWC", ""):
        refused(function, ValueError, "data_format", repr(wrong), "channels_last", "channels_first", data_format=wrong)
    for wrong in (1, b"channels_last", ["channels_last"], True):
        with pytest.raises((TypeError, ValueError), match="data_format"):
            call(function, data_format=wrong)


# --- out and accumulate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kind_of_out(function):
    right = zeros(*OPERATIONS[function].out)
    for wrong in (right.tolist(), 1.0, "out", np.float32(0), memoryview(right), np.ma.masked_array(right)):
        refused(function, TypeError, "out", out=wrong)
    # Gradients for the kernel, which are sums in float32, may be rounded into an out of 16 bits.
    narrow = () if function in ACCUMULATING else ("float16",)
    for dtype in ("float64", *narrow, "int32", "complex64", "O", np.dtype("f4").newbyteorder("S")):
        refused(function, TypeError, "out", "float32", out=right.astype(dtype))
    right.flags.writeable = False
    refused(function, ValueError, "out", out=right)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_dtype_of_out_for_mixed_input(function, name):
    """The result is float64: a float32 out would lose it."""
    wide = RIGHT[function][name].astype("float64")
    refused(function, TypeError, "out", "float64", out=zeros(*OPERATIONS[function].out), **{name: wide})
    assert call(function, out=zeros(*OPERATIONS[function].out, dtype="float64"), **{name: wide}).dtype == np.float64


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shape_of_out(function):
    first, *rest = right = OPERATIONS[function].out
    wrongs = [
        rest,
        (1, *right),
        (1, *rest),
        (first + 1, *rest),
        (*right[:-1], right[-1] + 1),
        (),
        right[::-1],
        (0, *rest),
    ]
    for wrong in wrongs:
        refused(function, ValueError, "out", out=zeros(*wrong))


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_out_that_overlaps_an_input(function, name):
    """All of it, and in a single element at either end."""
    shape, array = OPERATIONS[function].out, RIGHT[function][name]
    size = int(np.prod(shape))
    accumulates = ({}, {"accumulate": True}) if function in ACCUMULATING else ({},)
    for start in (0, 1 - array.size, size - 1):
        memory = zeros(array.size + size)
        first = max(0, -start)
        out = memory[first : first + size].reshape(shape)
        other = memory[first + start : first + start + array.size].reshape(array.shape)
        assert np.shares_memory(out, other)
        for options in accumulates:
            refused(function, ValueError, "out", out=out, **{name: other}, **options)
    memory = zeros(array.size + size)
    out = memory[array.size :].reshape(shape)
    assert call(function, out=out, **{name: memory[: array.size].reshape(array.shape)}) is out


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_error_leaves_out_as_it_was(function):
    out = np.full(OPERATIONS[function].out, 7, "float32")
    refused(function, ValueError, "padding", padding="full", out=out)
    name, wrong = next((n, a) for n, a in RIGHT[function].items() if n in ("grad_output", "x", "inputs"))
    with pytest.raises(ValueError, match=r"grad_output|\bx\b|inputs|output_shape|kernel_shape"):
        call(function, out=out, **{name: np.ones((wrong.shape[0] + 1, *wrong.shape[1:]), "float32")})
    assert (out == 7).all()


@pytest.mark.parametrize("function", ACCUMULATING)
def test_accumulate(function):
    refused(function, ValueError, "out", "accumulate", accumulate=True)
    assert call(function, accumulate=False).shape == OPERATIONS[function].out
    out = np.full(OPERATIONS[function].out, 7, "float32")
    for wrong in (1, 0, None, "True", 1.0, [True], np.array(True), object()):
        refused(function, TypeError, "accumulate", accumulate=wrong, out=out)
        refused(function, TypeError, "accumulate", accumulate=wrong)
    assert (out == 7).all()
    assert call(function, accumulate=True, out=out) is out
    assert (out == 7).all()


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in ACCUMULATING])
def test_accumulate_is_for_kernels(function):
    with pytest.raises(TypeError, match="accumulate"):
        call(function, accumulate=True, out=zeros(*OPERATIONS[function].out))


# --- signatures and hooks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_extensions_are_by_name_only(function):
    positional = 6 if function in ("local_conv1d_input", "local_conv1d_kernel") else 7
    if function.startswith("local") and function in TRANSPOSED:
        positional = 6
    right = list(RIGHT[function].values())
    with pytest.raises(TypeError, match="positional"):
        compiled(function)(*right, *[None] * (positional + 1 - len(right)))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unknown_arguments(function):
    for wrong in ("weights", "bias"):
        with pytest.raises(TypeError, match=wrong):
            call(function, **{wrong: zeros(6)})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_missing_arguments(function):
    """All but those that have a default."""
    for name in set(RIGHT[function]) - {"strides", "output_shape", "data_format"}:
        with pytest.raises(TypeError, match=name):
            compiled(function)(**{n: value for n, value in RIGHT[function].items() if n != name})
