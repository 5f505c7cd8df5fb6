"""Derivatives of any order and kind, transforms, compilation and export, fake and meta tensors, autocast."""

import contextlib
import copy
import dataclasses
import io
import warnings

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402
from torch_cases import Case, reference  # noqa: E402

import localconv.torch  # noqa: E402
from localconv.core import formulation  # noqa: E402
from localconv.torch import (  # noqa: E402
    LocalConv1d,
    LocalConv2d,
    LocalConv3d,
    LocalConvTranspose2d,
    LocalConvTranspose3d,
    fallback,
    functional,
    operators,
)

# PyTorch's own use of what it deprecates, when forward mode is first asked for.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")

CASES = {
    "1d": Case((7,), (3,), batch=2, channels=2, filters=3, bias="full"),
    "2d": Case((4, 3), (2, 3), batch=2, channels=1, filters=2, padding=1, stride=(2, 1), bias="shared"),
    "groups": Case((5, 4), (3, 1), batch=1, channels=2, filters=1, groups=2, dilation=(2, 1), bias="full"),
    "no bias": Case((5,), (2,), batch=3, channels=2, filters=2, padding="same", bias="none"),
    "3d": Case((2, 3, 4), (2, 1, 2), batch=2, channels=1, filters=1, groups=2, padding=(0, 1, 0), stride=(1, 2, 1)),
}
TRANSPOSED = {
    1: functional.local_conv_transpose1d,
    2: functional.local_conv_transpose2d,
    3: functional.local_conv_transpose3d,
}
FUNCTIONS = {1: functional.local_conv1d, 2: functional.local_conv2d, 3: functional.local_conv3d}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def function_of(case):
    """The function of the tensors alone, and these."""

    def function(x, weight, bias=None):
        return FUNCTIONS[case.rank](x, weight, case.kernel_size, bias, **case.options)

    return function, [t for t in case.tensors(torch.float64) if t is not None]


def transposed(case, dtype=torch.float64):
    """Input, weight and bias of a case's transposed convolution, and its options."""
    return case.gradient(dtype), case.tensors(dtype)[1], case.input_bias(dtype), case.transposed_options()


def operator_calls(case, dtype=torch.float64):
    """The arguments of every operator."""
    x, weight, bias = case.tensors(dtype)
    y, window = case.gradient(dtype), case.window.arguments
    return {
        operators.local_conv: (x, weight, bias, *window),
        operators.local_conv_input: (list(x.shape), weight, y, case.input_bias(dtype), *window),
        operators.local_conv_weight: (x, list(weight.shape), y, *window),
    }


def test_gradients_of_first_and_second_order(case):
    function, tensors = function_of(case)
    tensors = [t.requires_grad_() for t in tensors]
    assert gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, tensors, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("memory", [1, formulation.MEMORY])
def test_gradients_of_the_fallback(monkeypatch, case, memory):
    monkeypatch.setattr(formulation, "MEMORY", memory)
    function, tensors = function_of(case)
    with fallback.forced():
        tensors = [t.requires_grad_() for t in tensors]
        assert gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
        assert gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("number", range(3))
def test_operators(case, number):
    """What `torch.library` asks of an operator: its schema, its fake, its derivatives under compilation."""
    operator, arguments = list(operator_calls(case).items())[number]
    arguments = [t.requires_grad_() if isinstance(t, torch.Tensor) else t for t in arguments]
    torch.library.opcheck(operator, arguments)
    with fallback.forced():
        torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("number", range(3))
def test_derivatives_of_operators(case, number):
    operator, arguments = list(operator_calls(case).items())[number]
    places = [i for i, t in enumerate(arguments) if isinstance(t, torch.Tensor)]

    def function(*tensors):
        given = list(arguments)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return operator(*given)

    tensors = [arguments[i].requires_grad_() for i in places]
    assert gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, tensors, check_fwd_over_rev=True, fast_mode=True)


