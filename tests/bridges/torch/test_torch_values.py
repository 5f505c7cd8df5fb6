"""What the functions of `localconv.torch` compute: 200 geometries against unfold and bmm, both formulations."""

import contextlib
import itertools
import re

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch_cases import Case, assert_near, random_cases, reference, sizes_of_sums  # noqa: E402

import localconv  # noqa: E402
from localconv.torch import autograd, fallback, functional, native  # noqa: E402

FUNCTIONS = {1: functional.local_conv1d, 2: functional.local_conv2d, 3: functional.local_conv3d}
TRANSPOSED = {
    1: functional.local_conv_transpose1d,
    2: functional.local_conv_transpose2d,
    3: functional.local_conv_transpose3d,
}


@pytest.mark.parametrize("case", random_cases(200), ids=str)
def test_values_and_gradients(case, formulation):
    """The output and all gradients, in both dtypes."""
    for dtype in (torch.float32, torch.float64):
        arguments = case.tensors(dtype, requires_grad=True)
        gradient = case.gradient(dtype)
        wide = [None if t is None else t.detach().double().requires_grad_() for t in arguments]
        expected = reference(case, *wide)
        x, weight, bias = arguments
        result = FUNCTIONS[case.rank](x, weight, case.kernel_size, bias, **case.options)
        bound, bounds = sizes_of_sums(case, *arguments, gradient)
        assert_near(result, expected, bound, case.depth + 1)
        given = [t for t in arguments if t is not None]
        found = torch.autograd.grad(result, given, gradient)
        right = torch.autograd.grad(expected, [t for t in wide if t is not None], gradient.double())
        terms = [case.depth * case.filters, case.batch, case.batch * weight.shape[0]]
        for tensor, one, other, size, count in zip(given, found, right, bounds, terms, strict=False):
            assert one.dtype == tensor.dtype
            assert_near(one, other, size, count + 1)


@pytest.mark.parametrize("case", random_cases(40, seed=1), ids=str)
def test_transposed_values(case, formulation):
    """The transpose is the gradient of the convolution for its input, of exactly the sizes that torch's has."""
    if isinstance(case.padding, (str, tuple)) and not all(isinstance(n, int) for n in case.padding):
        case = Case(**{**case.__dict__, "padding": 1})
        if min(case.output) < 1:
            pytest.skip("no window fits with that padding")
    x, weight, _ = case.tensors(torch.float64, requires_grad=True)
    y = case.gradient(torch.float64).requires_grad_()
    reach = case.window.transposed_size(case.output, (0,) * case.rank)
    left = tuple(n - r for n, r in zip(case.spatial, reach, strict=True))
    if min(reach) < 1:
        pytest.skip("padding takes all of the output")
    options = dict(case.options, output_padding=left)
    result = TRANSPOSED[case.rank](y, weight, case.kernel_size, None, **options)
    (expected,) = torch.autograd.grad(reference(case, x, weight, None), x, y)
    sizes = [t.detach().abs().requires_grad_() for t in (x, weight)]
    (bound,) = torch.autograd.grad(reference(case, *sizes, None), sizes[0], y.abs())
    assert_near(result, expected, bound, case.depth * case.filters)
    # And its own derivatives: <T(y), x> is linear in y and in the weight.
    found = torch.autograd.grad(result, (y, weight), x)
    again = reference(case, x, weight, None)
    (for_weight,) = torch.autograd.grad(again, weight, y)
    torch.testing.assert_close(found[0], again, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], for_weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("number", [4, 5, 100, 2**31, 2**62, 2**63, 2**64])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_outputs_of_impossible_sizes(rank, number, device, formulation):
    """One error, whatever computes: padding that leaves no pixel, and more pixels than a tensor has."""
    x = torch.ones(1, 1, *[5] * rank, device=device)
    weight = torch.ones(5**rank, 3**rank, 1, device=device)
    padding = (0,) * (rank - 1) + (number,)
    size = [7] * (rank - 1) + [7 - 2 * number]
    small = torch.ones(5**rank, 3**rank, 1, dtype=torch.int8, device=device)
    scales = torch.ones(5**rank, 1, device=device)
    window = functional.window_for(rank, 3, 1, padding, 1, 1)
    for given in (x, x.clone().requires_grad_(), x[0]):
        for call in (
            lambda given=given: TRANSPOSED[rank](given, weight, 3, padding=padding),
            lambda given=given: functional.transpose_int8("int8", given, small, scales, None, window, (0,) * rank),
        ):
            with pytest.raises(RuntimeError, match=rf"^Expected padding that leaves .* size {re.escape(str(size))}: "):
                call()
    if number >= 2**62:
        for options in ({"stride": number}, {"dilation": number}, {"stride": number, "output_padding": number - 1}):
            with pytest.raises(RuntimeError, match="Expected an output of at most 9223372036854775807 pixels"):
                TRANSPOSED[rank](x, weight, 3, **options)


