"""Any array-like goes in, inputs are never changed, and `out` is filled and returned."""

import sys

import numpy as np
import oracle
import pytest
from oracle import FORMATS, Case, assert_same_bits

import localconv
from localconv.core import engine
from localconv.core.arrays import SINGLE, single_with
from localconv.core.geometry import column_geometry
from localconv.core.policy import plan
from localconv.core.settings import current
from localconv.core.spec import column_spec, conv_spec, local_spec

CASES = {
    "local_conv1d": Case("local_conv1d", (9,), (3,), 5, 4, 6, padding="same", bias="full"),
    "local_conv2d": Case("local_conv2d", (6, 5), (3, 2), 5, 4, 6, padding="same", bias="full"),
    "conv1d": Case("conv1d", (9,), (3,), 5, 4, 6, padding="same", bias="filters"),
    "conv2d": Case("conv2d", (6, 5), (3, 2), 5, 4, 6, padding="same", bias="filters"),
}
BATCHES = (1, 5, 18)


def windows(data_format):
    return {"kernel_size": (3, 2), "padding": "same", "data_format": data_format}


def operations(data_format, dtype, batch=5):
    """name -> (function of the arrays, the arrays): every public operation."""
    found = {}
    for name, case in CASES.items():
        case = Case(**(vars(case) | {"data_format": data_format, "dtype": dtype, "batch": batch, "exact": False}))
        found[name] = (lambda *arrays, case=case, **options: case.run(localconv, arrays, **options)), case.arrays()
    x = np.random.default_rng(0).standard_normal((batch, 4, 5, 6)).astype(dtype)
    cols = oracle.im2col(x, **windows(data_format))
    found["im2col"] = (lambda x, **options: localconv.im2col(x, **windows(data_format), **options)), (x,)
    found["col2im"] = (lambda c, **options: localconv.col2im(c, x.shape, **windows(data_format), **options)), (cols,)
    return found


@pytest.fixture(params=[*CASES, "im2col", "col2im"])
def operation(request):
    return request.param


@pytest.fixture(params=FORMATS)
def data_format(request):
    return request.param


# --- ways to hold the same values -------------------------------------------------------------------------------------


def noise(shape, dtype):
    """What lies between the elements of a view: NaN, so that reading it shows."""
    return np.full(shape, np.nan, dtype)


