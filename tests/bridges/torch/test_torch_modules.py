"""Modules: parameters, lazy ones, states and copies, wrong arguments, and the layers of others."""

import copy
import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

import oracle  # noqa: E402
from layer_cases import GOLDEN, assert_close, golden  # noqa: E402

import localconv  # noqa: E402
from localconv import layers  # noqa: E402
from localconv.convert import convert  # noqa: E402
from localconv.torch import (  # noqa: E402
    LazyLocalConv1d,
    LazyLocalConv2d,
    LazyLocalConv3d,
    LocalConv1d,
    LocalConv2d,
    LocalConv3d,
    LocalConvTranspose1d,
    LocalConvTranspose2d,
    LocalConvTranspose3d,
    from_keras,
    from_snippet,
    functional,
    to_keras,
    to_snippet,
)


def test_parameters():
    layer = LocalConv2d(4, 6, (3, 2), (9, 8), stride=2, padding=(1, 0), groups=2)
    assert layer.output_size == (5, 4)
    assert layer.weight.shape == (20, 12, 6)
    assert layer.bias.shape == (6, 5, 4)
    assert LocalConv2d(4, 6, 3, 5, bias="shared").bias.shape == (6,)
    assert LocalConv2d(4, 6, 3, 5, bias=False).bias is None
    transposed = LocalConvTranspose2d(4, 6, 3, (5, 4), stride=2, padding=1, output_padding=(1, 0), groups=2)
    like = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0), groups=2)
    assert transposed.output_size == tuple(like(torch.zeros(1, 4, 5, 4)).shape[2:])
    assert transposed(torch.zeros(1, 4, 5, 4)).shape[2:] == transposed.output_size
    assert transposed.weight.shape == (20, 27, 4)


def test_parameters_of_three_dimensions():
    layer = LocalConv3d(4, 6, (3, 2, 1), (9, 8, 3), stride=2, padding=(1, 0, 0), groups=2)
    assert layer.output_size == (5, 4, 2)
    assert layer.weight.shape == (40, 12, 6)
    assert layer.bias.shape == (6, 5, 4, 2)
    transposed = LocalConvTranspose3d(4, 6, 3, (5, 4, 2), stride=2, padding=1, output_padding=(1, 0, 1), groups=2)
    like = torch.nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0, 1), groups=2)
    assert transposed.output_size == tuple(like(torch.zeros(1, 4, 5, 4, 2)).shape[2:])
    assert transposed(torch.zeros(1, 4, 5, 4, 2)).shape[2:] == transposed.output_size
    assert transposed.weight.shape == (40, 81, 4)


@pytest.mark.parametrize("make", [LocalConv1d, LocalConvTranspose1d])
def test_first_values(make):
    """Uniform within the bound of one position's fan."""
    torch.manual_seed(1)
    layer = make(8, 16, 5, 40)
    bound = 1 / math.sqrt(layer.weight.shape[1])
    for tensor in (layer.weight, layer.bias):
        assert 0.95 * bound < tensor.abs().max() <= bound
        assert abs(tensor.mean()) < 0.1 * bound
    outputs = layer(torch.randn(50, 8, 40))
    shared = torch.nn.Conv1d(8, 16, 5)(torch.randn(50, 8, 40))
    if make is LocalConv1d:
        assert 0.8 < outputs.std() / shared.std() < 1.25


@pytest.mark.parametrize(
    ("lazy", "eager", "shape"),
    [
        (LazyLocalConv1d, LocalConv1d, (2, 4, 9)),
        (LazyLocalConv2d, LocalConv2d, (2, 4, 9, 7)),
        (LazyLocalConv3d, LocalConv3d, (2, 4, 5, 3, 4)),
    ],
)
def test_lazy(lazy, eager, shape):
    x = torch.randn(shape)
    for given in (x, x[0]):
        layer = lazy(6, 3, stride=2, groups=2)
        assert "input_size" not in repr(layer)
        torch.manual_seed(3)
        y = layer(given)
        assert type(layer) is eager
        torch.manual_seed(3)
        twin = eager(4, 6, 3, shape[2:], stride=2, groups=2)
        assert torch.equal(y, twin(given))
        assert repr(layer) == repr(twin)
    loaded = lazy(6, 3, stride=2, groups=2)
    loaded.load_state_dict(twin.state_dict())
    assert torch.equal(loaded(x), twin(x))


