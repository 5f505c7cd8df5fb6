"""Weights of int8: values, derivatives, transforms, compilation, and modules that were quantized."""

import copy
import dataclasses
import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vmap  # noqa: E402
from torch_cases import Case, assert_near, lying, random_cases, reference, sizes_of_sums  # noqa: E402

import localconv  # noqa: E402
from localconv.torch import (  # noqa: E402
    LazyLocalConv2d,
    LocalConv1d,
    LocalConv2d,
    LocalConv3d,
    LocalConvTranspose1d,
    LocalConvTranspose2d,
    LocalConvTranspose3d,
    autograd,
    modules,
    operators,
    to_keras,
    to_snippet,
)

pytestmark = [
    # PyTorch's own use of what it deprecates, when forward mode is first asked for.
    pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning"),
    # The operators are linear in what is differentiated: differences over a step of 1 have float32's digits.
    pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double precision:UserWarning"),
]

MODULES = {1: LocalConv1d, 2: LocalConv2d, 3: LocalConv3d}
TRANSPOSED = {1: LocalConvTranspose1d, 2: LocalConvTranspose2d, 3: LocalConvTranspose3d}
CASES = {
    "1d": Case((7,), (3,), batch=2, channels=2, filters=3),
    "2d": Case((4, 3), (2, 3), batch=2, channels=1, filters=2, padding=1, stride=(2, 1), bias="shared"),
    "groups": Case((5, 4), (3, 1), batch=3, channels=2, filters=1, groups=2, dilation=(2, 1)),
    "no bias": Case((5,), (2,), batch=3, channels=2, filters=2, padding="same", bias="none"),
    "3d": Case((2, 3, 4), (2, 1, 2), batch=2, channels=1, filters=1, groups=2, padding=(0, 1, 0), stride=(1, 2, 1)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def module_of(case, dtype=torch.float32):
    """A module with the weights of a case, not yet quantized."""
    _, weight, bias = case.tensors(dtype)
    kind = {"full": True, "shared": "shared", "none": False}[case.bias]
    sizes = case.channels * case.groups, case.filters * case.groups, case.kernel_size, case.spatial
    module = MODULES[case.rank](*sizes, **case.options, bias=kind, dtype=dtype)
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module


def weight_of(module):
    """What an int8 module computes with, in float64 and without rounding."""
    return module.weight_values.double() * module.weight_scales.double().unsqueeze(-2)


def operator_calls(case, dtype=torch.float32):
    """The arguments of both operators."""
    module = module_of(case).quantize()
    (x, _, bias), y, window = case.tensors(dtype), case.gradient(dtype), case.window.arguments
    values, scales = module.weight_values, module.weight_scales
    return {
        operators.local_conv_int8: (x, values, scales, bias, *window),
        operators.local_conv_input_int8: (list(x.shape), values, scales, y, case.input_bias(dtype), *window),
    }


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("case", random_cases(80, seed=5), ids=str)
def test_values_and_gradients(case, formulation):
    """Of the product of values and scales; and within half a scale a weight of what the float module makes."""
    module = module_of(case)
    exact, weight = module.weight.detach().double(), weight_of(module.quantize())
    x, _, bias = case.tensors(requires_grad=True)
    gradient = case.gradient()
    if module.bias is None:
        given, made = [x], [x]
    else:
        given, made = [x, module.bias], [x, bias]
    y = module(x)
    found = torch.autograd.grad(y, given, gradient)
    wide = [t.detach().double().requires_grad_() for t in made]
    expected = reference(case, wide[0], weight, *wide[1:], *[None] * (2 - len(wide)))
    right = torch.autograd.grad(expected, wide, gradient.double())
    bound, bounds = sizes_of_sums(case, x, weight, bias, gradient)
    assert_near(y, expected, bound, case.depth + 2)
    terms = [case.depth * case.filters + 1, case.batch * weight.shape[0]]
    for one, other, size, count in zip(found, right, [bounds[0], bounds[-1]], terms, strict=False):
        assert_near(one, other, size, count + 1)
    halves = (module.weight_scales.double() / 2).unsqueeze(-2).expand(weight.shape)
    assert ((weight - exact).abs() <= halves * (1 + 1e-6)).all()
    limit = reference(case, x.detach().double().abs(), halves, None) * (1 + 1e-6)
    difference = (expected - reference(case, wide[0], exact, *wide[1:], *[None] * (2 - len(wide)))).abs()
    assert (difference <= limit + 1e-12).all()


@pytest.mark.parametrize("kind", [LocalConv1d, LocalConvTranspose1d])
def test_weights_that_meet_padding_do_nothing(kind, formulation):
    """Infinite scales of a position whose window is all padding."""
    layer = kind(1, 1, 3, 8, padding=3, bias=False).quantize()
    x = torch.ones(1, 1, *layer.input_size, requires_grad=True)
    expected = layer(x)
    (right,) = torch.autograd.grad(expected.sum(), x)
    layer.weight_scales[0] = torch.inf
    found = layer(x)
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_once(case, dtype, formulation):
    """The float32 result of the same numbers, rounded; and so the derivatives."""
    module = module_of(case).quantize().requires_grad_()
    x, gradient = case.tensors(dtype)[0].requires_grad_(), case.gradient(dtype)
    wide = x.detach().float().requires_grad_()
    y, expected = module(x), module(wide)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    found = torch.autograd.grad(y, x, gradient)[0]
    assert found.dtype == dtype
    assert torch.equal(found, torch.autograd.grad(expected, wide, gradient.float())[0].to(dtype))
    if module.bias is not None:
        module(x).backward(gradient)
        assert module.bias.grad.dtype == torch.float32
        assert torch.equal(module.to(dtype)(x.detach()), module.float()(wide.detach()).to(dtype))


def transposed_module_of(case):
    """A module with the weight of a case's transposed convolution, not yet quantized."""
    kind = {"full": True, "shared": "shared", "none": False}[case.bias]
    sizes = case.filters * case.groups, case.channels * case.groups, case.kernel_size, case.output
    module = TRANSPOSED[case.rank](*sizes, **case.transposed_options(), bias=kind)
    with torch.no_grad():
        module.weight.copy_(case.tensors()[1])
        if module.bias is not None:
            module.bias.copy_(case.input_bias())
    return module


TRANSPOSABLE = [case for case in random_cases(60, seed=8) if case.transposed_options()]


@pytest.mark.parametrize("case", TRANSPOSABLE, ids=str)
def test_transposed_values_and_gradients(case, formulation):
    """Of the product of values and scales, in float64; `weight` of 1 and the sizes of all give the bound."""
    module = transposed_module_of(case)
    exact, weight = module.weight.detach().double(), weight_of(module.quantize())
    given, other = case.gradient().requires_grad_(), case.tensors()[0]
    y = module(given)
    for_given, *for_bias = torch.autograd.grad(y, [given] if module.bias is None else [given, module.bias], other)

    def expected_of(given, rows, bias):
        x = torch.zeros(case.tensors()[0].shape, dtype=torch.float64, requires_grad=True)
        (made,) = torch.autograd.grad(reference(case, x, rows, None), x, given)
        return made if bias is None else made + operators.broadcastable_bias(bias, case.rank)

    bias = None if module.bias is None else module.bias.detach().double()
    wide = given.detach().double()
    bound = expected_of(wide.abs(), weight.abs(), None if bias is None else bias.abs())
    assert_near(y, expected_of(wide, weight, bias), bound, case.depth * case.filters + 2)
    bound = reference(case, other.double().abs(), weight.abs(), None)
    assert_near(for_given, reference(case, other.double(), weight, None), bound, case.depth + 1)
    for found in for_bias:
        dims = (0, *range(2, other.dim())) if found.dim() == 1 else (0,)
        assert_near(found, other.double().sum(dims), other.double().abs().sum(dims), other.numel())
    halves = (module.weight_scales.double() / 2).unsqueeze(-2).expand(weight.shape)
    assert ((weight - exact).abs() <= halves * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_transposed_halves_are_rounded_once(case, dtype, formulation):
    """As those of the convolution: the bias is in before."""
    if case.transposed_options() is None:
        case = dataclasses.replace(case, padding=0)
    module = transposed_module_of(case).quantize().to(dtype)
    x, other = case.gradient(dtype).requires_grad_(), case.tensors(dtype)[0]
    wide = x.detach().float().requires_grad_()
    y, expected = module(x), copy.deepcopy(module).float()(wide)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    found, right = torch.autograd.grad(y, x, other)[0], torch.autograd.grad(expected, wide, other.float())[0]
    assert found.dtype == dtype
    assert torch.equal(found, right.to(dtype))
    assert torch.equal(module(x[0]), y[0])


def test_transposed_modules():
    """In place, with states, copies, compilation, export; and on meta."""
    module = LocalConvTranspose2d(3, 4, 2, (4, 5), stride=2, output_padding=1)
    x = torch.randn(3, 3, 4, 5)
    before = module(x)
    assert module.quantize() is module
    y = module(x)
    assert repr(module).endswith("output_padding=(1, 1), weight=int8)")
    assert list(module.state_dict()) == ["bias", "weight_values", "weight_scales"]
    assert module.weight_scales.shape == (20, 3)
    assert (y - before).abs().max() < 0.02 * before.abs().max()
    with torch.device("meta"):
        meta = LocalConvTranspose2d(3, 4, 2, (4, 5), stride=2, output_padding=1).quantize()
    assert meta(x.to("meta")).shape == y.shape
    meta.load_state_dict(module.state_dict(), assign=True)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), meta):
        assert torch.equal(other(x), y)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for images in (2, 3, 5):
        given = torch.randn(images, 3, 4, 5, requires_grad=True)
        assert torch.equal(compiled(given), module(given))
        found, expected = (torch.autograd.grad(one(given).square().sum(), given)[0] for one in (compiled, module))
        torch.testing.assert_close(found, expected)
    program = torch.export.export(module, (x,), dynamic_shapes={"input": {0: torch.export.Dim("batch", min=2)}})
    assert torch.equal(program.module()(x), y)
    with pytest.raises(AttributeError, match="quantized to int8"):
        module.weight  # noqa: B018


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layouts_and_unbatched_inputs(rank):
    """The same bits whatever the memory is like; nothing given is changed."""
    case = Case((6, 5, 4)[:rank], (2, 3, 2)[:rank])
    module, x = module_of(case).quantize(), case.tensors()[0]
    y = module(x)
    assert torch.equal(module(x[1]), y[1])
    before = x.clone()
    for given in (
        x.movedim(1, -1).contiguous().movedim(-1, 1),
        torch.stack([x, x], -1)[..., 0],
        x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim()))),
        torch._neg_view(-x),
        x[:1].expand(x.shape) * 0 + x,
    ):
        assert torch.equal(module(given), y)
        assert torch.equal(x, before)
    module.weight_values = torch.stack([module.weight_values] * 2, -1)[..., 0]
    module.weight_scales = module.weight_scales.t().contiguous().t()
    assert torch.equal(module(x), y)
    assert module(x[:0]).shape == (0, *y.shape[1:])