def test_transposed_derivatives(case):
    """Of the function, whose sum and bias are one operator: first and second order, forward mode, vmap."""
    if case.transposed_options() is None:
        case = dataclasses.replace(case, padding=0)
    x, weight, bias, options = transposed(case)
    tensors = [t.requires_grad_() for t in (x, weight, bias) if t is not None]

    def function(x, weight, bias=None):
        return TRANSPOSED[case.rank](x, weight, case.kernel_size, bias, **options)

    for context in (contextlib.nullcontext(), fallback.forced()):
        with context:
            assert gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
            assert gradgradcheck(function, tensors, check_fwd_over_rev=True, fast_mode=True)
    if bias is not None:
        stack = torch.stack([bias.detach(), 2 * bias.detach()])
        found = vmap(lambda one: function(x, weight, one))(stack)
        torch.testing.assert_close(found, torch.stack([function(x, weight, one) for one in stack]))
        tangent = jvp(lambda one: function(x, weight, one), (stack[0],), (stack[1],))[1]
        torch.testing.assert_close(tangent, operators.broadcastable_bias(stack[1], case.rank).expand(tangent.shape))


def test_forward_mode_by_value(case):
    """Bilinear: the tangent is known. A derivative that is silently 0 would pass many other tests."""
    function, tensors = function_of(case)
    tangents = [torch.randn_like(t) for t in tensors]
    expected = sum(
        function(*[tangents[k] if k == number else t for k, t in enumerate(tensors)][:2]) for number in range(2)
    )
    if len(tensors) == 3:
        bias = tangents[2]
        expected = expected + (bias.reshape(-1, *[1] * case.rank) if bias.dim() == 1 else bias)
    _, found = jvp(function, tuple(tensors), tuple(tangents))
    torch.testing.assert_close(found, expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(tensors, tangents, strict=True)]
        torch.testing.assert_close(forward_ad.unpack_dual(function(*duals)).tangent, expected)
        with torch.no_grad():
            torch.testing.assert_close(forward_ad.unpack_dual(function(*duals)).tangent, expected)
        if len(tensors) == 3:
            of_bias = forward_ad.unpack_dual(function(*tensors[:2], duals[2])).tangent
            shaped = tangents[2].reshape(-1, *[1] * case.rank) if tangents[2].dim() == 1 else tangents[2]
            torch.testing.assert_close(of_bias, shaped.expand(of_bias.shape))
    if len(tensors) == 3:
        _, alone = jvp(lambda b: function(*tensors[:2], b), (tensors[2],), (tangents[2],))
        shaped = tangents[2].reshape(-1, *[1] * case.rank) if tangents[2].dim() == 1 else tangents[2]
        torch.testing.assert_close(alone, shaped.expand(alone.shape))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", [LocalConv1d, "int8"])
