"""Names that PyTorch keeps to itself: what they mean, that they are in one module, and calls where one is missing."""

import ast
import contextlib
import pkgutil
import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch.autograd import forward_ad  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from localconv.torch import private  # noqa: E402

NAMES = [*private.QUESTIONS, *private.TOOLS, private.CHECK]


class Mode(TorchDispatchMode):
    """One that changes nothing."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def answers(run):
    """What `is_plain` says of a tensor inside of something that calls a function of one."""
    said = []

    def function(x):
        said.append(private.is_plain(x))
        return x * 2

    run(function)
    return set(said)


def inside(context):
    """Calls a function inside of a context."""

    def run(function):
        with context():
            function(torch.ones(3))

    return run


def batched_gradients(function):
    """By the vmap that was before `torch.func`."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return function(gradient)

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Doubled.apply(x), x, torch.eye(3), is_grads_batched=True)


WATCHERS = {
    "vmap": lambda function: torch.func.vmap(function)(torch.ones(2, 3)),
    "grad": lambda function: torch.func.grad(lambda x: function(x).sum())(torch.ones(3)),
    "mode": inside(Mode),
    "profiler": inside(torch.profiler.profile),
    "forward mode": inside(forward_ad.dual_level),
    "batched gradients": batched_gradients,
    "zeros": lambda function: function(torch._efficientzerotensor(3)),
    "subclass": lambda function: function(torch.ones(3).as_subclass(type("Own", (torch.Tensor,), {}))),
    "device": lambda function: function(torch.ones(3, device="meta")),
    "layout": lambda function: function(torch.ones(3).to_sparse()),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
def test_the_questions_are_answered_as_they_must_be():
    assert private.MISSING == []
    assert private.HAS_TOOLS
    assert private.check is torch._check
    assert answers(inside(contextlib.nullcontext)) == {True}
    assert {name: answers(watcher) for name, watcher in WATCHERS.items()} == {name: {False} for name in WATCHERS}
    traced = answers(lambda function: torch.jit.trace(function, torch.ones(3), check_trace=False))
    assert traced == {False}


def test_no_module_but_one_has_private_names():
    """Beside what subclasses of Module share with it."""
    shared = {"_apply", "_buffers", "_load_from_state_dict", "_parameters"}
    used, own = {}, set(shared)
    for file in Path(private.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif file.name == "private.py":
                continue
            elif isinstance(node, ast.Attribute):
                used.setdefault(node.attr, file.name)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                used |= dict.fromkeys(parts, file.name)
    private_names = {name: file for name, file in used.items() if name.startswith("_") and not name.startswith("__")}
    assert {name: file for name, file in private_names.items() if name not in own} == {}


def imported_where(monkeypatch, replaced):
    """The module as it is where some names stand for something else, or, with an error, for nothing."""
    find = pkgutil.resolve_name

    def resolve(name):
        value = replaced.get(name, find(name))
        if isinstance(value, type) and issubclass(value, Exception):
            raise value
        return value

    monkeypatch.setattr(pkgutil, "resolve_name", resolve)
    return runpy.run_path(private.__file__)


@pytest.mark.parametrize("value", [AttributeError, ImportError, None, object(), lambda *_: ..., lambda _, __: 0])
@pytest.mark.parametrize("name", [*private.QUESTIONS, *private.TOOLS])
def test_names_that_mean_something_else(monkeypatch, name, value):
    """They are not used, and said to be missing."""
    module = imported_where(monkeypatch, {name: value})
    assert module["MISSING"] == [name]
    assert module["HAS_TOOLS"] == (name in private.QUESTIONS)
    assert module["is_plain"](torch.ones(3)) == (name in private.TOOLS)
    with pytest.warns(RuntimeWarning, match=rf"has not all .* \({name}\): results are right, but calls are slower"):
        module["warn_of_missing_names"]()


def test_check_that_is_missing(monkeypatch):
    check = imported_where(monkeypatch, {private.CHECK: AttributeError})["check"]
    check(True, lambda: "fine")
    with pytest.raises(RuntimeError, match=r"^words$"):
        check(False, lambda: "words")


# Values, derivatives, batches and a compiled program where names are missing: against unfold and einsum.
PROGRAM = """
import pkgutil, sys, warnings
import torch

hidden, find = sys.argv[1:], pkgutil.resolve_name


def resolve(name):
    if name in hidden:
        raise AttributeError(name)
    return find(name)


pkgutil.resolve_name = resolve
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from localconv.torch import LocalConv1d, fallback, functional, private
warnings.simplefilter("ignore")

from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from localconv import _core

said = [str(warning.message) for warning in told if "has not all" in str(warning.message)]
assert private.MISSING == [name for name in hidden if name != private.CHECK]
assert len(said) == bool(private.MISSING) and all(name in text for name in private.MISSING for text in said), said

made = torch.Generator().manual_seed(0)
sizes = (2, 4, 6), (4, 12, 2), (2,), (2, 2, 4), (4,)
x, w, b, y, c = (torch.randn(size, generator=made, dtype=torch.float64) for size in sizes)


class Lying(torch.Tensor):
    shape = torch.Size((2, 6, 4))

    def dim(self):
        return 3

    def _itself(self, *_):
        return self

    contiguous = resolve_neg = movedim = _itself


def plain(x, w, b):
    return torch.einsum("ncok,okcf->nfo", x.unfold(2, 3, 1), w.unflatten(1, (3, -1))) + b.unsqueeze(-1)


def plain_transposed(y, w, b):
    taps = torch.einsum("nfo,okcf->ncok", y, w.unflatten(1, (3, -1)))
    return sum(torch.nn.functional.pad(taps[..., k], (k, 2 - k)) for k in range(3)) + b.unsqueeze(-1)


def convolve(x, w, b):
    return functional.local_conv1d(x, w, 3, b)


def transpose(y, w, b):
    return functional.local_conv_transpose1d(y, w, 3, b)


convolve(x, w, b)
print(private.HAS_TOOLS, _core.last_run() is not None)

close = torch.testing.assert_close
for function, expected, tensors in ((convolve, plain, (x, w, b)), (transpose, plain_transposed, (y, w, c))):
    close(function(*tensors), expected(*tensors))
    given = [t.clone().requires_grad_() for t in tensors]
    assert gradcheck(function, given, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, given, check_fwd_over_rev=True, fast_mode=True)
    for number, tensor in enumerate(tensors):
        def of(which, t):
            return which(*tensors[:number], t, *tensors[number + 1 :])

        stack = torch.stack([tensor, tensor.flip(0), 2 * tensor])
        close(vmap(lambda t: of(function, t))(stack), vmap(lambda t: of(expected, t))(stack))
        close(*(vmap(grad(lambda t: of(f, t).sin().sum()))(stack) for f in (function, expected)))
        close(*(jvp(lambda t: of(f, t), (tensor,), (stack[1],)) for f in (function, expected)))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)(*given)
    close(compiled, function(*given))
    close(*(torch.autograd.grad(made.sin().sum(), given) for made in (compiled, expected(*given))))
    close(function(*(t.to("meta") for t in tensors)).shape, expected(*tensors).shape)

module = LocalConv1d(4, 2, 3, 6).quantize()
weight, x = fallback.dequantized(module.weight_values, module.weight_scales), x.float().requires_grad_()
direct = torch.autograd.grad(module(x).sin().sum(), x)[0]
close(direct, torch.autograd.grad((plain(x, weight, torch.zeros(2)) + module.bias).sin().sum(), x)[0])
close(grad(lambda x: module(x).sin().sum())(x.detach()), direct)
close(vmap(module)(torch.stack([x, 2 * x])), torch.stack([module(x), module(2 * x)]))

lying = torch.ones((), dtype=torch.float64).as_subclass(Lying)
try:
    torch.ops.localconv.local_conv(lying, w, None, [3], [1], [0, 0], [1], 1)
    raise SystemExit("a tensor that says another size than it has was accepted")
except (RuntimeError, IndexError):
    pass
try:
    functional.local_conv1d(x, w.float(), 4)
    raise SystemExit("a wrong size was accepted")
except RuntimeError as error:
    assert "Expected weight to have size" in str(error), error
"""


# A training step that inductor compiles: its derivative of Tensor.unfold is wrong.
COMPILED = """
import localconv.torch
layer = localconv.torch.LocalConv2d(4, 6, 3, 8)
results = []
for function in (layer, torch.compile(layer, fullgraph=True)):
    x = torch.arange(1024.0).sin().reshape(4, 4, 8, 8).requires_grad_()
    y = function(x)
    results.append((y.detach(), *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))))
torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
print(private.HAS_TOOLS)
"""


def has_compiler():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


# Before a program: PyTorch's operations have every position on its own.
BANDS = """
from localconv.core import formulation
formulation.MEMORY = 1
"""


@pytest.mark.skipif(not has_compiler(), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("before", ["", BANDS], ids=["whole", "bands"])
def test_inductor_where_a_tool_is_missing(python, before):
    code = before + PROGRAM.partition("from torch.autograd")[0] + COMPILED
    assert python(code, next(iter(private.TOOLS)), timeout=600) == "False\n"


def test_bands_where_all_tools_are_missing(python):
    assert python(BANDS + PROGRAM, *private.TOOLS, timeout=600).startswith("False")


@pytest.mark.parametrize("hidden", [*[[name] for name in NAMES], NAMES], ids=[*NAMES, "all"])
def test_calls_where_a_name_is_missing(python, hidden):
    """They are told of, and right. Kernels run but where nothing of what they need is there."""
    has_tools = not set(hidden) & set(private.TOOLS)
    assert (
        python(PROGRAM, *hidden, timeout=600)
        == f"{has_tools} {has_tools or not set(hidden) & set(private.QUESTIONS)}\n"
    )
