"""Validation: the errors of the functions for NumPy, at once, and what only chunks can have wrong."""

import inspect

import dask.array as da
import numpy as np
import pytest

import localconv
import localconv.dask as ld

SHAPES = {"inputs": (2, 9, 3), "kernel": (7, 9, 4), "grad_output": (2, 7, 4)}
OPTIONS = {"kernel_size": 3, "strides": 1, "data_format": "channels_last"}

WRONG = [
    {"inputs": np.ones((2, 9, 3), int)},
    {"inputs": np.ones((9, 3))},
    {"inputs": np.ma.ones((2, 9, 3))},
    {"inputs": np.ones((2, 2, 3))},
    {"kernel": np.ones((7, 9, 4), complex)},
    {"kernel": np.ones((7, 9, 4), np.int8)},
    {"kernel": np.ones((7, 8, 4))},
    {"kernel": np.ones((6, 9, 4))},
    {"kernel": np.ones((6, 9))},
    {"kernel": np.ones((7, 9, 0))},
    {"kernel_size": 10},
    {"kernel_size": "3"},
    {"strides": 0},
    {"padding": "full"},
    {"dilation_rate": (1, 2)},
    {"groups": 2},
    {"data_format": "NHWC"},
    {"bias": np.ones(5)},
    {"bias": np.ones((4, 7))},
    {"bias": np.ones(4, int)},
    {"bias": "b"},
    {"grad_output": np.ones((2, 6, 4))},
    {"grad_output": np.ones((2, 7, 4), bool)},
    {"input_shape": (2, 8, 3)},
    {"input_shape": 3},
    {"kernel_shape": (7, 9)},
    {"kernel_shape": (7, 9.5, 4)},
]


def calls(functions, changes, as_array):
    """The forward function and its gradients that know all changed arguments, ready to be called."""
    given = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    given |= {"input_shape": SHAPES["inputs"], "kernel_shape": SHAPES["kernel"]} | OPTIONS | changes
    for name in ("inputs", "kernel", "grad_output"):
        given[name] = as_array(given[name])
    for function in functions:
        known = inspect.signature(function).parameters
        if set(changes) <= set(known):
            yield lambda f=function, k=known: f(**{name: value for name, value in given.items() if name in k})


def functions_of(forward, gradients):
    return forward.local_conv1d, gradients.local_conv1d_input, gradients.local_conv1d_kernel


@pytest.mark.parametrize("changes", WRONG, ids=lambda changes: "-".join(changes))
def test_errors_are_those_of_the_functions_for_numpy(changes):
    theirs = list(calls(functions_of(localconv, localconv.grad), changes, lambda array: array))
    ours = list(calls(functions_of(ld, ld.grad), changes, da.from_array))
    assert len(ours) == len(theirs) > 0
    for call, reference in zip(ours, theirs, strict=True):
        with pytest.raises((TypeError, ValueError)) as expected:
            reference()
        with pytest.raises(expected.type) as found:
            call()
        assert str(found.value) == str(expected.value)


def test_right_arguments_are_right():
    """What the wrong ones differ from."""
    for call in calls(functions_of(ld, ld.grad), {}, da.from_array):
        call().compute()


FORWARD = ["local_conv1d", "local_conv2d", "local_conv3d"]


@pytest.mark.parametrize("name", FORWARD + [f"{name}_{of}" for name in FORWARD for of in ("input", "kernel")])
def test_arguments_are_those_of_the_functions_for_numpy(name):
    """Names, order, defaults; `out` and `accumulate` are not dask's way, which pads with pixels and divides itself."""
    others = ("out", "accumulate", "padding_mode", "normalize")
    forward = name in FORWARD
    ours = inspect.signature(getattr(ld if forward else ld.grad, name)).parameters
    theirs = inspect.signature(getattr(localconv if forward else localconv.grad, name)).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values() if p.name not in others
    ]


def test_all_that_grad_shows():
    assert {f"{name}_{of}" for name in FORWARD for of in ("input", "kernel")} == set(ld.grad.__all__)


def ones(name, chunks=-1, dtype=np.float32):
    return da.ones(SHAPES[name], chunks=chunks, dtype=dtype)


@pytest.mark.parametrize("name", ["inputs", "kernel", "grad_output"])
def test_other_arrays_are_refused(name):
    """A kernel of NumPy would travel with every task; so that nobody waits for it, neither come other arrays."""
    array = np.ones(SHAPES[name], np.float32)
    words = "a dask array or a KernelFile, got ndarray" if name == "kernel" else "a dask array, got ndarray: dask.array"
    for call in calls(
        functions_of(ld, ld.grad), {name: array}, lambda value: value if value is array else da.asarray(value)
    ):
        with pytest.raises(TypeError, match=f"^{name} must be {words}"):
            call()


def test_unknown_chunks_are_refused():
    inputs = ones("inputs")
    unknown = inputs[inputs[:, 0, 0] > 0]
    with pytest.raises(ValueError, match=r"^inputs must have chunks of known sizes.*compute_chunk_sizes"):
        ld.local_conv1d(unknown, ones("kernel"), **OPTIONS)


@pytest.mark.parametrize(
    ("shape", "chunks", "groups", "words"),
    [
        ((4 * 3, 18, 4), (2, -1, -1), 1, r"chunks along axis 0 must be of whole.*multiples of 3.*rechunk\({0: 3}\)"),
        ((4 * 3, 18, 4), ((6, 5, 1), -1, -1), 1, r"chunks along axis 0 .*got \(6, 5, 1\): kernel.rechunk\({0: 6}\)"),
        ((4 * 3, 18, 4), (3, 9, -1), 1, r"one chunk along axis 1, got \(9, 9\)"),
        ((4 * 3, 9, 4), (3, -1, 3), 2, r"chunks along axis 2 must be of whole groups, multiples of 2.*{2: 2}"),
        ((4 * 3, 18, 4), ((6, 0, 6), -1, -1), 1, "no chunks of size 0"),
    ],
)
def test_chunks_that_would_have_to_be_brought_together(shape, chunks, groups, words):
    """The kernel must not move: its owner says where, and how."""
    x, kernel = da.ones((1, 6, 5, 2)), da.ones(shape, chunks=chunks)
    options = {"kernel_size": 3, "data_format": "channels_last", "groups": groups}
    with pytest.raises(ValueError, match=words):
        ld.local_conv2d(x, kernel, **options)
    with pytest.raises(ValueError, match=words):
        ld.grad.local_conv2d_input(x.shape, kernel, da.ones((1, 4, 3, 4)), **options)


def test_many_chunks_make_no_long_message():
    x, kernel = da.ones((1, 2003, 2002, 1)), da.ones((2000, 9, 4), chunks=(1, -1, -1))
    with pytest.raises(ValueError, match="whole rows") as caught:
        ld.local_conv2d(x[:, :4, :1002], kernel, 3, data_format="channels_last")
    assert len(str(caught.value)) < 500


def test_the_remedy_of_an_error_is_one():
    x, kernel = da.ones((1, 6, 5, 2)), da.ones((12, 9, 4), chunks=(5, -1, 3))
    options = {"kernel_size": 3, "data_format": "channels_last", "groups": 2}
    right = kernel.rechunk({0: 3}).rechunk({2: 2})
    np.testing.assert_array_equal(ld.local_conv2d(x, right, **options), np.full((1, 4, 3, 4), 9.0))