def test_forward_mode_over_a_backward_pass(kind, create_graph):
    """The tangents of gradients, of a pass that keeps no graph too: against unfold and bmm."""
    case = CASES["1d"]
    module = LocalConv1d(2, 3, 3, 7)
    if kind == "int8":
        module.quantize()
        weight = fallback.dequantized(module.weight_values, module.weight_scales)
    else:
        weight = module.weight
    x, direction = torch.randn(2, 2, 7, requires_grad=True), torch.randn(2, 2, 7)
    found = []
    for function in (module, lambda x: reference(case, x, weight, module.bias)):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, direction)
            of = [dual, *module.parameters()]
            gradients = torch.autograd.grad(function(dual).sin().sum(), of, create_graph=create_graph)
            found.append([forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_transforms(case):
    """Against the same transforms of unfold and bmm."""
    function, tensors = function_of(case)

    def plain(x, weight, bias=None):
        return reference(case, x, weight, bias)

    def loss(of):
        return lambda *given: of(*given).sin().sum()

    numbers = tuple(range(len(tensors)))
    for transform in (
        lambda f: grad(loss(f), numbers),
        lambda f: jacrev(f, numbers),
        lambda f: jacfwd(f, numbers),
        lambda f: hessian(loss(f), (0, 1)),
        lambda f: grad(lambda *given: grad(loss(f))(*given).square().sum(), 1),
    ):
        torch.testing.assert_close(transform(function)(*tensors), transform(plain)(*tensors))


@pytest.mark.parametrize("batched", range(1, 8))
def test_vmap(case, batched):
    """Any of the tensors batched, along any axis, and their gradients too."""
    function, tensors = function_of(case)
    if batched >= 2 ** len(tensors):
        pytest.skip("the case has no bias to batch")
    dims, given = [], []
    for number, tensor in enumerate(tensors):
        if batched >> number & 1:
            dims.append(min(number, tensor.dim()))
            given.append(torch.randn(4, *tensor.shape, dtype=tensor.dtype).movedim(0, dims[-1]))
        else:
            dims.append(None)
            given.append(tensor)
    of_one = [[t if d is None else t.select(d, i) for t, d in zip(given, dims, strict=True)] for i in range(4)]
    result = vmap(function, tuple(dims))(*given)
    torch.testing.assert_close(result, torch.stack([function(*one) for one in of_one]))

    def loss(*some):
        return function(*some).sin().sum()

    numbers = tuple(range(len(tensors)))
    found = vmap(grad(loss, numbers), tuple(dims))(*given)
    for number, one in enumerate(found):
        torch.testing.assert_close(one, torch.stack([grad(loss, numbers)(*each)[number] for each in of_one]))


def test_gradients_of_every_example():
    """As differential privacy needs them."""
    layer = LocalConv2d(2, 3, 2, (4, 5), dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    x = torch.randn(6, 2, 4, 5, dtype=torch.float64)

    def loss(parameters, image):
        return functional_call(layer, parameters, (image,)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for i, image in enumerate(x):
        alone = grad(loss)(parameters, image)
        for name, value in alone.items():
            torch.testing.assert_close(found[name][i], value)


def model_2d():
    return torch.nn.Sequential(
        LocalConv2d(3, 4, 3, (8, 8), stride=2, padding=1, bias="shared"),
        torch.nn.ReLU(),
        LocalConvTranspose2d(4, 2, 2, (4, 4), stride=2),
        LocalConv2d(2, 6, (2, 1), (8, 8), groups=2),
    )


def model_3d():
    return torch.nn.Sequential(
        LocalConv3d(2, 4, (2, 3, 2), (3, 7, 8), stride=(1, 2, 2), groups=2),
        torch.nn.ReLU(),
        LocalConvTranspose3d(4, 2, 2, (2, 3, 4), stride=(1, 2, 1), bias="shared"),
    )


# With the size of an image, and of what is made of it.
MODELS = {"2d": (model_2d, (3, 8, 8), (6, 7, 8)), "3d": (model_3d, (2, 3, 7, 8), (2, 3, 6, 5))}


@pytest.fixture(params=MODELS)
def network(request):
    """A model, and a function that makes a batch for it."""
    make, size, _ = MODELS[request.param]
    torch.manual_seed(0)
    return make(), lambda batch: torch.randn(batch, *size)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(backend, network):
    """In one graph, for any batch after the first two, and with the gradients of eager mode."""
    if backend == "inductor" and not has_compiler():
        pytest.skip("inductor needs a C++ compiler")
    eager, images = network
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, dynamic=True, backend=backend)
    for batch in (4, 5, 9):
        x = images(batch)
        for one in (eager, compiled):
            one.zero_grad()
        given = [x.clone().requires_grad_() for _ in range(2)]
        results = [one(t) for one, t in zip((eager, compiled), given, strict=True)]
        torch.testing.assert_close(*results)
        for result in results:
            result.square().sum().backward()
        torch.testing.assert_close(given[0].grad, given[1].grad)
        for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), eager(x))


# --- Several modules of different sizes in one process: compilation makes symbols of the sizes -----------------------

SIZES = (4, 5, 6, 7, 3)
# What it says of a loss that a compiled function is given. (Warnings of what it finds in code of ours stay errors.)
GIVEN_A_LOSS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


# All modules, and those of int8; the filters of a few are never that.
NAMES = [name for name in localconv.torch.__all__ if "Local" in name]
MODULES = [*((name, False) for name in NAMES), *((name, True) for name in NAMES if "LowRank" not in name)]


def module_for(name, size, quantized=False):
    kind = getattr(localconv.torch, name)
    if name.startswith("Lazy"):
        layer = kind(4, 2)
        layer(torch.zeros(1, 3, *[size] * len(layer.kernel_size)))
    else:
        layer = kind(3, 4, 2, size, *([2] if "LowRank" in name else []))
    return layer.quantize() if quantized else layer


def gradients(leaves, run):
    """What a function that runs a backward pass leaves in the leaves."""
    for leaf in leaves:
        leaf.grad = None
    run()
    return [leaf.grad for leaf in leaves]


def check_gradients(layer, run):
    """Those of `run`, called with a module and an image of it, are those of eager mode."""
    x = torch.randn(2, 3, *layer.input_size, requires_grad=True)
    leaves = [x, *layer.parameters()]
    expected = gradients(leaves, lambda: layer(x).square().sum().backward())
    for one, other in zip(gradients(leaves, lambda: run(layer, x)), expected, strict=True):
        torch.testing.assert_close(one, other)


@GIVEN_A_LOSS
@pytest.mark.parametrize("compiled_autograd", [False, True])
@pytest.mark.parametrize(("name", "quantized"), MODULES)
def test_backward_passes_that_a_compiled_function_calls(name, quantized, compiled_autograd):
    """Where the forward pass was eager, as where compilation has left a training step to Python."""
    torch._dynamo.reset()
    backward = torch.compile(lambda loss: loss.backward(), backend="eager")
    for size in SIZES:
        layer = module_for(name, size, quantized)
        with torch._dynamo.config.patch(compiled_autograd=compiled_autograd):
            check_gradients(layer, lambda layer, x: backward(layer(x).square().sum()))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_training_steps_of_many_sizes(name, dynamic):
    torch._dynamo.reset()
    step = torch.compile(lambda layer, x: layer(x).square().sum().backward(), backend="aot_eager", dynamic=dynamic)
    for size in SIZES:
        check_gradients(module_for(name, size), step)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_operators_called_by_what_compilation_leaves_to_python(number, forced, requires_grad):
    """It looks into the functions that such code calls: not into what stands behind the operators."""

    @torch.compiler.disable(recursive=False)
    def left(operator, given):
        return operator(*given)

    torch._dynamo.reset()
    compiled = torch.compile(lambda operator, given: left(operator, given), backend="eager")
    with fallback.forced() if forced else contextlib.nullcontext():
        for size in SIZES:
            case = Case((size,), (2,))
            operator, given = list(operator_calls(case).items())[number]
            given = [t.requires_grad_(requires_grad) if isinstance(t, torch.Tensor) else t for t in given]
            assert torch.equal(compiled(operator, given), operator(*given))


def has_compiler():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


def test_no_graph_breaks(network):
    model, images = network
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(images(2))
    assert explained.graph_break_count == 0
    assert explained.graph_count == 1


def test_no_graph_breaks_by_functions():
    def functions(x, weight, bias):
        y = functional.local_conv2d(x, weight, 3, bias, padding="same")
        return functional.local_conv_transpose2d(y, weight, [3, 3], padding=1)

    torch._dynamo.reset()
    arguments = torch.randn(2, 3, 4, 4), torch.randn(16, 27, 3), torch.randn(3)
    compiled = torch.compile(functions, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), functions(*arguments))

    def in_3d(x, weight, bias):
        y = functional.local_conv3d(x, weight, (1, 3, 3), bias, padding="same")
        return functional.local_conv_transpose3d(y, weight, [1, 3, 3], padding=(0, 1, 1))

    arguments = torch.randn(2, 3, 2, 4, 4), torch.randn(32, 27, 3), torch.randn(3)
    compiled = torch.compile(in_3d, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), in_3d(*arguments))