def test_what_is_direct_and_what_goes_through_the_dispatcher(monkeypatch):
    case = CASES["2d"]
    module, x = module_of(case).quantize(), case.tensors()[0]
    parts = x, module.weight_values, module.weight_scales, module.bias
    assert autograd.is_direct(*parts)
    expected = module(x)
    with torch.profiler.profile() as profile:
        found = module(x)
    assert "localconv::local_conv_int8" in {event.name for event in profile.events()}
    assert torch.equal(found, expected)
    monkeypatch.setattr(autograd.operators, "local_conv_int8", None)
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("name", ["weight_values", "weight_scales", "bias", "input", "gradient"])
@pytest.mark.parametrize("kind", [LocalConv2d, LocalConvTranspose2d])
def test_zeros_without_memory(kind, name, formulation):
    """As autograd makes them: what zeros with memory give."""
    results = []
    for make in (torch.zeros, torch._efficientzerotensor):
        torch.manual_seed(0)
        layer = kind(2, 3, 2, 4).quantize()
        x = torch.randn(2, 2, 4, 4)
        if name == "bias":
            layer.bias = torch.nn.Parameter(make(layer.bias.shape), False)
        elif name.startswith("weight"):
            setattr(layer, name, make(getattr(layer, name).shape, dtype=getattr(layer, name).dtype))
        elif name == "input":
            x = make(x.shape)
        leaf = x.detach().requires_grad_()
        y = layer(leaf)
        gradient = make(y.shape) if name == "gradient" else torch.ones_like(y)
        results.append((layer(x), y, torch.autograd.grad(y, leaf, gradient)[0]))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_storage_may_be_resized_after_a_call():
    module, x = LocalConv2d(2, 3, 2, (4, 4)).quantize(), torch.randn(2, 2, 4, 4, requires_grad=True)
    y = module(x)
    y.sum().backward()
    for tensor in (x, y, module.weight_values, module.weight_scales, x.grad):
        tensor.untyped_storage().resize_(0)


