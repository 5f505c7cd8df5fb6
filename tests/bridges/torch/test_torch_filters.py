"""Filters that come with the data in `localconv.torch`: values, derivatives and transforms, by both formulations."""

import contextlib
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import localconv  # noqa: E402
import localconv.torch as lt  # noqa: E402
from localconv.torch import fallback  # noqa: E402

# Forward-mode derivatives and inductor run code of PyTorch's own that warns of this.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")

OPERATORS = torch.ops.localconv
KERNELS = {"compiled": contextlib.nullcontext, "torch": fallback.forced}


@pytest.fixture(params=KERNELS)
def formulation(request):
    """Localconv's kernels, or PyTorch's operations as other devices use them."""
    with KERNELS[request.param]():
        yield request.param


def made(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def geometries(count):
    """Windows that fit: rank, input size, kernel_size, and the options of both worlds."""
    draw = random.Random(5)
    for _ in range(count):
        rank = draw.choice([1, 2, 2, 3])
        size = tuple(draw.randint(1, 4) for _ in range(rank))
        dilation = tuple(draw.choice([1, 1, 2]) for _ in range(rank))
        kind = draw.choice(["valid", "same", "inside", "pairs", "ints"])
        stride = (1,) * rank if kind in ("same", "inside") else tuple(draw.choice([1, 1, 2]) for _ in range(rank))
        spatial = tuple(k * d + draw.randint(0, 6) for k, d in zip(size, dilation, strict=True))
        padding = {
            "pairs": tuple((draw.randint(0, 2), draw.randint(0, 3)) for _ in range(rank)),
            "ints": tuple(draw.randint(0, 2) for _ in range(rank)),
        }.get(kind, kind)
        groups, batch = draw.choice([1, 1, 2, 3]), draw.choice([1, 2, 3])
        yield spatial, size, stride, padding, dilation, groups, batch, groups * draw.choice([1, 2, 5, 17])


def by_numpy(name, padding, size, dilation, **options):
    """The function of NumPy arrays for the same window, (N, C, ...)."""
    if padding == "same":  # PyTorch's: of an odd number of pixels the one more is at the end
        totals = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    elif not isinstance(padding, str) and isinstance(padding[0], int):
        padding = tuple((n, n) for n in padding)
    function = getattr(localconv, f"{name}{len(size)}d")

    def called(*arrays):
        arrays = [array.detach().double().numpy() for array in arrays]
        chosen = {"padding": padding, "dilation_rate": dilation, "data_format": "channels_first"} | options
        return torch.from_numpy(function(*arrays, size, **chosen))

    return called


def assert_near(result, expected, bound, terms):
    """Within what rounding in the result's dtype explains; bound: the sums of absolute products."""
    assert result.shape == expected.shape
    eps = torch.finfo(result.dtype).eps
    assert (result.double() - expected).abs().le((terms + 2) * eps * bound.abs() + 1e-30).all()


@pytest.mark.parametrize("geometry", list(geometries(100)), ids=str)
def test_values_and_gradients(geometry, formulation):
    """In both memory formats: the two functions, and their gradients, which are the third sum and each other's."""
    spatial, size, stride, padding, dilation, groups, batch, channels = geometry
    window = (stride, padding, dilation, groups)
    filtering = by_numpy("local_filter", padding, size, dilation, strides=stride, groups=groups)
    correlating = by_numpy("local_correlation", padding, size, dilation, strides=stride, groups=groups)
    function = getattr(lt, f"local_filter{len(size)}d")
    correlation = getattr(lt, f"local_correlation{len(size)}d")
    x = made(batch, channels, *spatial)
    output = tuple(
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, k, d, s, pads in zip(spatial, size, dilation, stride, _pairs(padding, size, dilation), strict=True)
    )
    if padding == "inside":
        output = spatial
    taps = int(np.prod(size))
    filters, y = made(batch, groups * taps, *output, seed=1), made(batch, channels, *output, seed=2)
    terms = taps * channels + 8
    for permuted in (False, True):
        given = [_in_memory(t, permuted).requires_grad_() for t in (x, filters, y)]
        result = function(given[0], given[1], size, *window)
        assert_near(result, filtering(x, filters), filtering(x.abs(), filters.abs()), taps)
        for_x, for_filters = torch.autograd.grad(result, given[:2], given[2].detach())
        products = correlation(given[0].detach(), given[2].detach(), size, *window)
        bound = correlating(x.abs(), y.abs())
        assert_near(products, correlating(x, y), bound, channels)
        assert_near(for_filters, correlating(x, y), bound, channels)
        # <filter(x, w), y> = <x, adjoint(w, y)>
        left, right = (result.double() * y).sum(), (for_x.double() * x).sum()
        total = (filtering(x.abs(), filters.abs()) * y.abs()).sum()
        assert (left - right).abs() <= terms * torch.finfo(torch.float32).eps * total


def _pairs(padding, size, dilation):
    if padding == "same":
        return [(d * (k - 1), 0) for k, d in zip(size, dilation, strict=True)]
    if isinstance(padding, str):
        return [(0, 0)] * len(size)
    return [pads if isinstance(pads, tuple) else (pads, pads) for pads in padding]


def _in_memory(tensor, permuted):
    """A copy, whose memory is channels_last if permuted."""
    if not permuted:
        return tensor.clone()
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("padding", [1, "inside", ((0, 2), (1, 0))], ids=str)
@pytest.mark.parametrize("one", [False, True])
def test_derivatives_of_any_order(formulation, padding, one):
    x = made(2, 4, 4, 5, dtype=torch.float64).requires_grad_()
    window = {"kernel_size": (2, 3), "padding": padding, "groups": 2}
    output = {1: (5, 5), "inside": (4, 5)}.get(padding, (5, 4))
    filters = made(1 if one else 2, 12, *output, seed=1, dtype=torch.float64).requires_grad_()
    y = made(2, 4, *output, seed=2, dtype=torch.float64).requires_grad_()

    def filtered(x, filters):
        return lt.local_filter2d(x, filters, **window)

    def correlated(x, y):
        return lt.local_correlation2d(x, y, **window)

    for function, operands in ((filtered, (x, filters)), (correlated, (x, y))):
        assert gradcheck(function, operands, check_forward_ad=True)
        assert gradgradcheck(function, operands)


@pytest.mark.parametrize("name", ["local_filter", "local_filter_input", "local_filter_filters"])
@pytest.mark.parametrize("permuted", [False, True])
def test_operators(name, permuted):
    """Schemas, fakes, registrations and derivatives, as PyTorch checks them."""
    x, filters, y = (
        _in_memory(made(*shape, seed=seed), permuted)
        for seed, shape in enumerate([(2, 4, 5, 6), (2, 18, 5, 6), (2, 4, 5, 6)])
    )
    window = ([3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 2)
    operands = {
        "local_filter": (x.requires_grad_(), filters.requires_grad_()),
        "local_filter_input": (list(x.shape), filters.requires_grad_(), y.requires_grad_()),
        "local_filter_filters": (x.requires_grad_(), list(filters.shape), y.requires_grad_()),
    }[name]
    torch.library.opcheck(getattr(OPERATORS, name), (*operands, *window))


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("one", [False, True])
def test_vmap(formulation, dims, one):
    many = [made(3, 2, 4, 5, 6), made(3, 1 if one else 2, 18, 5, 6, seed=1)]
    batches = [t[0] if dim is None else t.movedim(0, dim) for t, dim in zip(many, dims, strict=True)]

    def function(x, filters):
        return lt.local_filter2d(x, filters, 3, padding="same", groups=2)

    def gradients(x, filters):
        return torch.func.grad(lambda *operands: function(*operands).square().sum(), argnums=(0, 1))(x, filters)

    results = torch.vmap(function, dims)(*batches), *torch.vmap(gradients, dims)(*batches)
    for number in range(3):
        operands = [t[0] if dim is None else t[number] for t, dim in zip(many, dims, strict=True)]
        for result, expected in zip(results, (function(*operands), *gradients(*operands)), strict=True):
            torch.testing.assert_close(result[number], expected)


def test_compiled_with_a_dynamic_batch():
    """Forward and backward in one graph, for batches of any size."""

    def step(x, filters):
        weights = torch.softmax(lt.local_correlation2d(x, x, 3, padding="inside"), 1)
        return lt.local_filter2d(x, weights * filters, 3, padding="inside").square().mean()

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5):
        x, filters = made(batch, 4, 6, 7).requires_grad_(), made(batch, 9, 6, 7, seed=1).requires_grad_()
        expected = torch.autograd.grad(step(x, filters), (x, filters))
        for one, other in zip(torch.autograd.grad(compiled(x, filters), (x, filters)), expected, strict=True):
            torch.testing.assert_close(one, other)


def test_exported():
    class Module(torch.nn.Module):
        def forward(self, x, filters):
            return lt.local_filter2d(x, filters, 3, padding=1)

    batch = torch.export.Dim("batch", min=2)
    example = made(2, 4, 6, 7), made(2, 9, 6, 7, seed=1)
    program = torch.export.export(Module(), example, dynamic_shapes=({0: batch}, {0: batch}))
    operands = made(5, 4, 6, 7), made(5, 9, 6, 7, seed=1)
    torch.testing.assert_close(program.module()(*operands), Module()(*operands))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(formulation, dtype):
    """Filters of 16 bits with data of float32 are read as they are; data of 16 bits are rounded once."""
    x, filters = made(2, 4, 6, 7), made(2, 9, 6, 7, seed=1).to(dtype).requires_grad_()
    wide = filters.detach().float()
    result = lt.local_filter2d(x, filters, 3, padding=1)
    torch.testing.assert_close(result, lt.local_filter2d(x, wide, 3, padding=1))
    (gradient,) = torch.autograd.grad(result.sum(), filters)
    assert gradient.dtype == dtype
    half = x.to(dtype)
    expected = lt.local_filter2d(half.float(), wide, 3, padding=1).to(dtype)
    torch.testing.assert_close(lt.local_filter2d(half, filters, 3, padding=1), expected)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_outside_is_not_multiplied(formulation, value):
    filters = torch.ones(1, 3, 5)
    filters[0, 0, 0] = filters[0, 2, -1] = value
    result = lt.local_filter1d(torch.ones(1, 2, 5), filters, 3, padding=1)
    assert result[0, 0].tolist() == [2, 3, 3, 3, 2]


def test_one_filter_for_all_images(formulation):
    x, one = made(3, 4, 6, 7).requires_grad_(), made(1, 9, 6, 7, seed=1).requires_grad_()
    full = one.expand(3, -1, -1, -1)
    results = [lt.local_filter2d(x, filters, 3, padding="inside") for filters in (one, full.contiguous())]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad(result.square().sum(), (x, one)) for result in results]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