def spaced(array):
    base = noise(tuple(2 * n + 1 for n in array.shape), array.dtype)
    view = base[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def spaced_in_the_last_axis(array):
    base = noise((*array.shape, 3), array.dtype)
    base[..., 1] = array
    return base[..., 1]


def spaced_in_the_first_axis(array):
    base = noise((array.shape[0], 2, *array.shape[1:]), array.dtype)
    base[:, 1] = array
    return base[:, 1]


def reversed_axes(array):
    flip = tuple(slice(None, None, -1) for _ in array.shape)
    return array[flip].copy()[flip]


def reversed_last_axis(array):
    return array[..., ::-1].copy()[..., ::-1]


def transposed(array):
    return array.T.copy().T


def offset_by_an_element(array):
    base = noise(array.size + 2, array.dtype)
    base[1:-1] = array.ravel()
    return base[1:-1].reshape(array.shape)


def offset_by_a_byte(array):
    base = np.zeros(array.nbytes + 1, np.uint8)
    view = base[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def naming_its_byte_order(array):
    """As arrays of ctypes have it: an equal dtype, but not NumPy's own."""
    named = array.view(array.dtype.newbyteorder({"little": "<", "big": ">"}[sys.byteorder]))
    assert named.dtype == array.dtype
    assert named.dtype is not array.dtype
    return named


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder("S"))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class Exporter:
    """No ndarray, but something that NumPy can make one of."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.array = array


class Subclass(np.ndarray):
    """An ndarray with other ideas about products."""

    def __matmul__(self, other):
        raise AssertionError("the values are data: operators of a subclass are not asked")

    __mul__ = __matmul__


FORMS = [
    np.asfortranarray,
    spaced,
    spaced_in_the_last_axis,
    spaced_in_the_first_axis,
    reversed_axes,
    reversed_last_axis,
    transposed,
    offset_by_an_element,
    offset_by_a_byte,
    byte_swapped,
    naming_its_byte_order,
    read_only,
    memoryview,
    Exporter,
    lambda array: array.copy().view(Subclass),
    lambda array: byte_swapped(spaced(array)),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_forms(operation, dtype, data_format, form, no_change):
    """Each array in turn, then all at once: the bits are those of plain arrays, and every array stays as it is."""
    for batch in BATCHES:
        run, arrays = operations(data_format, dtype, batch)[operation]
        expected = run(*arrays)
        for number in range(len(arrays)):
            changed = [form(a) if i == number else a for i, a in enumerate(arrays)]
            with no_change(*changed):
                assert_same_bits(run(*changed), expected)
        changed = [form(a) for a in arrays]
        with no_change(*changed):
            assert_same_bits(run(*changed), expected)


def test_result_is_a_plain_new_array(operation, data_format):
    run, arrays = operations(data_format, "float32")[operation]
    result = run(*(array.view(Subclass) for array in arrays))
    assert type(result) is np.ndarray
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not any(np.shares_memory(result, array) for array in arrays)


def test_lists(operation, data_format):
    """Python's floats are float64."""
    run, arrays = operations(data_format, "float64")[operation]
    assert_same_bits(run(*(array.tolist() for array in arrays)), run(*arrays))


def test_memory_maps(operation, dtype, data_format, tmp_path):
    """Read-only maps of a file in which the values start at an odd byte."""
    run, arrays = operations(data_format, dtype)[operation]
    maps = []
    for number, array in enumerate(arrays):
        path = tmp_path / f"{number}.raw"
        path.write_bytes(b"#" * 13 + array.tobytes())
        maps.append(np.memmap(path, array.dtype, "r", offset=13, shape=array.shape))
    result = run(*maps)
    assert type(result) is np.ndarray
    assert_same_bits(result, run(*arrays))


def test_broadcast_arrays(dtype, data_format):
    """One image for the whole batch and one matrix for all positions, without a copy of either in the caller."""
    for batch in BATCHES:
        case = Case("local_conv2d", (6, 5), (3, 2), batch, 2, 6, data_format=data_format, dtype=dtype)
        inputs, kernel, _ = case.arrays()
        arrays = np.broadcast_to(inputs[:1], inputs.shape), np.broadcast_to(kernel[:1], kernel.shape), None
        case.check(case.run(localconv, arrays), arrays)


def test_one_array_for_two_arguments(dtype):
    """Inputs may overlap each other."""
    values = np.random.default_rng(0).integers(-8, 9, 60).astype(dtype)
    x, kernel = values[:20].reshape(1, 10, 2), values[10:22].reshape(3, 2, 2)
    expected = oracle.conv1d(x, kernel).astype(dtype)
    np.testing.assert_array_equal(localconv.conv1d(x, kernel), expected, strict=True)


# --- out --------------------------------------------------------------------------------------------------------------


def gaps(array):
    """The elements of a spaced array's base that the array does not hold."""
    held = np.zeros(array.base.shape, bool)
    held[tuple(slice(1, None, 2) for _ in array.shape)] = True
    return array.base[~held]


OUT_FORMS = [
    np.copy,
    naming_its_byte_order,
    np.asfortranarray,
    spaced,
    spaced_in_the_last_axis,
    spaced_in_the_first_axis,
    reversed_axes,
    reversed_last_axis,
    offset_by_an_element,
    offset_by_a_byte,
]


@pytest.mark.parametrize("form", OUT_FORMS, ids=lambda form: form.__name__)
def test_out(operation, dtype, data_format, form, no_change):
    """Whatever its memory looks like and holds before, out gets the very bits, and is what is returned."""
    for batch in BATCHES:
        run, arrays = operations(data_format, dtype, batch)[operation]
        expected = run(*arrays)
        out = form(np.full_like(expected, np.nan))
        with no_change(*arrays):
            assert run(*arrays, out=out) is out
        assert_same_bits(out, expected)
        if form is spaced:
            assert np.isnan(gaps(out)).all()


def test_out_of_more_than_one_batch_axis(dtype, data_format):
    case = Case("conv1d", (9,), (3,), (2, 3), data_format=data_format, dtype=dtype)
    expected = case.run(localconv, case.arrays())
    for form in OUT_FORMS:
        out = form(np.full_like(expected, np.nan))
        assert case.run(localconv, case.arrays(), out=out) is out
        assert_same_bits(out, expected)


def test_out_in_a_file(operation, data_format, tmp_path):
    run, arrays = operations(data_format, "float32")[operation]
    expected = run(*arrays)
    out = np.memmap(tmp_path / "out.raw", "float32", "w+", shape=expected.shape)
    assert run(*arrays, out=out) is out
    out.flush()
    assert (tmp_path / "out.raw").read_bytes() == expected.tobytes()


def test_out_of_a_subclass_is_returned_as_it_is(operation, data_format):
    run, arrays = operations(data_format, "float32")[operation]
    expected = run(*arrays)
    out = np.zeros_like(expected).view(Subclass)
    assert run(*arrays, out=out) is out
    assert_same_bits(out, expected)


class OtherShape(np.ndarray):
    """Says that it is larger than it is."""

    shape = property(lambda self: (1, 10000, 64))


class OtherMemory(np.ndarray):
    """Gives other memory, and less, to whoever wants it flat or contiguous."""

    def reshape(self, *_, **__):
        return np.zeros(1, self.dtype)


class NoArray:
    """Says that it is an array, and what its shape is."""

    __class__ = np.ndarray
    shape, dtype, flags = (1, 10000, 64), np.dtype("float32"), np.zeros(1).flags

    def reshape(self, *_):
        return np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.zeros(1, "float32").view(OtherShape), ValueError),
        (np.zeros((1, 10000, 64), "float32").view(OtherMemory), None),
        (NoArray(), TypeError),
    ],
    ids=["shape", "memory", "class"],
)
def test_out_that_is_not_what_it_says(out, error):
    """What NumPy knows of an array counts, not what its class says."""
    x, kernel = np.ones((1, 10002, 1), "float32"), np.ones((3, 1, 64), "float32")
    if error is None:
        assert localconv.conv1d(x, kernel, data_format="channels_last", out=out) is out
        assert (np.asarray(out) == 3).all()
    else:
        with pytest.raises(error, match="out"):
            localconv.conv1d(x, kernel, data_format="channels_last", out=out)