@pytest.mark.parametrize("case", [c for c in random_cases(60, seed=7) if c.transposed_options()], ids=str)
def test_transposed_biases(case, formulation):
    """Added to the sums; of 16 bits both, which are rounded once: float32's bits, rounded."""

    def function(dtype, bias):
        weight = case.tensors(torch.float16)[1].to(dtype)
        x = case.gradient(torch.float16).to(dtype)
        return TRANSPOSED[case.rank](x, weight, case.kernel_size, bias, **case.transposed_options())

    bias = case.input_bias(torch.float16)
    for dtype in (torch.float32, torch.float64):
        if bias is not None:
            wide = bias.to(dtype)
            shown = wide.reshape(-1, *[1] * case.rank) if wide.dim() == 1 else wide
            assert torch.equal(function(dtype, wide), function(dtype, None) + shown)
    if formulation == "compiled":
        expected = function(torch.float32, None if bias is None else bias.float()).half()
        found = function(torch.float16, bias)
        assert found.dtype == torch.float16
        assert torch.equal(found, expected)


# --- padding, NaN and inf ---------------------------------------------------------------------------------------------

PADDED = [c for c in random_cases(60, seed=3) if any(c.window.padding)]


def rows_present(case):
    """Which rows of a weight meet a pixel, not padding alone: (positions, depth)."""
    x, weight, _ = (None if t is None else torch.ones_like(t) for t in case.tensors(torch.float64))
    (pixels,) = torch.autograd.grad(reference(case, x, weight.requires_grad_(), None).sum(), weight)
    return pixels[..., 0] > 0


def of_first_and_second_order(case, x, weight, bias):
    """The output, its derivatives, and those of these."""
    given = [t.clone().requires_grad_() for t in (x, weight)]
    y = FUNCTIONS[case.rank](*given, case.kernel_size, bias, **case.options)
    gradient = case.gradient().requires_grad_()
    first = torch.autograd.grad(y, given, gradient, create_graph=True)
    # The weight is among what the first order is multiplied with: its gradient stands beside a gradient's gradient.
    return [y, *first, *torch.autograd.grad(first, [gradient, *given], [x, weight])]


@pytest.mark.parametrize("case", PADDED, ids=str)
def test_weights_that_meet_padding_do_nothing(case, formulation):
    """NaN and inf in such rows: in no output and no derivative, and the derivative for them is exactly 0."""
    x, weight, bias = case.tensors()
    present = rows_present(case)
    filled = weight.clone()
    filled[~present] = torch.tensor([torch.nan, torch.inf, -torch.inf])[torch.arange(weight.shape[2]) % 3]
    weight[~present] = 0
    found = of_first_and_second_order(case, x, filled, bias)
    for one, other in zip(found, of_first_and_second_order(case, x, weight, bias), strict=True):
        assert torch.equal(one, other)
    assert (found[2][~present] == 0).all()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", PADDED, ids=str)
def test_weights_that_meet_padding_have_no_gradient(case, wrong, formulation):
    """Exactly 0, even where everything else is NaN or inf."""
    x, weight, _ = case.tensors()
    weight.requires_grad_()
    y = FUNCTIONS[case.rank](torch.full_like(x, wrong), weight, case.kernel_size, **case.options)
    (found,) = torch.autograd.grad(y, weight, torch.full_like(y, wrong))
    present = rows_present(case)
    assert (found[~present] == 0).all()
    assert not found[present].isfinite().any()