def test_copies():
    same = {"padding": "same"}
    for layer, options in (
        (LocalConv2d(2, 3, 2, 4, **same), same),
        (LocalConv3d(2, 3, 2, 4, **same), same),
        (LocalConvTranspose1d(2, 3, 2, 4), {}),
        (LocalConvTranspose3d(2, 3, 2, 4), {}),
    ):
        x = torch.randn(2, 2, *layer.input_size)
        file = pickle.dumps(layer)
        made = copy.deepcopy(layer), pickle.loads(file)
        for other in made:
            assert other._window is layer._window
            assert repr(other) == repr(layer)
            assert torch.equal(other(x), layer(x))
        fresh = type(layer)(2, 3, 2, 4, **options)
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(x), layer(x))


def test_dtypes_and_devices():
    layer = LocalConv1d(2, 3, 2, 4, dtype=torch.float64)
    assert layer.weight.dtype == layer.bias.dtype == torch.float64
    assert layer.to(torch.bfloat16)(torch.ones(1, 2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    on_meta = LocalConv1d(2, 3, 2, 4, device="meta")
    assert on_meta.weight.is_meta
    assert on_meta.to_empty(device="cpu").weight.device.type == "cpu"


def test_representation():
    assert repr(LocalConv2d(3, 4, 3, 8)) == "LocalConv2d(3, 4, kernel_size=(3, 3), input_size=(8, 8), stride=(1, 1))"
    everything = LocalConv1d(4, 4, 3, 8, 2, 1, 2, 2, bias="shared")
    assert repr(everything) == (
        "LocalConv1d(4, 4, kernel_size=(3,), input_size=(8,), stride=(2,), padding=(1,), dilation=(2,), groups=2, "
        "bias='shared')"
    )
    transposed = LocalConvTranspose1d(3, 4, 3, 8, 2, output_padding=1)
    assert repr(transposed).endswith("stride=(2,), output_padding=(1,))")


def seen(layer, x):
    """A layer that was called."""
    layer(x)
    return layer


X, WEIGHT = torch.zeros(2, 3, 6, 5), torch.zeros(20, 12, 4)
SMALL = localconv.quantize(WEIGHT.numpy())
FROM_NUMPY = r" must be a Tensor, got ndarray: torch\.from_numpy\({0}\) is one"
CALLS = {
    "array": (lambda: functional.local_conv2d(X.numpy(), WEIGHT, 2), TypeError, "input" + FROM_NUMPY.format("input")),
    "array of weights": (
        lambda: functional.local_conv2d(X, WEIGHT.numpy(), 2),
        TypeError,
        "weight" + FROM_NUMPY.format("weight"),
    ),
    "array of biases": (
        lambda: functional.local_conv2d(X, WEIGHT, 2, np.zeros(4, "f")),
        TypeError,
        "bias" + FROM_NUMPY.format("bias"),
    ),
    "array, transposed": (
        lambda: functional.local_conv_transpose2d(np.zeros((1, 4, 5, 4), "f"), WEIGHT, 2),
        TypeError,
        "input" + FROM_NUMPY.format("input"),
    ),
    "array for a module": (lambda: LocalConv2d(3, 4, 2, 5)(X.numpy()), TypeError, "input must be a Tensor, got ndarr"),
    "array for int8": (lambda: LocalConv2d(3, 4, 2, 5).quantize()(X.numpy()), TypeError, "input must be a Tensor, got"),
    "array for lazy": (lambda: LazyLocalConv2d(4, 2)(X.numpy()), TypeError, "input must be a Tensor, got ndarray"),
    "list": (lambda: functional.local_conv2d([1.0], WEIGHT, 2), TypeError, "input must be a Tensor, got list$"),
    "quantized": (
        lambda: functional.local_conv2d(X, SMALL, 2),
        TypeError,
        r"weight must be a Tensor, got QuantizedKernel: .* module\.quantize\('int8'\); .*weight\.dequantize\(\)",
    ),
    "quantized, transposed": (
        lambda: functional.local_conv_transpose2d(X, SMALL, 2),
        TypeError,
        "weight must be a Tensor, got QuantizedKernel",
    ),
    "name in 3D": (lambda: LocalConv3d(3, 4, 2, 5)(X[0]), RuntimeError, r"Expected 4D .* or 5D .* LocalConv3d"),
    "ints in 3D": (lambda: LocalConv3d(3, 4, (2, 2), 5), ValueError, r"kernel_size must be 3 ints"),
    "one dimension": (lambda: functional.local_conv2d(X[0, 0], WEIGHT, 2), RuntimeError, "Expected 3D .* local_conv2d"),
    "name": (lambda: LocalConv1d(3, 4, 2, 5)(X), RuntimeError, "Expected 2D .* LocalConv1d"),
    "weight": (
        lambda: functional.local_conv2d(X, WEIGHT[1:], 2),
        RuntimeError,
        r"Expected weight to have size .* = \[20, 12, 4\]",
    ),
    "weight dims": (lambda: functional.local_conv2d(X, WEIGHT[0], 2), RuntimeError, "Expected a weight of 3 dim"),
    "bias": (
        lambda: functional.local_conv2d(X, WEIGHT, 2, torch.zeros(5, 4, 4)),
        RuntimeError,
        r"Expected bias to have size \[4\] or \[4, 5, 4\], but got \[5, 4, 4\]",
    ),
    "small": (lambda: functional.local_conv2d(X, WEIGHT, 9), RuntimeError, "as large as the dilated kernel"),
    "groups": (lambda: functional.local_conv2d(X, WEIGHT, 2, groups=2), RuntimeError, "Expected groups=2 to divide"),
    "dtypes": (lambda: functional.local_conv2d(X.double(), WEIGHT, 2), RuntimeError, "Expected weight to have the dty"),
    "bias dtype": (
        lambda: functional.local_conv2d(X, WEIGHT, 2, torch.zeros(4).double()),
        RuntimeError,
        "Expected bias to have the dtype",
    ),
    "images of bytes": (
        lambda: LocalConv2d(3, 4, 2, (6, 5))(X.to(torch.uint8)),
        RuntimeError,
        r"Expected input to have a dtype of floats, but got torch.uint8: try input.float\(\)",
    ),
    "ints": (lambda: functional.local_conv2d(X.int(), WEIGHT.int(), 2), RuntimeError, "one of the dtypes"),
    "channels": (
        lambda: LocalConv2d(2, 4, 2, (6, 5))(X),
        RuntimeError,
        r"images of size \[2, 6, 5\], .* but got input of size \[2, 3, 6, 5\]: .* must have in_channels=2 channels",
    ),
    "input size": (
        lambda: LocalConv2d(3, 4, 2, (6, 6))(X),
        RuntimeError,
        r"\[3, 6, 6\], .* LocalConv2d was made with input_size=\(6, 6\), but got input of size \[2, 3, 6, 5\]",
    ),
    "input size, unbatched": (lambda: LocalConv2d(3, 4, 2, (6, 6))(X[0]), RuntimeError, r"\(6, 6\), but .*\[3, 6, 5\]"),
    "input size, int8": (lambda: LocalConv2d(3, 4, 2, (6, 6)).quantize()(X), RuntimeError, r"input_size=\(6, 6\)"),
    # As many positions, and no bias that would not fit.
    "turned": (
        lambda: LocalConv2d(3, 4, 2, (5, 6), bias="shared")(X),
        RuntimeError,
        r"input_size=\(5, 6\), but got input of size \[2, 3, 6, 5\]",
    ),
    "turned, transposed": (
        lambda: LocalConvTranspose2d(3, 4, 2, (5, 6), bias=False)(X),
        RuntimeError,
        r"LocalConvTranspose2d was made with input_size=\(5, 6\)",
    ),
    "turned, transposed, int8": (
        lambda: LocalConvTranspose2d(3, 4, 2, (5, 6), bias=False).quantize()(X),
        RuntimeError,
        r"input_size=\(5, 6\)",
    ),
    "size for lazy": (lambda: seen(LazyLocalConv2d(4, 2), X)(X[..., 1:]), RuntimeError, r"input_size=\(6, 5\), but"),
    "compiled": (
        lambda: torch.compile(LocalConv2d(3, 4, 2, (6, 6)), backend="eager")(X),
        RuntimeError,
        r"input_size=\(6, 6\)",
    ),
    "transposed": (
        lambda: functional.local_conv_transpose2d(X, WEIGHT, 2),
        RuntimeError,
        "Expected weight to have size",
    ),
    "transposed taps": (
        lambda: functional.local_conv_transpose2d(X, WEIGHT, 5),
        RuntimeError,
        r"Expected weight to have size \[positions",
    ),
    "kernel_size": (lambda: LocalConv2d(3, 4, 0, 5), ValueError, "kernel_size must be at least 1"),
    "kernel_size type": (lambda: LocalConv2d(3, 4, 2.0, 5), TypeError, "kernel_size must be 2 ints"),
    "bool": (lambda: functional.local_conv2d(X, WEIGHT, 2, stride=True), TypeError, "stride must be 2 ints"),
    "stride": (lambda: LocalConv1d(3, 4, 2, 5, stride=(1, 1)), ValueError, "stride must be"),
    "padding": (lambda: LocalConv1d(3, 4, 2, 5, padding="full"), ValueError, "padding must be 'valid', 'same'"),
    "same": (lambda: LocalConv1d(3, 4, 2, 5, 2, "same"), ValueError, "not supported for strided"),
    "negative": (lambda: LocalConv1d(3, 4, 2, 5, padding=-1), ValueError, "padding must be at least 0"),
    "size": (lambda: LocalConv1d(3, 4, 7, 5), ValueError, "input_size must be at least as large"),
    "in_channels": (lambda: LocalConv1d(3, 4, 2, 5, groups=2), ValueError, "in_channels must be divisible"),
    "out_channels": (lambda: LocalConv1d(4, 3, 2, 5, groups=2), ValueError, "out_channels must be divisible"),
    "no channels": (lambda: LocalConv1d(0, 3, 2, 5), ValueError, "in_channels must be at least 1"),
    "bias word": (lambda: LocalConv1d(4, 3, 2, 5, bias="full"), ValueError, "bias must be True, False or 'shared'"),
    "output_padding": (
        lambda: LocalConvTranspose1d(4, 3, 2, 5, output_padding=1),
        ValueError,
        "output_padding must be smaller than stride",
    ),
    "transposed padding": (
        lambda: LocalConvTranspose1d(4, 3, 2, 5, padding="same"),
        ValueError,
        "padding must be an int",
    ),
    "nothing left": (lambda: LocalConvTranspose1d(4, 3, 2, 2, padding=3), ValueError, "leaves nothing"),
    "too many pixels": (
        lambda: LocalConvTranspose1d(4, 3, 3, 5, dilation=2**63),
        ValueError,
        r"^stride=1 and dilation=9223372036854775808 must leave an output of at most .* \(18446744073709551621,\)$",
    ),
    "lazy dims": (lambda: LazyLocalConv1d(4, 2)(X), RuntimeError, "Expected 2D"),
    "lazy groups": (lambda: LazyLocalConv2d(4, 2, groups=2)(X), ValueError, "in_channels must be divisible"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments(name):
    call, kind, message = CALLS[name]
    with pytest.raises(kind, match=message):
        call()


def test_pixels_that_no_window_reaches():
    """May be more or less than the module was made for: its weights have the same positions."""
    layer = LocalConv2d(3, 4, 2, (6, 5), stride=2)
    assert torch.equal(layer(X + 1), layer(X[..., :4] + 1))


# ----------------------------------------------------------------------------------------------------- layers of others

KERAS = [case for file in sorted(GOLDEN.glob("local?d.npz")) for case in golden(file.stem)]


def built(case):
    layer = getattr(layers, case["layer"])(**case["arguments"])
    layer.build((None, *case["x"].shape[1:]))
    layer.set_weights(case["weights"])
    return layer


@pytest.mark.parametrize("number", range(len(KERAS)))
def test_from_keras(number):
    """What Keras 2.15 computed with the layer, in PyTorch's order of axes; and its weights back."""
    case = KERAS[number]
    layer = built(case)
    module = from_keras(layer, input_shape=case["x"].shape, ignore_activation=True)
    first = layer.data_format == "channels_first"
    x = torch.from_numpy(case["x"])
    y = module(x if first else x.movedim(-1, 1)).detach()
    y = (y if first else y.movedim(1, -1)).numpy()
    if layer.get_config()["activation"] == "linear":
        assert_close(y, case["y"])
    else:
        assert_close(np.asarray(layer.activation(y)), case["y"])
    for found, weight in zip(to_keras(module, layer.implementation, layer.data_format), case["weights"], strict=True):
        twin = from_keras(
            to_keras(module, layer.implementation, layer.data_format),
            layer.implementation,
            input_shape=case["x"].shape,
            kernel_size=layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
        )
        assert found.shape == weight.shape
    assert torch.equal(twin.weight, module.weight)
    if module.bias is not None:
        assert torch.equal(twin.bias, module.bias)
    assert repr(twin) == repr(module)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("implementation", [1, 2, 3])
def test_from_keras_in_three_dimensions(implementation, data_format, padding):
    """Which Keras 2 has not: what `localconv.local_conv3d` makes of the same weights; and those back."""
    case = oracle.Case(
        "local_conv3d", (4, 3, 5), (2, 3, 2), strides=(1, 1, 2), bias="full", padding=padding, data_format=data_format
    )
    x, rows, bias = case.arrays()
    first = data_format == "channels_first"
    ending = "_channels_first" if first else ""
    options = {"strides": case.strides, "padding": padding}
    name = f"keras_{implementation}{ending}"
    kernel = convert(rows, f"rows{ending}", name, case.kernel_size, input_size=case.spatial, **options)
    options |= {"kernel_size": case.kernel_size, "data_format": data_format, "input_shape": x.shape}
    module = from_keras([kernel, bias], implementation, **options)
    assert type(module) is LocalConv3d
    given = torch.from_numpy(x)
    y = module(given if first else given.movedim(-1, 1)).detach()
    case.check((y if first else y.movedim(1, -1)).numpy())
    for found, expected in zip(to_keras(module, implementation, data_format), (kernel, bias), strict=True):
        np.testing.assert_array_equal(found, expected)


class Snippet(torch.nn.Module):
    """The layer that is passed on in forums: unfold, multiply, sum."""

    def __init__(self, in_channels, out_channels, output_size, kernel_size, stride):
        super().__init__()
        taps = kernel_size ** len(output_size)
        self.weight = torch.nn.Parameter(torch.randn(1, out_channels, in_channels, *output_size, taps))
        self.bias = torch.nn.Parameter(torch.randn(1, out_channels, *output_size))
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x):
        for axis in range(2, x.dim()):
            x = x.unfold(axis, self.kernel_size, self.stride)
        x = x.flatten(self.bias.dim())
        return (x.unsqueeze(1) * self.weight).sum([2, -1]) + self.bias


def test_snippets():
    torch.manual_seed(0)
    theirs = Snippet(3, 5, (4, 3), 3, 2)
    x = torch.randn(2, 3, 10, 7)
    ours = from_snippet(theirs.weight, theirs.bias, stride=2, input_size=(10, 7))
    torch.testing.assert_close(ours(x), theirs(x))
    weight, bias = to_snippet(ours)
    assert torch.equal(weight, theirs.weight)
    assert torch.equal(bias, theirs.bias)
    assert from_snippet(theirs.weight, stride=2).input_size == (9, 7)
    shared = from_snippet(theirs.weight.detach().numpy(), np.zeros(5, np.float32), stride=2)
    assert shared.bias.shape == to_snippet(shared)[1].shape == (5,)
    deep = Snippet(2, 3, (2, 3, 2), 2, 1)
    ours = from_snippet(deep.weight, deep.bias)
    assert type(ours) is LocalConv3d
    x = torch.randn(2, 2, 3, 4, 3)
    torch.testing.assert_close(ours(x), deep(x))
    assert torch.equal(to_snippet(ours)[0], deep.weight)
    assert torch.equal(to_snippet(ours)[1], deep.bias)
    half = from_snippet(theirs.weight.bfloat16())
    assert torch.equal(to_snippet(half)[0], theirs.weight.bfloat16())


def conv2d_local(x, weight, bias, stride, padding, dilation):
    """What the comments on pytorch issue 499 do: a weight of (*output_size, out, in, *kernel_size)."""
    *output, filters, channels, rows, columns = weight.shape
    columns_of_x = torch.nn.functional.unfold(x, (rows, columns), dilation, padding, stride)
    matrices = weight.reshape(-1, filters, channels * rows * columns)
    return torch.einsum("nkp,pok->nop", columns_of_x, matrices).reshape(len(x), filters, *output) + bias


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, (2, 3)), ((2, 1), 0, 2)])
def test_snippets_of_six_axes(stride, padding, dilation):
    torch.manual_seed(0)
    size, x = (3, 2), torch.randn(2, 3, 9, 8)
    plain = torch.nn.Conv2d(3, 5, size, stride, padding, dilation)
    output = plain(x).shape[2:]
    weight, bias = torch.randn(*output, 5, 3, *size), torch.randn(5, *output)
    expected = conv2d_local(x, weight, bias, stride, padding, dilation)
    given = {"stride": stride, "padding": padding, "dilation": dilation, "input_size": (9, 8)}
    ours = from_snippet(weight, bias, layout="torch_conv2d_local", **given)
    torch.testing.assert_close(ours(x), expected)
    assert (ours.dilation, ours.groups) == (tuple(np.broadcast_to(dilation, 2)), 1)
    of_chainer = from_snippet(weight.permute(2, 0, 1, 3, 4, 5).numpy(), bias.numpy(), layout="chainer", **given)
    torch.testing.assert_close(of_chainer(x), expected)
    # As the first snippets are, whose taps are one axis.
    first = weight.permute(2, 3, 0, 1, 4, 5).flatten(4)[None]
    torch.testing.assert_close(from_snippet(first, bias[None], kernel_size=size, **given)(x), expected)


