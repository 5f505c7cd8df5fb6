"""Triton's kernels, by its interpreter on the processor: against the formulation in PyTorch's operations."""

import copy
import os
import random
import sys

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

# Read when Triton is imported, and by every kernel that is made then: nothing else in this process may have done so.
INTERPRETED = "TRITON_INTERPRET"
pytest.importorskip("triton", reason="Triton has wheels for Linux alone")
if os.environ.get(INTERPRETED) != "1":
    pytest.skip(
        f"needs {INTERPRETED}=1 from the start, as `make test-bridges` sets it for this file", allow_module_level=True
    )

from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

import localconv.torch as lt  # noqa: E402
from localconv.core.families import FILTER  # noqa: E402
from localconv.torch import fallback  # noqa: E402
from localconv.torch.functional import window_for  # noqa: E402

DTYPES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(autouse=True)
def kernels():
    lt.use_triton(True)
    yield
    lt.use_triton(False)


def geometry(seed, of_filters=False, inside=False):
    """Few positions, for the interpreter takes milliseconds for each; channels, filters and images around the blocks of
    the kernels, and what may be odd about a window.
    """
    draw = random.Random(seed)
    rank = 2 if inside and seed % 5 else draw.choice((1, 1, 2, 2, 3))
    size = [draw.randint(1, 4 - rank) + (rank == 3) * draw.randint(0, 1) for _ in range(rank)]
    dilation = [draw.choice((1, 1, 2)) for _ in range(rank)]
    stride = [1 if inside else draw.choice((1, 1, 2, 3)) for _ in range(rank)]
    padding = "inside" if inside else [(draw.randint(0, 2), draw.randint(0, 1)) for _ in range(rank)]
    spatial = [k * d + draw.randint(0, 2 - rank // 2) for k, d in zip(size, dilation, strict=True)]
    groups = draw.choice((1, 1, 2, 3))
    batch = draw.choice((1, 2, 3, 8, 17)) if rank < 3 and not of_filters else 2
    channels, filters = groups * draw.choice((1, 2, 5, 17)), groups * draw.choice((1, 3, 16, 33))
    window = {"kernel_size": size, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return rank, (batch, channels, *spatial), filters, window


def compared(compute, operands, tolerance, dtype):
    """A result and its gradients by the kernels, in a dtype, against the formulation's in float64."""
    results = []
    for kind in (dtype, torch.float64):
        given = [t.to(dtype).to(kind).requires_grad_() for t in operands]
        if kind is torch.float64:
            lt.use_triton(False)
        with fallback.forced():
            y = compute(*given)
            torch.manual_seed(1)
            g = torch.randn(y.shape, dtype=torch.float64).to(dtype).to(kind)
            results.append([y.detach(), *torch.autograd.grad(y, given, g)])
    lt.use_triton(True)
    for result, expected in zip(*results, strict=True):
        assert result.dtype == dtype
        scale = max(1.0, expected.abs().max().item())
        assert (result.double() - expected).abs().max().item() <= tolerance * scale * (8 if dtype.itemsize == 2 else 1)


@pytest.mark.parametrize("seed", range(100))
def test_local_conv(seed):
    rank, size, filters, window = geometry(seed)
    function = getattr(lt, f"local_conv{rank}d")
    output = window_for(rank, *window.values()).output_size(size[2:])
    if min(output) < 1:
        window["padding"] = [(3, 3)] * rank
        output = window_for(rank, *window.values()).output_size(size[2:])
    torch.manual_seed(seed)
    depth = torch.tensor(window["kernel_size"]).prod().item() * size[1] // window["groups"]
    weight = torch.randn(torch.tensor(output).prod().item(), depth, filters)
    bias = torch.randn(filters) if seed % 3 else torch.randn(filters, *output)
    dtype = list(DTYPES)[seed % 4]
    compared(lambda x, w, b: function(x, w, bias=b, **window), (torch.randn(size), weight, bias), DTYPES[dtype], dtype)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("seed", range(50))
def test_filters(seed, inside):
    rank, size, _, window = geometry(seed, True, inside)
    output = window_for(rank, *window.values(), FILTER).output_size(size[2:])
    if min(output) < 1:
        window["padding"] = [(3, 3)] * rank
        output = window_for(rank, *window.values(), FILTER).output_size(size[2:])
    torch.manual_seed(seed)
    taps = torch.tensor(window["kernel_size"]).prod().item()
    x = torch.randn(size)
    filters = torch.randn(size[0] if seed % 3 else 1, window["groups"] * taps, *output)
    queries = torch.randn(size[0], size[1], *output)
    if seed % 3 and rank == 2:
        x = x.contiguous(memory_format=torch.channels_last)
    dtype = list(DTYPES)[seed % 4]
    filtered, correlated = getattr(lt, f"local_filter{rank}d"), getattr(lt, f"local_correlation{rank}d")
    # Each has the other two for its gradients.
    if seed % 2:
        compared(lambda x, f: filtered(x, f, **window), (x, filters), DTYPES[dtype], dtype)
    else:
        compared(lambda x, q: correlated(x, q, **window), (x, queries), DTYPES[dtype], dtype)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_padding_is_not_multiplied(value):
    """Weights that meet padding do nothing, whatever they hold, and their gradient is 0."""
    weight = torch.zeros(4, 3, 2)
    weight[0, 0], weight[3, 2] = value, value
    x, g = torch.ones(20, 1, 4), torch.full((20, 2, 4), value)
    y = lt.local_conv1d(x, weight, kernel_size=3, padding=1)
    assert torch.isfinite(y).all()
    gradient = torch.ops.localconv.local_conv_weight(x, weight.shape, g, [3], [1], [1, 1], [1], 1)
    assert (gradient[0, 0] == 0).all()
    assert (gradient[3, 2] == 0).all()
    filters = torch.zeros(1, 3, 4)
    filters[0, 0, 0] = filters[0, 2, 3] = value
    assert torch.isfinite(lt.local_filter1d(x, filters, 3, padding=1)).all()


def test_int8_and_transposed():
    torch.manual_seed(0)
    layer = lt.LocalConv2d(2, 3, 2, 3).quantize()
    x = torch.randn(3, 2, 3, 3)
    by_kernels = layer(x)
    up = lt.LocalConvTranspose2d(2, 3, 2, 2, stride=2)
    made = up(torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(1)))
    lt.use_triton(False)
    assert torch.allclose(by_kernels, layer(x), atol=1e-5)
    assert torch.allclose(made, up(torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(1))), atol=1e-5)


def test_compiled_programs_and_fakes():
    """The operators are what compilation sees, with or without these kernels."""
    layer = lt.LocalConv2d(2, 3, 2, 3)
    x = torch.randn(3, 2, 3, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)
    assert layer.to("meta")(x.to("meta")).shape == (3, 3, 2, 2)


@pytest.fixture
def mesh(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, fully_shard])
def test_wrapped_modules(mesh, wrap):
    """A step of a module that DDP or FSDP has wrapped, against the formulation's of the plain one."""
    torch.manual_seed(0)
    plain = nn.Sequential(lt.LocalConv2d(2, 3, 2, 3), nn.ReLU(), lt.LocalConv2d(3, 2, 2, 2))
    wrapped, x = wrap(copy.deepcopy(plain)), torch.randn(3, 2, 3, 3)
    wrapped(x).square().sum().backward()
    lt.use_triton(False)
    with fallback.forced():
        plain(x).square().sum().backward()
    for parameter, expected in zip(wrapped.parameters(), plain.parameters(), strict=True):
        found = parameter.grad.full_tensor() if wrap is fully_shard else parameter.grad
        assert torch.allclose(found, expected.grad, rtol=1e-5, atol=1e-5)


def test_no_images():
    assert lt.local_conv1d(torch.ones(0, 1, 4), torch.ones(2, 3, 2), kernel_size=3).shape == (0, 2, 2)


def test_bad_switches():
    with pytest.raises(TypeError, match="enabled must be True or False, got 1"):
        lt.use_triton(1)


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "localconv.torch.triton_kernels")
    monkeypatch.delattr(lt, "triton_kernels")
    with pytest.raises(ImportError, match="use_triton needs Triton"):
        lt.use_triton(True)