class Answering:
    """Does something when asked for its class, as `isinstance` does."""

    def __init__(self, what):
        self.what = what

    @property
    def __class__(self):
        self.what()
        return np.ndarray

    def __bool__(self):
        self.what()
        return True


@pytest.mark.parametrize("argument", ["out", "accumulate"])
def test_arguments_that_change_the_input_when_asked(argument):
    """Which frees the memory that was looked at: they are refused without being asked."""
    x, g = np.ones((1, 10_000, 4), "f"), np.ones((1, 9_998, 4), "f")
    wrong = Answering(lambda: x.resize((1,), refcheck=False))
    options = {"out": np.zeros((9_998, 12, 4), "f")} | {argument: wrong}
    with pytest.raises(TypeError, match=argument):
        localconv.grad.local_conv1d_kernel(x, (9_998, 12, 4), g, 3, 1, "channels_last", **options)
    assert x.size == 40_000


# name -> (the shapes of what `Job.run` takes, options): two images of 9 pixels and 4 channels, windows of 3, 5 filters.
LENGTHS = {
    "local_forward": (((2, 7, 5), (2, 9, 4), (7, 12, 5), None, (5,)), {}),
    "local_grad_kernel": (((7, 12, 5), (2, 9, 4), None, (2, 7, 5)), {}),
    "local_grad_input": (((2, 9, 4), None, (7, 12, 5), (2, 7, 5)), {}),
    "conv_forward": (((2, 7, 5), (2, 9, 4), (3, 4, 5), None, (5,)), {}),
    "conv_grad_kernel": (((3, 4, 5), (2, 9, 4), None, (2, 7, 5)), {}),
    "conv_grad_input": (((2, 9, 4), None, (3, 4, 5), (2, 7, 5)), {}),
    "im2col": (((14, 12), (2, 9, 4), None, None), {"count": 14}),
    "col2im": (((2, 9, 4), None, None, (14, 12)), {"count": 14}),
}
# The spec and the kernel's shape of these.
FAMILIES = {
    "local": (local_spec(1, 3, 1, "valid", "channels_last", 1, 1), (7, 12, 5)),
    "conv": (conv_spec(1, 1, "valid", "channels_last", 1, 1), (3, 4, 5)),
}
ORDER = ("result", "input", "kernel", "gradient", "bias")