def test_vmap_refuses_what_one_call_refuses(formulation, dims):
    """Queries, gradients and filters of a batch that does not fit the images of one call."""
    window = ([3], [1], [1, 1], [1], 1)
    x, one, taps = made(2, 3, 4, 9), made(2, 1, 4, 9), made(2, 3, 3, 9)
    calls = [
        (lambda x, y: lt.local_correlation1d(x, y, 3, padding=1), x, one),
        (lambda filters, y: OPERATORS.local_filter_input([3, 4, 9], filters, y, *window), taps, one),
        (lambda x, y: OPERATORS.local_filter_filters(x, [2, 3, 9], y, *window), x, x),
        (lambda x, filters: lt.local_filter1d(x, filters, 3, padding=1), x, taps[:, :2]),
    ]
    for function, *many in calls:
        operands = [t[0] if dim is None else t for t, dim in zip(many, dims, strict=True)]
        with pytest.raises(RuntimeError, match=r"Expected (queries|filters)") as alone:
            function(*[t[0] for t in many])
        with pytest.raises(RuntimeError, match=r"Expected (queries|filters)") as together:
            torch.vmap(function, dims)(*operands)
        assert str(together.value) == str(alone.value)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"filters": np.ones((2, 9, 6, 7))}, TypeError, "filters"),
        ({"input": made(4, 6, 7)}, RuntimeError, "unsqueeze"),
        ({"filters": made(2, 8, 6, 7)}, RuntimeError, "groups \\* prod\\(kernel_size\\)"),
        ({"filters": made(3, 9, 6, 7)}, RuntimeError, "may be 1"),
        ({"filters": made(2, 9, 6, 7).double()}, RuntimeError, "dtype"),
        ({"padding": "full"}, ValueError, "'inside'"),
        ({"padding": "inside", "stride": 2}, ValueError, "stride must be 1"),
        ({"padding": "inside", "kernel_size": 9}, RuntimeError, "at most the input's size"),
        ({"groups": 3}, RuntimeError, "groups"),
        ({"kernel_size": 0}, ValueError, "kernel_size"),
    ],
    ids=str,
)
def test_wrong_arguments(formulation, change, error, words):
    given = {"input": made(2, 4, 6, 7), "filters": made(2, 9, 6, 7), "kernel_size": 3, "padding": 1} | change
    with pytest.raises(error, match=words):
        lt.local_filter2d(**given)


def test_wrong_queries(formulation):
    with pytest.raises(RuntimeError, match="queries"):
        lt.local_correlation2d(made(2, 4, 6, 7), made(2, 4, 6, 6), 3, padding=1)
    with pytest.raises(TypeError, match="queries"):
        lt.local_correlation2d(made(2, 4, 6, 7), None, 3, padding=1)