@pytest.mark.parametrize("case", random_cases(30, seed=4), ids=str)
def test_nan_and_inf_reach_what_the_kernels_say(case):
    """In all tensors, with zeros among the values: both formulations have NaN and inf in the same places."""
    tensors = [t for t in (*case.tensors(), case.gradient()) if t is not None]
    for number, value in itertools.product(range(len(tensors)), (torch.nan, torch.inf, -torch.inf)):
        given = [t.clone() for t in tensors]
        for tensor in given:
            tensor.view(-1)[::3] = 0
        given[number].view(-1)[:: max(2, given[number].numel() // 3)] = value
        results = []
        for context in (contextlib.nullcontext(), fallback.forced()):
            with context:
                leaves = [t.clone().requires_grad_() for t in given[:-1]]
                bias = leaves[2] if len(leaves) == 3 else None
                y = FUNCTIONS[case.rank](*leaves[:2], case.kernel_size, bias, **case.options)
                results.append([y.detach(), *torch.autograd.grad(y, leaves, given[-1])])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_an_infinite_weight_in_the_padding(formulation):
    weight = torch.ones(6, 3, 1)
    weight[0, 0, 0] = -torch.inf
    result = functional.local_conv1d(torch.ones(1, 1, 6), weight, 3, padding="same")
    assert result.flatten().tolist() == [2, 3, 3, 3, 3, 2]


HALF = Case((7, 6), (3, 2), batch=5, channels=4, filters=6, groups=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_once(dtype):
    """The float32 result of the same numbers, rounded."""
    arguments = case_tensors = HALF.tensors(dtype, requires_grad=True)
    wide = [t.detach().float().requires_grad_() for t in case_tensors]
    result = functional.local_conv2d(arguments[0], arguments[1], (3, 2), arguments[2], groups=2)
    expected = functional.local_conv2d(wide[0], wide[1], (3, 2), wide[2], groups=2)
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))
    gradient = HALF.gradient(dtype)
    found = torch.autograd.grad(result, arguments, gradient)
    right = torch.autograd.grad(expected, wide, gradient.float())
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other.to(dtype), rtol=0 if one.dim() == 3 else 1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", random_cases(60, seed=2), ids=str)
def test_weights_of_16_bits_give_the_bits_of_their_float32_copies(case, dtype):
    """The kernels read them as they are: output and derivatives are float32's, rounded."""
    tensors = case.tensors(dtype, requires_grad=True)
    wide = [None if t is None else t.detach().float().requires_grad_() for t in tensors]
    results = [
        FUNCTIONS[case.rank](x, weight, case.kernel_size, bias, **case.options) for x, weight, bias in (tensors, wide)
    ]
    assert results[0].dtype == dtype
    assert torch.equal(results[0], results[1].to(dtype))
    gradient = case.gradient(dtype)
    found = torch.autograd.grad(results[0], tensors[:2], gradient)
    for one, other in zip(found, torch.autograd.grad(results[1], wide[:2], gradient.float()), strict=True):
        assert torch.equal(one, other.to(dtype))


def layouts(tensor):
    """The same values otherwise in memory."""
    yield "contiguous", tensor.clone()
    yield "channels_last", tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    yield "strided", torch.stack([tensor, tensor], -1)[..., 0]
    yield (
        "reversed axes",
        tensor.permute(*reversed(range(tensor.dim()))).contiguous().permute(*reversed(range(tensor.dim()))),
    )
    yield "negated", torch._neg_view(-tensor)


PLAIN = Case((6, 5), (2, 3), batch=3, channels=4, filters=5)


def test_memory_formats():
    """Of what PyTorch calls channels_last nothing is copied, and so is the output's memory."""
    for case, memory_format in (
        (PLAIN, torch.channels_last),
        (Case((4, 3, 5), (2, 2, 3), channels=4, filters=5), torch.channels_last_3d),
    ):
        x, weight, bias = case.tensors()
        y = FUNCTIONS[case.rank](x, weight, case.kernel_size, bias)
        assert y.is_contiguous(memory_format=memory_format)
        given = x.to(memory_format=memory_format)
        assert native._channels_last(given, native.SINGLE).data_ptr() == given.data_ptr()
        assert torch.equal(FUNCTIONS[case.rank](given, weight, case.kernel_size, bias), y)


def test_memory_layouts():
    x, weight, bias = PLAIN.tensors(torch.float64)
    expected = functional.local_conv2d(x, weight, PLAIN.kernel_size, bias)
    for _, given in layouts(x):
        for _, rows in layouts(weight):
            for _, terms in layouts(bias):
                before = given.clone(), rows.clone(), terms.clone()
                result = functional.local_conv2d(given, rows, PLAIN.kernel_size, terms)
                assert torch.equal(result, expected)
                assert all(torch.equal(one, other) for one, other in zip(before, (given, rows, terms), strict=True))
    gradient = PLAIN.gradient(torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = functional.local_conv2d(leaves[0], leaves[1], PLAIN.kernel_size, leaves[2])
    right = torch.autograd.grad(y, leaves, gradient, retain_graph=True)
    for _, given in layouts(gradient):
        found = torch.autograd.grad(y, leaves, given, retain_graph=True)
        for one, other in zip(found[:2], right[:2], strict=True):
            assert torch.equal(one, other)
        torch.testing.assert_close(found[2], right[2])


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("transposed", [False, True])
def test_zeros_without_memory(number, transposed, formulation):
    """What autograd makes of derivatives known to be 0: as input, weight or bias, with and without a gradient."""
    function = functional.local_conv_transpose2d if transposed else functional.local_conv2d
    x, weight, bias = PLAIN.tensors(torch.float64)
    tensors = (
        [PLAIN.gradient(torch.float64), weight, PLAIN.input_bias(torch.float64)] if transposed else [x, weight, bias]
    )
    zero = torch._efficientzerotensor(tensors[number].shape, dtype=torch.float64)
    filled = [torch.zeros_like(t) if n == number else t for n, t in enumerate(tensors)]
    x, weight, bias = (zero if n == number else t for n, t in enumerate(tensors))
    expected = function(filled[0], filled[1], (2, 3), filled[2])
    assert torch.equal(function(x, weight, (2, 3), bias), expected)
    for given, alike in zip((x, weight, bias), filled, strict=True):
        leaves = [t.detach().requires_grad_() for t in (given, alike)]
        results = [
            function(*[leaf if t is one else t for t in three[:2]], (2, 3), leaf if three[2] is one else three[2])
            for leaf, one, three in zip(leaves, (given, alike), ((x, weight, bias), filled), strict=True)
        ]
        assert torch.equal(*results)
        cotangent = torch.randn_like(expected)
        assert torch.equal(
            *(torch.autograd.grad(y, leaf, cotangent)[0] for y, leaf in zip(results, leaves, strict=True))
        )


def test_gradients_without_memory(formulation):
    """Of the output and, in the second order, of the gradients."""
    leaves = [t.requires_grad_() for t in PLAIN.tensors(torch.float64)]
    y = functional.local_conv2d(leaves[0], leaves[1], (2, 3), leaves[2])
    found = torch.autograd.grad(y, leaves, torch._efficientzerotensor(y.shape, dtype=y.dtype), create_graph=True)
    for one, leaf in zip(found, leaves, strict=True):
        assert torch.equal(one, torch.zeros_like(leaf))
    zeros = [torch._efficientzerotensor(t.shape, dtype=t.dtype) for t in leaves[:2]]
    gradient = torch.ones_like(y).requires_grad_()
    first = torch.autograd.grad(y, leaves[:2], gradient, create_graph=True)
    for one in torch.autograd.grad(first, [gradient, *leaves[:2]], zeros):
        assert not one.any()


def test_expanded_tensors():
    """Views that read one number many times."""
    x = torch.randn(1, 4, 1, 5, dtype=torch.float64).expand(3, 4, 6, 5)
    weight = torch.randn(15, 24, 1, dtype=torch.float64).expand(15, 24, 5)
    y = functional.local_conv2d(x, weight, (2, 3))
    torch.testing.assert_close(y, functional.local_conv2d(x.clone(), weight.clone(), (2, 3)), rtol=0, atol=0)


def test_views_that_require_gradients():
    base = torch.randn(4, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    _, weight, _ = PLAIN.tensors(torch.float64)
    x = base.permute(3, 0, 1, 2)
    functional.local_conv2d(x, weight, (2, 3)).square().sum().backward()
    leaf = x.detach().clone().requires_grad_()
    functional.local_conv2d(leaf, weight, (2, 3)).square().sum().backward()
    torch.testing.assert_close(base.grad.permute(3, 0, 1, 2), leaf.grad)


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone(wanted):
    arguments = PLAIN.tensors(torch.float64)
    everything = [t.clone().requires_grad_() for t in arguments]
    arguments[wanted].requires_grad_()
    gradient = PLAIN.gradient(torch.float64)
    found, right = [
        torch.autograd.grad(functional.local_conv2d(x, w, (2, 3), b), wanted_from, gradient)[0]
        for (x, w, b), wanted_from in ((arguments, arguments[wanted]), (everything, everything[wanted]))
    ]
    assert torch.equal(found, right)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched(rank):
    case = Case((6, 5, 4)[:rank], (2, 3, 2)[:rank])
    x, weight, bias = case.tensors()
    function, transposed = FUNCTIONS[rank], TRANSPOSED[rank]
    y = function(x, weight, case.kernel_size, bias)
    assert torch.equal(function(x[1], weight, case.kernel_size, bias), y[1])
    back = transposed(y, weight, case.kernel_size)
    assert torch.equal(transposed(y[1], weight, case.kernel_size), back[1])


@pytest.mark.parametrize("shape", [(0, 2, 6, 5), (2, 2, 6, 5)])
def test_empty_batches(shape, formulation):
    x = torch.randn(shape, requires_grad=True)
    weight, bias = torch.randn(20, 8, 3, requires_grad=True), torch.randn(3, 5, 4, requires_grad=True)
    y = functional.local_conv2d(x, weight, 2, bias)
    assert y.shape == (shape[0], 3, 5, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert (weight.grad == 0).all() == (shape[0] == 0)


def test_what_is_direct_and_what_goes_through_the_dispatcher():
    x, weight, bias = PLAIN.tensors()
    assert autograd.is_direct(x, weight, bias)
    with torch.autocast("cpu"):
        assert not autograd.is_direct(x, weight, bias)
    with torch.profiler.profile() as profile:
        functional.local_conv2d(x, weight, (2, 3), bias)
    assert "localconv::local_conv" in {event.name for event in profile.events()}
    with fallback.forced():
        assert not autograd.is_direct(x, weight, bias)
    assert not autograd.is_direct(x.to("meta"), weight, bias)


def test_functions_for_numpy_name_this_package():
    """What they say to tensors that NumPy cannot read, and that they take the others."""
    kernel = torch.nn.Parameter(torch.ones(7, 9, 4))
    x = torch.ones(2, 9, 3)
    with pytest.raises(TypeError, match=r"^kernel must be .*got Parameter \(Can't call numpy.*; localconv\.torch "):
        localconv.local_conv1d(x, kernel, 3, 1, "channels_last")
    with pytest.raises(TypeError, match=r"inputs of layer .*requires grad.*; localconv\.torch "):
        localconv.layers.Dense(2)(x.clone().requires_grad_())
    with pytest.raises(TypeError, match=r"^The added layer.*localconv\.torch has layers"):
        localconv.layers.Sequential([torch.nn.Linear(2, 2)])
    assert localconv.local_conv1d(x, kernel.detach(), 3, 1, "channels_last").shape == (2, 7, 4)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("transposed", [False, True])
def test_storages_that_became_smaller(number, transposed):
    """A tensor keeps its sizes when its storage is resized: what is not there is not read."""
    function = functional.local_conv_transpose2d if transposed else functional.local_conv2d
    x, weight, bias = (tensor.clone() for tensor in PLAIN.tensors(torch.float64))
    tensors = (
        [PLAIN.gradient(torch.float64), weight, PLAIN.input_bias(torch.float64)] if transposed else [x, weight, bias]
    )
    tensors[number].untyped_storage().resize_(8)
    with pytest.raises(RuntimeError, match=r"lie in its storage|out of bounds"):
        function(tensors[0], tensors[1], (2, 3), tensors[2])