@pytest.mark.parametrize("operation", LENGTHS)
def test_the_core_counts_what_it_reads(isa, operation):
    """An array of another length, whatever happened to it on the way, is refused at the last moment."""
    shapes, options = LENGTHS[operation]
    if operation in ("im2col", "col2im"):
        geometry = column_geometry(column_spec(1, 3, 1, "valid", "channels_last", 1), (2, 9, 4))
        job = plan(operation, geometry, SINGLE, current(), 1)
    else:
        spec, kernel = FAMILIES[operation.partition("_")[0]]
        job = engine.prepare(operation, spec, (2, 9, 4), kernel, SINGLE).job
    arrays = [None if shape is None else np.ones(shape, "f") for shape in shapes]
    job.run(*arrays, **options)
    for i, array in enumerate(arrays):
        for wrong in () if array is None else (array.ravel()[:-1].copy(), np.ones(array.size + 1, "f")):
            with pytest.raises(ValueError, match=rf"({ORDER[i]}|columns) must have \d+ bytes .*, got {wrong.nbytes}:"):
                job.run(*arrays[:i], wrong, *arrays[i + 1 :], **options)


@pytest.mark.parametrize("family", ["local", "conv"])
@pytest.mark.parametrize("store", ["float16", "bfloat16", "int8"])
def test_the_core_counts_stored_kernels(isa, family, store):
    spec, kernel = FAMILIES[family]
    job = engine.prepare(f"{family}_forward", spec, (2, 9, 4), kernel, single_with(store)).job
    result, x = np.ones((2, 7, 5), "f"), np.ones((2, 9, 4), "f")
    values = np.zeros(np.prod(kernel) * (1 if store == "int8" else 2), np.uint8)
    scales = np.ones(kernel[0] * kernel[-1], "f")
    whole = (values, scales) if store == "int8" else values
    job.run(result, x, whole, None)
    short = [(values[:-1], scales), (values, scales[:-1]), values] if store == "int8" else [values[:-1]]
    for wrong in short:
        with pytest.raises(ValueError, match=r"(kernel|scales) must have \d+ bytes or scales"):
            job.run(result, x, wrong, None)


def test_empty_out(data_format):
    case = Case("local_conv1d", (9,), (3,), 0, data_format=data_format)
    out = np.zeros(case.layout(case.out, case.filters), "float32")
    assert case.run(localconv, case.arrays(), out=out) is out


# --- sizes past memory ------------------------------------------------------------------------------------------------

HUGE = 2**46  # float32 elements: 256 TiB, more than a process can address, so that no allocation succeeds


def test_errstate_changes_nothing_of_a_signaling_nan():
    """Which is one that the processor tells of when it becomes a float64."""
    signaling = np.ones((1, 3, 1), np.float32)
    signaling.view(np.uint32)[0, 1, 0] = 0x7FA00000
    kernel = signaling[:, :2].repeat(2, 0)
    with np.errstate(all="raise"):
        of_x = localconv.local_conv1d(signaling, np.ones((2, 2, 1)), 2, 1)
        of_kernel = localconv.local_conv1d(np.ones((1, 3, 1)), kernel, 2, 1)
        of_shared = localconv.conv1d(np.ones((1, 3, 1)), signaling[:, :2].transpose(1, 0, 2))
    assert np.isnan(of_x).all()
    assert np.isnan(of_kernel).all()
    assert np.isnan(of_shared).all()


@pytest.mark.parametrize("function", ["local_conv1d", "conv1d"])
def test_memory_error_for_the_input(function):
    x = np.broadcast_to(np.float32(1), (1, HUGE, 1))
    kernel = np.broadcast_to(np.float32(1), (HUGE, 1, 1)) if function == "local_conv1d" else np.ones((1, 1, 1), "f4")
    arguments = (1, 1) if function == "local_conv1d" else ()
    with pytest.raises(MemoryError):
        getattr(localconv, function)(x, kernel, *arguments)


def test_memory_error_for_the_output():
    """A small input whose output is past memory, by padding and by the patches' overlap."""
    with pytest.raises(MemoryError):
        localconv.conv1d(np.ones((1, 4, 1), "f4"), np.ones((1, 1, 1), "f4"), padding=((HUGE, 0),))
    side = 2**23
    with pytest.raises(MemoryError):
        localconv.im2col(np.zeros((1, 2 * side - 1, 1), "f4"), side)
    with pytest.raises(MemoryError):
        localconv.col2im(np.zeros((1, 1, 1), "f4"), (1, HUGE, 1), 1, HUGE)


