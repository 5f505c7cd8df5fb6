"""LowRankLocalConv1d and 2d: against the module with a kernel for every position, and every way of PyTorch to run."""

import copy
import io
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from localconv.core import banked  # noqa: E402
from localconv.torch import LocalConv1d, LocalConv2d, LowRankLocalConv1d, LowRankLocalConv2d, banks, portable  # noqa: E402

WINDOWS = [
    {},
    {"padding": "same"},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "bias": "shared"},
    {"groups": 2, "bias": False},
    {"padding": ((1, 0), (0, 2))},
]
KINDS = [{}, {"normalize_weights": "norm"}, {"separable": True}, {"separable": True, "normalize_weights": "softmax"}]


def module_of(rank=2, terms=3, dtype=torch.float64, **options):
    torch.manual_seed(0)
    if rank == 1 and isinstance(options.get("padding"), tuple):
        options["padding"] = options["padding"][:1]
    made = LowRankLocalConv1d if rank == 1 else LowRankLocalConv2d
    module = made(4, 6, 3, (9, 8)[:rank], terms, dtype=dtype, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def images(module, batch=2, requires_grad=True):
    torch.manual_seed(1)
    size = batch, module.in_channels, *module.input_size
    return torch.randn(size, dtype=module.filters.dtype, requires_grad=requires_grad)


def gradients(module, x, compute=None):
    """The result, and the gradients for the input and all parameters."""
    y = (compute or module)(x)
    torch.manual_seed(2)
    return [
        y.detach(),
        *torch.autograd.grad(y, [x, *module.parameters()], torch.randn(y.shape, dtype=torch.float64).to(y.dtype)),
    ]


def by_operations(module):
    """The module without the kernels."""

    def compute(x):
        y = banks.in_operations(x, module.filters, module.weights, module._window)
        if module.bias is None:
            return y
        return y + module.bias.reshape(*module.bias.shape, *[1] * (y.dim() - 1 - module.bias.dim()))

    return compute


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_values_and_gradients(window, kind, last, monkeypatch):
    monkeypatch.setattr(banked.Banked, "folding_costs_less", lambda *_: last)
    module = module_of(**window, **kind)
    x = images(module)
    if last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.allclose(module(x), module.to_local()(x))
    for result, expected in zip(gradients(module, x), gradients(module, x, by_operations(module)), strict=True):
        assert torch.allclose(result, expected)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_one_dimension(window):
    module = module_of(1, **window)
    x = images(module)
    assert torch.allclose(module(x), module.to_local()(x))
    for result, expected in zip(gradients(module, x), gradients(module, x, by_operations(module)), strict=True):
        assert torch.allclose(result, expected)


def test_derivatives_of_every_order():
    torch.manual_seed(3)
    module = LowRankLocalConv2d(2, 2, 2, (4, 3), 2, dtype=torch.float64)
    x, weights = images(module, 1), torch.randn(module.weights.shape, dtype=torch.float64, requires_grad=True)

    def compute(*tensors):
        return banks.convolve_bank(*tensors, module._window)

    assert gradcheck(compute, (x, module.filters, weights, module.bias))
    assert gradgradcheck(compute, (x, module.filters, weights, module.bias))


def test_only_what_needs_a_gradient():
    module = module_of()
    x = images(module, requires_grad=False)
    module.filters.requires_grad_(False)
    module(x).sum().backward()
    assert module.filters.grad is None
    assert module.position_weights.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype):
    module, x = module_of(dtype=dtype), None
    x = images(module)
    results = gradients(module, x)
    wide = copy.deepcopy(module).double()
    expected = gradients(wide, x.detach().double().requires_grad_())
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == dtype
        assert (result.double() - value).abs().max() <= 40 * torch.finfo(dtype).eps * value.abs().max()