def test_compiled_transforms():
    """Forward mode within compilation is where derivatives go lost without a word."""
    layer = LocalConv1d(2, 3, 3, 6, dtype=torch.float64)
    x, tangent = torch.randn(2, 2, 6, dtype=torch.float64), torch.randn(2, 2, 6, dtype=torch.float64)

    def derivative(x, tangent):
        return jvp(lambda x: layer(x).sin(), (x,), (tangent,))[1]

    torch._dynamo.reset()
    compiled = torch.compile(derivative, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, tangent), derivative(x, tangent))


def test_exported(network):
    """With a batch of any size, saved and loaded."""
    eager, images = network
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(eager, (images(3),), dynamic_shapes={"input": {0: batch}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = images(7)
    torch.testing.assert_close(loaded(x), eager(x))


def test_traced():
    layer = LocalConv1d(2, 3, 3, 6)
    with warnings.catch_warnings():  # newer versions deprecate it
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(layer, torch.randn(2, 2, 6))
    x = torch.randn(5, 2, 6)
    torch.testing.assert_close(traced(x), layer(x))


def test_fake_and_meta_tensors(case):
    """Sizes, dtypes and strides are those of the values."""
    from torch._subclasses import FakeTensorMode

    for operator, arguments in operator_calls(case).items():
        expected = operator(*arguments)
        meta = operator(*[t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments])
        with FakeTensorMode() as mode:
            fake = operator(*[mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in arguments])
        for found in (meta, fake):
            assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())


@pytest.mark.parametrize("name", MODELS)
def test_models_on_meta(name):
    make, size, output = MODELS[name]
    with torch.device("meta"):
        made = make()
    assert made(torch.empty(2, *size, device="meta")).shape == (2, *output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype, network):
    """Everything in float32, whatever dtype comes in."""
    made, images = network
    x = images(2)
    expected = made(x)
    with torch.autocast("cpu", dtype):
        found = made(x)
        mixed = made(x.to(dtype))
    assert found.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters())