# --------------------------------------------------------------------------------------------------------- derivatives

LINEAR = {"eps": 1.0, "atol": 2e-4, "rtol": 1e-3, "nondet_tol": 0.0}


@pytest.mark.parametrize("number", range(2))
def test_derivatives_of_operators(case, number, formulation):
    operator, arguments = list(operator_calls(case).items())[number]
    places = [i for i, t in enumerate(arguments) if isinstance(t, torch.Tensor) and i not in (1, 2)]

    def function(*tensors):
        given = list(arguments)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return operator(*given)

    tensors = [arguments[i].requires_grad_() for i in places]
    assert gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True, **LINEAR)
    # Of a function that is not linear: the derivative depends on the input.
    x = tensors[0]
    (first,) = torch.autograd.grad(function(*tensors).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    with torch.no_grad():
        matrix = torch.func.jacrev(function)(*tensors).flatten(0, -x.dim() - 1).flatten(1).double()
        product = 2 * matrix.T @ matrix
        flat = first.detach().double().flatten()
    torch.testing.assert_close(second.double().flatten(), 2 * product @ flat, rtol=1e-4, atol=1e-3)
    assert gradgradcheck(lambda *given: function(*given), tensors, check_fwd_over_rev=True, **LINEAR)


@pytest.mark.parametrize("number", range(2))
def test_operators(case, number, formulation):
    """What `torch.library` asks of an operator: its schema, its fake, its derivatives under compilation."""
    operator, arguments = list(operator_calls(case).items())[number]
    differentiable = (0, 3) if number == 0 else (3, 4)
    arguments = [
        t.requires_grad_() if isinstance(t, torch.Tensor) and i in differentiable else t
        for i, t in enumerate(arguments)
    ]
    torch.library.opcheck(operator, arguments)


def test_transforms(case):
    """Against the same transforms of unfold and bmm with the weight that the parts stand for."""
    module = module_of(case).quantize()
    weight = weight_of(module).float()
    x, _, bias = case.tensors()
    state = dict(module.named_buffers())

    def function(x, *bias):
        return functional_call(module, state | dict(zip(["bias"], bias, strict=False)), (x,))

    def plain(x, bias=None):
        return reference(case, x, weight, bias)

    tensors = [t for t in (x, bias) if t is not None]
    numbers = tuple(range(len(tensors)))

    def loss(of):
        return lambda *given: of(*given).sin().sum()

    for transform in (
        lambda f: grad(loss(f), numbers),
        lambda f: jacrev(f, numbers),
        lambda f: jacfwd(f, numbers),
        lambda f: grad(lambda *given: grad(loss(f))(*given).square().sum()),
    ):
        torch.testing.assert_close(transform(function)(*tensors), transform(plain)(*tensors), rtol=1e-4, atol=1e-4)
    tangents = tuple(torch.randn_like(t) for t in tensors)
    expected = jvp(plain, tuple(tensors), tangents)
    torch.testing.assert_close(jvp(function, tuple(tensors), tangents), expected, rtol=1e-4, atol=1e-4)
    if len(tensors) == 2:
        alone = jvp(lambda b: function(x, b), tuple(tensors[1:]), tangents[1:])[1]
        torch.testing.assert_close(alone, operators.broadcastable_bias(tangents[1], case.rank).expand(alone.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batched", range(1, 16))
def test_vmap(case, batched, dtype):
    """Any of the tensors batched, along any axis, and the derivative for the input too."""
    window = case.window.arguments
    x, _, bias = case.tensors(dtype)
    if bias is None and batched >= 8:
        pytest.skip("the case has no bias to batch")
    models = []
    for seed in range(4):
        _, weight, _ = case.tensors(seed=seed)
        models.append(modules._quantized(weight))
    stacks = [
        torch.stack([torch.randn_like(x) for _ in range(4)]),
        *[torch.stack(parts) for parts in zip(*models, strict=True)],
        None if bias is None else torch.stack([torch.randn_like(bias) for _ in range(4)]),
    ]
    dims, given = [], []
    for number, stack in enumerate(stacks):
        if stack is None or not batched >> number & 1:
            dims.append(None)
            given.append(stack if stack is None else stack[0])
        else:
            dims.append(min(number, stack.dim() - 1))
            given.append(stack.movedim(0, dims[-1]))

    def function(x, values, scales, bias):
        return operators.local_conv_int8(x, values, scales, bias, *window)

    def derivative(x, values, scales, bias):
        return grad(lambda x: function(x, values, scales, bias).float().square().sum())(x)

    tolerances = {"rtol": 2e-2, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    for of in (function, derivative):
        found = vmap(of, tuple(dims))(*given)
        ones = [[t if d is None else t.select(d, i) for t, d in zip(given, dims, strict=True)] for i in range(4)]
        assert found.dtype == dtype
        torch.testing.assert_close(found, torch.stack([of(*one) for one in ones]), **tolerances)


def test_ensembles():
    """As PyTorch makes them: the states of many modules stacked."""
    many = [LocalConv2d(2, 3, 2, (4, 5)).quantize() for _ in range(3)]
    parameters, buffers = stack_module_state(many)
    x = torch.randn(6, 2, 4, 5)
    found = vmap(lambda p, b: functional_call(many[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([one(x) for one in many]), rtol=1e-4, atol=1e-5)


def test_weights_have_no_derivative():
    module, x = LocalConv1d(2, 3, 3, 6).quantize(), torch.randn(2, 2, 6, requires_grad=True)
    assert [name for name, _ in module.named_parameters()] == ["bias"]
    module.weight_scales.requires_grad_()
    for given in (x, x.detach()):
        with pytest.raises(RuntimeError, match="scales that require no gradient: a weight of int8 has no derivative"):
            module(given).sum().backward()
    scales = module.weight_scales.detach()
    with pytest.raises(RuntimeError, match="without a tangent: a weight of int8 has no derivative"):
        jvp(lambda s: functional_call(module, {"weight_scales": s}, (x,)), (scales,), (torch.ones_like(scales),))


# ---------------------------------------------------------------------------------------- compilation, export, devices


def network():
    torch.manual_seed(0)
    layers = LocalConv2d(3, 4, 3, (8, 8), stride=2, padding=1), torch.nn.ReLU(), LocalConv2d(4, 2, 2, 4, bias=False)
    return torch.nn.Sequential(layers[0].quantize(), layers[1], layers[2].quantize())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(backend):
    """In one graph, for any batch after the first two, and with the derivatives of eager mode."""
    if backend == "inductor":
        cpp = pytest.importorskip("torch._inductor.cpp_builder")
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            cpp.get_cpp_compiler()
        except InvalidCxxCompiler:
            pytest.skip("inductor needs a C++ compiler")
    eager = network()
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, dynamic=True, backend=backend)
    for batch in (4, 5, 9):
        given = [torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(batch)) for _ in range(2)]
        results = [one(x.requires_grad_()) for one, x in zip((eager, compiled), given, strict=True)]
        torch.testing.assert_close(*results)
        for result in results:
            result.square().sum().backward()
        torch.testing.assert_close(given[0].grad, given[1].grad)
    with torch.no_grad():
        torch.testing.assert_close(compiled(given[0]), eager(given[0]))


def test_quantized_after_compilation():
    """What was compiled for the float weight is not used for that of int8."""
    module, x = LocalConv1d(2, 3, 3, 6), torch.randn(2, 2, 6)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    before = compiled(x)
    module.quantize()
    assert torch.equal(compiled(x), module(x))
    assert not torch.equal(compiled(x), before)


def test_exported():
    """With a batch of any size, saved and loaded, the weights in int8."""
    eager = network()
    batch = torch.export.Dim("batch", min=2)
    x = torch.randn(3, 3, 8, 8)
    program = torch.export.export(eager, (x,), dynamic_shapes={"input": {0: batch}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert {name: t.dtype for name, t in loaded.state_dict.items()}["0.weight_values"] == torch.int8
    x = torch.randn(7, 3, 8, 8)
    torch.testing.assert_close(loaded.module()(x), eager(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fake_and_meta_tensors(case, dtype):
    """Sizes, dtypes and strides are those of the values."""
    from torch._subclasses import FakeTensorMode

    for operator, arguments in operator_calls(case, dtype).items():
        expected = operator(*arguments)
        meta = operator(*[t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments])
        with FakeTensorMode() as mode:
            fake = operator(*[mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in arguments])
        for found in (meta, fake):
            assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """Everything in float32, whatever dtype comes in."""
    made, x = network(), torch.randn(2, 3, 8, 8)
    expected = made(x)
    with torch.autocast("cpu", dtype):
        found, mixed = made(x), made(x.to(dtype))
    assert found.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(found, expected)


# -------------------------------------------------------------------------------------------------------------- modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_parts_are_those_of_localconv(dtype, monkeypatch):
    """In one piece and in pieces of a few positions."""
    module = LocalConv2d(3, 5, 2, 6, dtype=dtype)
    wide = module.weight.detach().to(torch.float64 if dtype == torch.float64 else torch.float32)
    expected = localconv.quantize(wide.numpy())
    for block in (modules.BLOCK, 200, 1):
        monkeypatch.setattr(modules, "BLOCK", block)
        made = copy.deepcopy(module).quantize()
        np.testing.assert_array_equal(made.weight_values.numpy(), expected.values)
        np.testing.assert_array_equal(made.weight_scales.numpy(), expected.scales)
    assert made.bias.dtype == (torch.float32 if dtype == torch.float64 else dtype)
    assert made(torch.ones(1, 3, 6, 6)).dtype == torch.float32


def test_in_place():
    module = LocalConv2d(2, 3, 2, 4, padding="same").eval()
    bias, x = module.bias, torch.randn(2, 2, 4, 4)
    same = module.quantize("int8")
    assert same is module
    assert type(module) is LocalConv2d
    assert module.bias is bias
    assert not module.training
    assert list(module.state_dict()) == ["bias", "weight_values", "weight_scales"]
    assert repr(module).endswith("padding='same', weight=int8)")
    assert module.train()(x).requires_grad
    assert not hasattr(module, "weight")
    with pytest.raises(AttributeError, match="no attribute 'weight': it was quantized to int8, for inference"):
        module.weight  # noqa: B018
    with pytest.raises(AttributeError, match="quantized to int8"):
        module.reset_parameters()
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        module.other  # noqa: B018


def test_copies_and_states():
    module = LocalConv2d(2, 3, 2, 4, padding="same").quantize()
    x = torch.randn(2, 2, 4, 4)
    y = module(x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    fresh = LocalConv2d(2, 3, 2, 4, padding="same").quantize()
    fresh.load_state_dict(state)
    with torch.device("meta"):
        meta = LocalConv2d(2, 3, 2, 4, padding="same").quantize()
    assert meta(x.to("meta")).shape == y.shape
    meta.load_state_dict(state, assign=True)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh, meta):
        assert torch.equal(other(x), y)
        assert repr(other) == repr(module)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*weight_values"):
        fresh.load_state_dict(LocalConv2d(2, 3, 2, 4).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*weight_values"):
        LocalConv2d(2, 3, 2, 4).load_state_dict(state)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", [LocalConv2d, LocalConvTranspose2d])
def test_states_of_the_other_kind(kind, strict):
    """The error says what to do, and doing it works; other parameters load as ever."""
    torch.manual_seed(0)
    model, other = (torch.nn.Sequential(torch.nn.Identity(), kind(2, 3, 2, 4)) for _ in range(2))
    floats = copy.deepcopy(model.state_dict())
    model[1].quantize()
    small = model.state_dict()
    with pytest.raises(RuntimeError, match=rf"{kind.__name__} '1' is int8, .* before quantize\(\) is called"):
        model.load_state_dict(floats, strict=strict)
    with pytest.raises(RuntimeError, match=rf"{kind.__name__} '1' has a float weight, .* call quantize\(\) first"):
        other.load_state_dict(small, strict=strict)
    with pytest.raises(RuntimeError, match=rf"{kind.__name__} is int8"):
        kind(2, 3, 2, 4).quantize().load_state_dict(kind(2, 3, 2, 4).state_dict(), strict=strict)
    x = torch.randn(2, 2, 4, 4)
    other.load_state_dict(floats, strict=strict)
    other[1].quantize()
    assert torch.equal(other(x), model(x))
    other.load_state_dict(small, strict=strict)
    assert not other.load_state_dict({"1.bias": floats["1.bias"]}, strict=False).unexpected_keys


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scales_keep_their_dtype(dtype):
    module = LocalConv1d(2, 3, 2, 4).quantize()
    scales = module.weight_scales.clone()
    module.to(dtype)
    assert module.bias.dtype == dtype
    assert module.weight_values.dtype == torch.int8
    assert torch.equal(module.weight_scales, scales)
    assert module.to("meta", dtype).weight_scales.is_meta
    assert module.weight_scales.dtype == torch.float32
    assert module.to_empty(device="cpu").weight_scales.device.type == "cpu"


def test_lazy_modules():
    lazy = LazyLocalConv2d(3, 2)
    with pytest.raises(RuntimeError, match="Expected LazyLocalConv2d to have seen an input"):
        lazy.quantize()
    lazy(torch.ones(1, 2, 4, 4))
    assert lazy.quantize()(torch.ones(1, 2, 4, 4)).shape == (1, 3, 3, 3)


def infinite():
    module = LocalConv1d(2, 3, 2, 4)
    module.weight.data[1, 2, 0] = float("inf")
    return module


def parametrized():
    return torch.nn.utils.parametrizations.weight_norm(LocalConv1d(2, 3, 2, 4))


REFUSED = {
    "mode": (lambda: LocalConv1d(2, 3, 2, 4).quantize("int4"), ValueError, "mode must be 'int8', got 'int4'"),
    "mode again": (lambda: LocalConv1d(2, 3, 2, 4).quantize().quantize(8), ValueError, "mode must be 'int8', got 8"),
    "twice": (
        lambda: LocalConv1d(2, 3, 2, 4).quantize().quantize(),
        ValueError,
        "LocalConv1d is already quantized by 'int8', got mode='int8'",
    ),
    "infinite": (lambda: infinite().quantize(), ValueError, "weight must be finite to be quantized"),
    "parametrized": (lambda: parametrized().quantize(), RuntimeError, "Conv1d to be a parameter: remove its param"),
    "keras": (lambda: to_keras(LocalConv1d(2, 3, 2, 4).quantize()), ValueError, "module must have a float weight"),
    "snippet": (lambda: to_snippet(LocalConv1d(2, 3, 2, 4).quantize()), ValueError, "module must have a float weight"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("kind", [LocalConv1d, LocalConvTranspose1d])
def test_replaced_buffers(kind, requires_grad, formulation):
    """Of other sizes, dtypes and devices, or none: an error, whatever they say of themselves, and nothing is read."""
    size, channels = (10, (3, 4)) if kind is LocalConv1d else (8, (4, 3))
    good = kind(*channels, 3, size).quantize()
    values, scales = good.weight_values, good.weight_scales
    x = torch.ones(2, channels[0], size, requires_grad=requires_grad)
    for name, buffers in {
        "weight_scales": [
            scales[:1, :1],
            scales[0],
            scales.T.clone(),
            scales.double(),
            scales.half(),
            scales.to("meta"),
        ],
        "weight_values": [values[:4], values[0], values.float(), values.short(), values.to("meta"), values.to_sparse()],
    }.items():
        buffers.append(lying(getattr(good, name).shape, getattr(good, name).dtype))
        for buffer in [*buffers, None]:
            layer = copy.deepcopy(good)
            layer._buffers[name] = buffer
            wrong = "must be a Tensor" if buffer is None else "Expected|must be|sparse"
            with pytest.raises((RuntimeError, TypeError), match=wrong):
                layer(x)


def test_refused_weights_stay():
    module = infinite()
    before = module.weight
    with pytest.raises(ValueError, match="weight must be finite"):
        module.quantize()
    assert module.weight is before
    assert list(module.state_dict()) == ["weight", "bias"]


CALLS = {
    "float64": ({"x": torch.float64}, "Expected input to have one of the dtypes torch.float32.* but got torch.float64"),
    "ints": ({"x": torch.int32}, "Expected input to have one of the dtypes"),
    "bias": ({"bias": torch.float64}, "Expected bias to have one of the dtypes torch.float32.*got torch.float64"),
    "values": (
        {"values": torch.uint8},
        "Expected values of torch.int8 and scales of torch.float32, but got torch.uint",
    ),
    "scales": ({"scales": torch.float16}, "Expected values of torch.int8 and scales of torch.float32.*torch.float16"),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", CALLS)
def test_refused_dtypes(name, device, formulation):
    case = CASES["1d"]
    x, values, scales, bias, *window = next(iter(operator_calls(case).values()))
    dtypes, message = CALLS[name]
    given = {"x": x, "values": values, "scales": scales, "bias": bias}
    given = {key: t.to(device, dtypes.get(key, t.dtype)) for key, t in given.items()}
    with pytest.raises(RuntimeError, match=message):
        operators.local_conv_int8(*given.values(), *window)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_refused_sizes(device):
    case = CASES["1d"]
    forward, backward = operator_calls(case).values()
    x, values, scales, bias, *window = [t.to(device) if isinstance(t, torch.Tensor) else t for t in forward]
    size, y = backward[0], backward[3].to(device)
    for parts in ((values, scales[1:]), (values[0], scales), (values, scales[..., None])):
        with pytest.raises(RuntimeError, match=r"Expected values of size .* and scales of size"):
            operators.local_conv_int8(x, *parts, bias, *window)
    with pytest.raises(RuntimeError, match="Expected weight to have size"):
        operators.local_conv_int8(x, values[1:], scales[1:], bias, *window)
    with pytest.raises(RuntimeError, match="Expected weight to have size"):
        operators.local_conv_input_int8(size, values[1:], scales[1:], y, None, *window)
    with pytest.raises(RuntimeError, match="Expected gradient to have one of the dtypes"):
        operators.local_conv_input_int8(size, values, scales, y.double(), None, *window)
    module = module_of(case).quantize()
    with pytest.raises(RuntimeError, match=r"Expected 2D .* or 3D .* LocalConv1d"):
        module(torch.ones(3))