# --- arrays of other libraries ----------------------------------------------------------------------------------------


def unreadable(module, error, name="Tensor"):
    """An array of a class of that module, which raises when NumPy asks for its values."""

    def __array__(self, dtype=None, copy=None):
        raise error

    base = type("Base", (), {"__module__": module, "__array__": __array__, "shape": (2, 6, 2)})
    return type(name, (base,), {"__module__": "users.own"})()


# Errors are made where they are raised: one that is kept would take its traceback and context along to later tests.
LIBRARIES = {
    "torch": ("torch._tensor", RuntimeError, "Can't call numpy() on Tensor that requires grad.\nMore.", "torch"),
    "jax": ("jax._src.core", TypeError, "The __array__() method was called on a traced array", "jax"),
    "jaxlib": ("jaxlib._jax", ValueError, "Array has been deleted", "jax"),
    "keras": ("keras.src.backend", ValueError, "A KerasTensor is symbolic", "keras"),
    "tensorflow": ("tensorflow.python", NotImplementedError, "Cannot convert a symbolic tf.Tensor", "keras"),
    "no text": ("torch", RuntimeError, "", "torch"),
}
CALLS_BY_ARGUMENT = {
    "x": lambda value: localconv.conv1d(value, np.ones((3, 2, 4), np.float32), data_format="channels_last"),
    "kernel": lambda value: localconv.conv1d(np.ones((2, 6, 2), np.float32), value, data_format="channels_last"),
    "inputs of layer dense": lambda value: localconv.layers.Dense(3, name="dense")(value),
    "inputs of layer c": lambda value: localconv.layers.Sequential([localconv.layers.Dense(3)], name="c")(value),
    "x ": lambda value: localconv.layers.Sequential([localconv.layers.Dense(3)]).predict(value),
    "value of w:0": lambda value: localconv.layers.Variable(value, "w:0"),
    "grad of w:0": lambda value: setattr(localconv.layers.Variable(np.ones((2, 6, 2)), "w:0"), "grad", value),
}


@pytest.mark.parametrize("argument", CALLS_BY_ARGUMENT)
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_package_for_arrays_of_another_library(library, argument):
    module, kind, text, bridge = LIBRARIES[library]
    first = text.partition("\n")[0] or kind.__name__
    error = kind(text)
    with pytest.raises(TypeError) as caught:
        CALLS_BY_ARGUMENT[argument](unreadable(module, error))
    assert str(caught.value) == (
        f"{argument.strip()} must be an array that NumPy can read, got Tensor ({first}); localconv.{bridge} "
        "computes with these"
    )
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("module", ["torchvision.tv_tensors", "jaxtyping", "builtins", "mine.torch"])
@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_what_other_arrays_raise_is_theirs(module, kind):
    error = kind("no")
    with pytest.raises(kind) as caught:
        CALLS_BY_ARGUMENT["x"](unreadable(module, error))
    assert caught.value is error


def test_full_memory_is_said_to_be_that():
    with pytest.raises(MemoryError):
        CALLS_BY_ARGUMENT["x"](unreadable("torch", MemoryError()))


@pytest.mark.parametrize("module", ["keras.src.layers", "torch.nn.modules"])
def test_the_package_for_layers_of_another_library(module):
    layer = type("Dense", (), {"__module__": module})()
    with pytest.raises(TypeError, match=rf"must be an instance of class Layer.*localconv\.{module.split('.')[0]} has"):
        localconv.layers.Sequential([layer])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "bfloat16"])
def test_layers_say_how_to_make_floats(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is its")
    x = np.ones((2, 3)).astype(dtype)
    words = rf"^inputs of layer d must be an array of floats, got dtype {dtype}: inputs\.astype\(np\.float32\) is one$"
    with pytest.raises(TypeError, match=words):
        localconv.layers.Dense(3, name="d")(x)


@pytest.mark.parametrize("wrong", [np.ones((2, 3), complex), np.array([["a"]]), np.array([[None]])], ids=str)
def test_what_cannot_be_floats_has_no_remedy(wrong):
    with pytest.raises(TypeError, match=f"got dtype {wrong.dtype}$"):
        localconv.layers.Dense(3)(wrong)