def test_batched_gradients_of_the_old_kind(case):
    function, tensors = function_of(case)
    tensors = [t.requires_grad_() for t in tensors]
    y = function(*tensors)
    gradients = torch.randn(3, *y.shape, dtype=y.dtype)
    together = torch.autograd.grad(y, tensors, gradients, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(y, tensors, g, retain_graph=True) for g in gradients]
    for number, found in enumerate(together):
        torch.testing.assert_close(found, torch.stack([one[number] for one in alone]))


def test_changed_weights_are_seen_by_backward():
    layer = LocalConv1d(2, 3, 3, 6)
    x = torch.randn(2, 2, 6, requires_grad=True)
    y = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_storage_may_be_resized_after_a_call():
    """Sharded training frees the memory of weights between calls."""
    layer = LocalConv2d(2, 3, 2, (4, 4))
    x = torch.randn(2, 2, 4, 4, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    for tensor in (x, y, layer.weight, layer.bias, x.grad, layer.weight.grad):
        tensor.untyped_storage().resize_(0)
        tensor.untyped_storage().resize_(tensor.numel() * 4)


def test_checkpointed(network):
    from torch.utils.checkpoint import checkpoint

    made, images = network
    x = images(2).requires_grad_()
    expected = torch.autograd.grad(made(x).square().sum(), x)
    found = torch.autograd.grad(checkpoint(made, x, use_reentrant=False).square().sum(), x)
    torch.testing.assert_close(found, expected)