def test_input_sizes_of_dilated_snippets():
    for layout, weight in (("torch_snippet", np.zeros((1, 2, 3, 4, 5, 9))), ("chainer", np.zeros((2, 4, 5, 3, 3, 3)))):
        module = from_snippet(weight, layout=layout, stride=(2, 1), padding=1, dilation=(1, 2))
        assert module.input_size == (3 * 2 + 3 - 2, 4 + 5 - 2)
        assert module.output_size == (4, 5)


@pytest.mark.parametrize("size", [(3, 3), (2, 5)])
@pytest.mark.parametrize("flipped", [True, False])
def test_layers_of_lasagne(size, flipped):
    """Convolutions, padded to the input's size without being asked."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 5, 6), torch.randn(4, 3, *size, 5, 6), torch.randn(4)
    module = from_snippet(weight, bias, layout="lasagne" if flipped else "lasagne_correlation")
    assert module.input_size == module.output_size == (5, 6)
    taps = weight.flip(2, 3) if flipped else weight
    before = [k // 2 for k in size]
    ends = [end for k, b in zip(size, before, strict=True) for end in (b, k - 1 - b)]
    windows = torch.nn.functional.pad(x, ends[2:] + ends[:2]).unfold(2, size[0], 1).unfold(3, size[1], 1)
    expected = torch.einsum("ncpqij,fcijpq->nfpq", windows, taps) + bias[:, None, None]
    torch.testing.assert_close(module(x), expected)
    assert from_snippet(weight, layout="lasagne", padding=0).input_size == (4 + size[0], 5 + size[1])


def test_layers_of_megengine():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 3, 2, 3, 3, 3)
    module = from_snippet(weight, layout="megengine")
    assert (module.in_channels, module.out_channels, module.groups) == (4, 6, 2)
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1).reshape(2, 2, 2, 4, 3, 3, 3)
    expected = torch.einsum("ngcpqij,gpqcijf->ngfpq", windows, weight).reshape(2, 6, 4, 3)
    torch.testing.assert_close(module(x), expected)
    deep = from_snippet(torch.zeros(1, 2, 3, 2, 4, 2, 2, 2, 5), layout="megengine")
    assert (type(deep), deep.in_channels, deep.input_size) == (LocalConv3d, 4, (3, 4, 3))


def test_copies_do_not_pin_storages():
    module = LocalConv1d(2, 3, 2, 4)
    to_keras(module)
    to_snippet(module)
    module.weight.untyped_storage().resize_(0)


SHAPED = {"input_shape": (None, 8, 2), "kernel_size": 3}
KERNEL = np.zeros((6, 6, 4), np.float32)
OTHERS = {
    "activation": (
        lambda: from_keras(built(next(c for c in KERAS if c["arguments"].get("activation") not in (None, "linear")))),
        ValueError,
        "layer must have no activation",
    ),
    "layer": (lambda: from_keras(layers.Dense(2)), TypeError, "layer must be locally connected, got Dense"),
    "shape": (lambda: from_keras([KERNEL], kernel_size=3), ValueError, "input_shape must be given"),
    "size": (lambda: from_keras([KERNEL], input_shape=(1, 8, 2)), ValueError, "kernel_size must be given"),
    "axes": (lambda: from_keras([KERNEL], input_shape=(8, 2), kernel_size=3), ValueError, "input_shape must have 3 to"),
    "arrays": (lambda: from_keras([], **SHAPED), ValueError, "layer must have a kernel and perhaps a bias"),
    "implementation": (lambda: from_keras([KERNEL], 4, **SHAPED), ValueError, "implementation must be 1, 2 or 3"),
    "kernel": (lambda: from_keras([KERNEL[1:]], **SHAPED), ValueError, "kernel must have"),
    "channels": (
        lambda: from_keras([KERNEL], input_shape=(None, 8, 3), kernel_size=3),
        ValueError,
        r"kernel must have shape .* = \(6, 9, 4\) for input_shape",
    ),
    "too small": (
        lambda: from_keras([KERNEL], input_shape=(None, 2, 2), kernel_size=3),
        ValueError,
        r"input size \(2,\) is too small",
    ),
    "dilated": (lambda: to_keras(LocalConv1d(2, 2, 2, 8, dilation=2)), ValueError, "neither dilation nor groups"),
    "groups": (lambda: to_snippet(LocalConv1d(2, 2, 2, 8, groups=2)), ValueError, "module must have no groups"),
    "module": (lambda: to_snippet(torch.nn.Conv1d(2, 2, 2)), TypeError, "module must be a LocalConv1d, LocalConv2d or"),
    "lazy": (lambda: to_keras(LazyLocalConv1d(2, 2)), ValueError, "module must have seen an input"),
    "snippet": (
        lambda: from_snippet(np.zeros((2, 3, 4, 5, 5, 9))),
        ValueError,
        r"weight must have shape \(1, out_.* got \(2, 3, 4, 5, 5, 9\)\. Layouts that are known .*; 'chainer': \(out",
    ),
    "axes of a snippet": (
        lambda: from_snippet(np.zeros((2, 3, 4, 5, 5, 9, 2)), layout="chainer"),
        ValueError,
        "weight must have shape .* for layout='chainer', got",
    ),
    "layout": (
        lambda: from_snippet(KERNEL, layout="flax"),
        ValueError,
        "layout must be one of torch_snippet, .*, megengine, got 'flax'",
    ),
    "layouts": (lambda: from_snippet(KERNEL, layout=["chainer"]), ValueError, "layout must be one of"),
    "other window": (
        lambda: from_snippet(np.zeros((4, 5, 5, 3, 3, 2)), layout="chainer", kernel_size=(2, 3)),
        ValueError,
        r"kernel_size must be \(3, 2\), as weight has it, got \(2, 3\)",
    ),
    "no bias": (
        lambda: from_snippet(np.zeros((1, 4, 4, 2, 3, 3, 5)), np.zeros(5), layout="megengine"),
        ValueError,
        "bias must be None for layout='megengine'",
    ),
    "dilation": (lambda: from_snippet(np.zeros((1, 3, 4, 5, 5, 9)), dilation=0), ValueError, "dilation must be"),
    "taps": (lambda: from_snippet(np.zeros((1, 3, 4, 5, 5, 6))), ValueError, "kernel_size must be given .* no square"),
    "cube": (lambda: from_snippet(np.zeros((1, 3, 4, 2, 2, 2, 9))), ValueError, "kernel_size must be given .* no cube"),
    "window": (
        lambda: from_snippet(np.zeros((1, 3, 4, 5, 5, 6)), kernel_size=3),
        ValueError,
        "kernel_size must have 6 taps",
    ),
    "input": (
        lambda: from_snippet(np.zeros((1, 3, 4, 5, 5, 9)), input_size=9),
        ValueError,
        r"input_size must give the output size \(5, 5\)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_wrong_layers_of_others(name):
    call, kind, message = OTHERS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_freed_storages_are_refused(name):
    """As sharded training frees them: their memory must not be read."""
    layer = LocalConv2d(3, 4, 3, (8, 8))
    getattr(layer, name).data.untyped_storage().resize_(0)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context, pytest.raises(RuntimeError, match=name):
            layer(torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize("quantized", [False, True])
def test_modules_on_meta_refuse_inputs_of_the_processor(quantized):
    """Whose result would be memory that nobody has written."""
    layer = LocalConv2d(3, 4, 3, (8, 8), device="meta")
    if quantized:
        layer.quantize("int8")
    with pytest.raises(RuntimeError, match="device"):
        layer(torch.ones(2, 3, 8, 8))
    assert layer(torch.ones(2, 3, 8, 8, device="meta")).shape == (2, 4, 6, 6)


@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("module", [LocalConv2d, LocalConvTranspose2d])
def test_attributes_of_the_window_are_not_changed(module, name):
    """They would disagree with what is computed."""
    made = module(3, 4, 2, (6, 5))
    with pytest.raises(
        AttributeError, match=rf"^{name} of a {module.__name__} cannot be changed from .* Make a new module"
    ):
        setattr(made, name, 3)
    assert copy.deepcopy(made).stride == made.stride
