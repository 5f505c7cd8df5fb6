"""Calls of ``torch.ops.localconv`` that no function here makes: each is refused in words, and nothing is read."""

import contextlib
import itertools
import re

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch_cases import lying  # noqa: E402

from localconv.torch import fallback  # noqa: E402

NAMES = ("local_conv", "local_conv_input", "local_conv_weight", "local_conv_int8", "local_conv_input_int8")
WINDOW = {"kernel_size": [2, 2], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 2}
HUGE = 2**62
# What an argument of a window must not be, and words of the error.
WINDOWS = [
    *[("kernel_size", n, "kernel_size must be") for n in ([], [0, 2], [-1, 2], [1] * 4, [1] * 7)],
    ("kernel_size", [2], "stride must be an int"),
    ("kernel_size", [2, 2, 2], "stride must be 3 ints"),
    *[("kernel_size", n, "at least as large as the dilated kernel") for n in ([9, 9], [HUGE, 2], [2**40, 2**40])],
    *[("stride", n, "stride must be") for n in ([], [1], [1] * 3, [0, 1], [-1, 1])],
    ("stride", [HUGE, 1], "Expected weight to have size"),
    *[("padding", n, "padding must be") for n in ([], [0], [0] * 2, [0] * 6, [-1, 0, 0, 0], [-1, 1, 0, 0])],
    *[("padding", n, "Expected weight to have size") for n in ([HUGE, 0, 0, 0], [HUGE] * 4)],
    *[("dilation", n, "dilation must be") for n in ([], [1], [1] * 3, [0, 1], [-1, 1])],
    ("dilation", [HUGE, 1], "at least as large as the dilated kernel"),
    *[("groups", n, "groups must be at least 1") for n in (0, -1)],
    *[("groups", n, "Expected groups=.* to divide in_channels and out_channels") for n in (3, HUGE)],
]
SHAPES = [(), (0,), (3,), (2, 4), (2, 4, 6), (2, 4, 6, 5, 3), (2, 0, 6, 5), (2, 4, 6, 0), (20, 8, 0), (0, 8, 6)]
SHAPES += [(20, 0, 6), (2, 5, 6, 5), (2, 6, 5, 9)]
SIZES = [*SHAPES, (2, 4, 6, -5), (-2, 4, 6, 5), (0, 4, 6, 5), (20, 8, -6), (2**40, 4, 6, 5), (2, 4, HUGE, 5)]
SIZES += [(20, 8, 2**50)]
WORDS = "input|weight|bias|values|scales|gradient|sizes of at least 0|channel"


def arguments(name):
    """Those of a right call, by their names."""
    made = torch.Generator().manual_seed(0)
    x, weight, bias, y = (
        torch.randn(shape, generator=made) for shape in ((2, 4, 6, 5), (20, 8, 6), (6,), (2, 6, 5, 4))
    )
    small = {"values": weight.sign().to(torch.int8), "scales": weight.abs().amax(1)}
    factors = {
        "local_conv": {"input": x, "weight": weight, "bias": bias},
        "local_conv_input": {"input_size": list(x.shape), "weight": weight, "grad_output": y, "bias": bias[:4]},
        "local_conv_weight": {"input": x, "weight_size": list(weight.shape), "grad_output": y},
        "local_conv_int8": {"input": x, **small, "bias": bias},
        "local_conv_input_int8": {"input_size": list(x.shape), **small, "grad_output": y, "bias": bias[:4]},
    }
    return factors[name] | WINDOW


def wrong_arguments(name):
    """Calls with one wrong argument each: which, the call's arguments, and words of the error."""
    right = arguments(name)
    for argument, value, words in WINDOWS:
        yield f"{argument}={value}", right | {argument: value}, words
    for argument, value in right.items():
        if argument in WINDOW:
            continue
        for shape in SHAPES if isinstance(value, torch.Tensor) else SIZES:
            given = torch.zeros(shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else list(shape)
            yield f"{argument}: {shape}", right | {argument: given}, WORDS
        if isinstance(value, torch.Tensor):
            for dtype in (torch.int32, torch.float64, torch.complex64, torch.bool):
                yield f"{argument}: {dtype}", right | {argument: value.to(dtype)}, "dtype|of torch.int8 and scales of"


def called(name, given, device="cpu", requires_grad=False):
    """The result of a call, or the error in words."""
    tensors = {key: t.to(device, copy=True) for key, t in given.items() if isinstance(t, torch.Tensor)}
    for key, tensor in tensors.items():
        if requires_grad and tensor.dtype.is_floating_point and key != "scales":
            tensor.requires_grad_()
    try:
        return getattr(torch.ops.localconv, name)(**given | tensors)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("way", ["compiled", "differentiated", "torch", "meta"])
@pytest.mark.parametrize("name", NAMES)
def test_wrong_calls(name, way):
    """On the processor with and without a gradient, in PyTorch's operations as other devices have them, and on meta."""
    options = {"meta": {"device": "meta"}, "differentiated": {"requires_grad": True}}.get(way, {})
    with fallback.forced() if way == "torch" else contextlib.nullcontext():
        assert isinstance(called(name, arguments(name), **options), torch.Tensor)
        for what, given, words in wrong_arguments(name):
            error = called(name, given, **options)
            assert isinstance(error, str), f"{what} was accepted"
            assert re.search(words, error), f"{what}: {error}"
            assert not error.startswith("ValueError") or any(key in error for key in WINDOW)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_tensor(name):
    """PyTorch's dispatcher says which argument."""
    right = arguments(name)
    for argument, value in right.items():
        if isinstance(value, torch.Tensor):
            with pytest.raises(RuntimeError, match=f"'{argument}'"):
                getattr(torch.ops.localconv, name)(**right | {argument: value.numpy()})


@pytest.mark.parametrize("way", ["compiled", "torch", "meta"])
@pytest.mark.parametrize("name", ["local_conv_input", "local_conv_input_int8"])
def test_negative_sizes_that_fit_all_else(name, way):
    """An input of -1 pixels, with so much padding that the gradient and the weight are those of it."""
    right = arguments(name) | {"input_size": [2, 4, -1, 5], "padding": [4, 3, 0, 0], "bias": None}
    with fallback.forced() if way == "torch" else contextlib.nullcontext():
        error = called(name, right, "meta" if way == "meta" else "cpu")
    assert re.match("RuntimeError: Expected sizes of at least 0", str(error))


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_say_other_sizes_than_they_have(name, way):
    """PyTorch's own operators do not ask a subclass, and neither do these: memory beyond it would be read."""
    right = arguments(name)
    for argument, value in right.items():
        if isinstance(value, torch.Tensor):
            size = value.movedim(1, -1).shape if argument in ("input", "grad_output") else value.shape
            given = right | {argument: lying(size, value.dtype)}
            context = fallback.forced() if way == "torch" else contextlib.nullcontext()
            with context, pytest.raises((RuntimeError, IndexError)):
                getattr(torch.ops.localconv, name)(**given)


def test_a_bias_must_have_a_shape_of_the_two():
    """Not one that could be broadcast to the output."""
    for name, right_shape in (("local_conv", (6, 5, 4)), ("local_conv_input", (4, 6, 5))):
        right = arguments(name)
        for shape in itertools.product([1, 4, 5, 6], [1, 4, 5, 6], [1, 4, 5]):
            bias = right["bias"].new_zeros(shape)
            for device in ("cpu", "meta"):
                result = called(name, right | {"bias": bias}, device)
                assert isinstance(result, torch.Tensor) == (shape == right_shape)