def test_one_image():
    module = module_of()
    x = images(module)
    assert torch.allclose(module(x[0]), module(x)[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch itself
def test_compile_export_and_transforms():
    """All of these see PyTorch's operations, and a batch of any size."""
    module = module_of(**KINDS[3])
    x = images(module, requires_grad=False)
    expected = module(x)
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
    assert all("localconv" not in str(node.target) for node in program.graph.nodes)
    assert torch.allclose(program.module()(images(module, 5)), module(images(module, 5)))
    assert torch.allclose(torch.func.vmap(module)(x[:, None]), expected[:, None])
    jacobian = torch.func.jacrev(module)(x[:1])
    assert jacobian.shape == (1, *expected.shape[1:], 1, *x.shape[1:])
    _, forward = torch.func.jvp(module, (x,), (x,))
    assert torch.allclose(forward, expected - module(torch.zeros_like(x)))
    assert module.to("meta")(x.to("meta")).shape == expected.shape


def test_begins_as_a_convolution():
    """Whatever the rank and kind: every position has the same filters, of the size that a convolution's have."""
    for kind in KINDS:
        module = LowRankLocalConv2d(4, 64, 3, (9, 8), 4, **kind)
        local = module.to_local()
        assert (local.weight == local.weight[:1]).all()
        scale = 0.5 if kind.get("normalize_weights") == "softmax" else 1.0  # a mean of four, or their sum over two
        expected = scale / (36 * 3) ** 0.5
        assert 0.9 * expected < local.weight[0].std() < 1.1 * expected


def test_copies_and_states():
    module = module_of(**KINDS[2])
    x = images(module)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = module_of(**KINDS[2])
    torch.nn.init.zeros_(other.filters)
    other.load_state_dict(torch.load(file))
    assert list(module.state_dict()) == ["filters", "row_weights", "column_weights", "bias"]
    for made in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(made(x), module(x))


def test_repr_and_to_local():
    module = module_of(padding="same", **KINDS[3])
    assert repr(module) == (
        "LowRankLocalConv2d(4, 6, kernel_size=(3, 3), input_size=(9, 8), stride=(1, 1), padding='same', rank=3, "
        "separable=True, normalize_weights='softmax')"
    )
    local = module.eval().to_local()
    assert type(local) is LocalConv2d
    assert not local.training
    assert type(module_of(1).to_local()) is LocalConv1d
    assert local.weight.shape == (72, 36, 6)


def test_memory_is_not_pinned():
    """A storage that NumPy has seen could never be resized again, which sharded training does."""
    module = module_of(dtype=torch.float32)
    x = images(module)
    module(x).sum().backward()
    for parameter in module.parameters():
        parameter.data.untyped_storage().resize_(0)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "rank must be at least 1, got 0", {"rank": 0}),
        (TypeError, "rank must be an int, got 1.5", {"rank": 1.5}),
        (TypeError, "separable must be True or False, got 1", {"separable": 1}),
        (ValueError, "normalize_weights must be None, 'softmax' or 'norm', got 'sum'", {"normalize_weights": "sum"}),
        (ValueError, "in_channels must be divisible by groups", {"groups": 3}),
        (ValueError, "input_size must be at least as large", {"input_size": 2}),
    ],
)
def test_bad_arguments(error, message, arguments):
    given = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "input_size": 8, "rank": 2, **arguments}
    with pytest.raises(error, match=message):
        LowRankLocalConv2d(**given)


def test_bad_calls():
    module = module_of()
    with pytest.raises(ValueError, match="separable must be False in one dimension"):
        LowRankLocalConv1d(4, 6, 3, 8, 2, separable=True)
    with pytest.raises(RuntimeError, match=r"Expected images of size \[4, 9, 8\]"):
        module(torch.ones(1, 4, 9, 9, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="dtype"):
        module(torch.ones(1, 4, 9, 8))
    with pytest.raises(ValueError, match=r"LowRankLocalConv2d cannot be quantized.*to_local\(\).quantize"):
        module.quantize()
    with pytest.raises(AttributeError, match="cannot be changed"):
        module.stride = 2


def test_graphs_and_files(tmp_path):
    """A leaf for torch.fx, as other modules are; in ONNX and TorchScript standard operators."""
    model = torch.nn.Sequential(module_of(dtype=torch.float32, **KINDS[3]), torch.nn.ReLU()).eval()
    x = images(model[0], requires_grad=False)
    traced = torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    assert torch.equal(traced(x), model(x))
    with portable(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.trace(model, x)
    assert "localconv::" not in str(program.inlined_graph)  # as an operator
    assert torch.allclose(program(x), model(x), atol=1e-5)
    onnx = pytest.importorskip("onnx", reason="onnx is among the tests' tools: make test-bridges installs it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the older exporter, by PyTorch itself
        torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=False)
    assert {node.domain for node in onnx.load(tmp_path / "model.onnx").graph.node} == {""}
