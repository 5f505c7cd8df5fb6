"""What is made with `localconv.torch` leaves the process: by torch.onnx, torch.export and torch.jit, and runs where
localconv cannot be imported.
"""

import contextlib
import copy
import functools
import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_cases import Case, assert_near, random_cases, reference, sizes_of_sums  # noqa: E402

import localconv.torch as local  # noqa: E402
from localconv.torch import decompositions, operators, portable  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # in run_decompositions
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
]


def all_nodes(program):
    return [str(node.target) for node in program.graph.nodes]


# ----------------------------------------------------------------------------------- the forms, without any exporter

CASES = [
    *random_cases(12, seed=5),
    Case((5, 6), (3, 3), padding=((2, 0), (0, 3)), stride=(2, 1), dilation=(1, 2), groups=2),
    Case((2,), (2,), padding=((5, 0),), bias="shared"),  # a tap that meets the input nowhere
    Case((1, 1), (3, 3), padding=1, bias="none"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms_of_convolution_and_its_derivatives(case):
    """In the context nothing but PyTorch's operators runs; their derivatives are PyTorch's own."""
    x, weight, bias = case.tensors(requires_grad=True)
    gradient = case.gradient()
    given = [t for t in (x, weight, bias) if t is not None]
    with portable():
        y = local_conv(case, x, weight, bias)
    gradients = torch.autograd.grad(y, given, gradient)
    wide = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = reference(case, *wide)
    exact = torch.autograd.grad(expected, [t for t in wide if t is not None], gradient.double())
    bound, bounds = sizes_of_sums(case, x, weight, bias, gradient)
    assert_near(y, expected, bound, case.depth + 1)
    terms = case.batch * math.prod(case.output) + case.depth * case.filters
    for result, right, limit in zip(gradients, exact, bounds, strict=True):
        assert_near(result, right, limit, terms)
    # The operators of the derivatives have forms of their own.
    forms, window = decompositions(), case.window.arguments
    into = forms[operators.local_conv_input](list(x.shape), weight, gradient, None, *window)
    assert_near(into, exact[0], bounds[0], terms)
    rows = forms[operators.local_conv_weight](x, list(weight.shape), gradient, *window)
    assert_near(rows, exact[1], bounds[1], terms)


def local_conv(case, x, weight, bias):
    function = getattr(local, f"local_conv{case.rank}d")
    return function(x, weight, case.kernel_size, bias, **case.options)


@pytest.mark.parametrize("case", [case for case in CASES if case.transposed_options()], ids=str)
def test_forms_of_transposed_convolution(case):
    _, weight, _ = case.tensors()
    gradient, bias, options = case.gradient(), case.input_bias(), case.transposed_options()
    function = getattr(local, f"local_conv_transpose{case.rank}d")
    expected = function(gradient.double(), weight.double(), case.kernel_size, bias if bias is None else bias.double(),
                        **options)  # fmt: skip
    sizes = [t if t is None else t.double().abs() for t in (gradient, weight, bias)]
    with portable():
        result = function(gradient, weight, case.kernel_size, bias, **options)
    assert_near(result, expected, function(*sizes[:2], case.kernel_size, sizes[2], **options), case.depth * 9)


@pytest.mark.parametrize("name", ["local_filter", "local_correlation"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{"padding": "inside", "dilation": 2}, {"padding": 1, "stride": 2, "groups": 2}])
def test_forms_of_filters_that_come_with_the_data(name, memory_format, options):
    """With their derivatives, which are those of the compiled kernels."""
    function = getattr(local, f"{name}2d")
    made = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 8, 9, generator=made, dtype=torch.float64)
    output = (4, 5) if options.get("stride") else (8, 9)
    other = torch.randn(3, 9 * options.get("groups", 1) if "filter" in name else 4, *output, generator=made).double()
    x, other = (t.contiguous(memory_format=memory_format).requires_grad_() for t in (x, other))
    expected = function(x, other, 3, **options)
    gradient = torch.randn(expected.shape, generator=made, dtype=torch.float64)
    derivatives = torch.autograd.grad(expected, (x, other), gradient)
    with portable():
        result = function(x, other, 3, **options)
    assert result.stride() == expected.stride()
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    for theirs, ours in zip(torch.autograd.grad(result, (x, other), gradient), derivatives, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
    # The operators of the derivatives have forms of their own.
    forms = decompositions()
    window = ([3, 3], [options.get("stride", 1)] * 2, [1] * 4 if "stride" in options else [],
              [options.get("dilation", 1)] * 2, options.get("groups", 1))  # fmt: skip
    filters, y, size = (other, gradient, other.shape) if "filter" in name else (gradient, other, gradient.shape)
    into = forms[operators.local_filter_input](list(x.shape), filters, y, *window)
    torch.testing.assert_close(into, operators.local_filter_input(list(x.shape), filters, y, *window))
    for images in (1, 3):
        size = [images, *filters.shape[1:]]
        taps = forms[operators.local_filter_filters](x, size, y, *window)
        torch.testing.assert_close(taps, operators.local_filter_filters(x, size, y, *window))


def test_a_tap_in_padding_is_not_multiplied():
    """Weights and filters that meet nothing but padding may be anything."""
    layer = local.LocalConv2d(2, 3, 3, 4, padding=1)
    expected = layer(torch.ones(2, 2, 4, 4))
    with torch.no_grad():
        layer.weight.view(4, 4, 3, 3, 2, 3)[0, :, 0] = math.nan
        layer.weight.view(4, 4, 3, 3, 2, 3)[:, -1, :, 2] = math.inf
    filters = torch.ones(1, 3, 5)
    filters[0, 0, 0] = filters[0, 2, 4] = math.nan
    with portable():
        torch.testing.assert_close(layer(torch.ones(2, 2, 4, 4)), expected)
        assert local.local_filter1d(torch.ones(2, 1, 5), filters, 3, padding=1).tolist() == [[[2.0, 3, 3, 3, 2]]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["LocalConv2d", "LocalConvTranspose2d"])
def test_dtypes_are_kept(kind, dtype):
    module = getattr(local, kind)(4, 3, 3, (6, 5), padding=1, dtype=dtype)
    x = torch.randn(2, 4, 6, 5, dtype=dtype)
    with portable():
        y = module(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, module(x), rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_autocast_rounds_nothing():
    """As the operators' own rule."""
    layer, x = local.LocalConv2d(4, 3, 3, 6), torch.randn(2, 4, 6, 6)
    with portable(), torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x.bfloat16().float()), rtol=1e-5, atol=1e-6)


def test_vmap_of_gradients_in_the_context():
    layer, images = local.LocalConv1d(3, 2, 3, 6), torch.randn(4, 3, 6)
    parameters = dict(layer.named_parameters())

    def loss(parameters, image):
        return torch.func.functional_call(layer, parameters, (image,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))
    expected = each(parameters, images)
    with portable():
        found = each(parameters, images)
    for name in parameters:
        torch.testing.assert_close(found[name], expected[name])


def test_errors_name_the_same_arguments():
    with portable():
        with pytest.raises(RuntimeError, match="Expected weight to have size"):
            local.local_conv1d(torch.ones(2, 3, 8), torch.ones(5, 9, 2), 3)
        with pytest.raises(RuntimeError, match="Expected queries"):
            local.local_correlation1d(torch.ones(2, 3, 8), torch.ones(1, 3, 6), 3)
        with pytest.raises(RuntimeError, match="made with input_size"):
            local.LocalConv1d(3, 2, 3, 8)(torch.ones(2, 3, 9))


# ------------------------------------------------------------------------------------------------------- the context


def test_contexts_nest_and_end():
    layer, x = local.LocalConv1d(3, 2, 3, 6), torch.randn(4, 3, 6)
    record = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            record.append(function)
            return function(*args, **(kwargs or {}))

    def is_portable():
        record.clear()
        with Watch():
            layer(x)
        return operators.local_conv in record

    assert not is_portable()
    with portable():
        assert is_portable()
        with pytest.raises(ValueError, match="inside"), portable():
            raise ValueError("inside")
        assert is_portable()
    assert not is_portable()


def test_the_context_decorates_functions():
    layer, x = local.LocalConv1d(2, 3, 2, 5), torch.randn(1, 2, 5)

    @portable()
    def convolve(again):
        return layer(x) if again == 0 else convolve(again - 1)

    torch.testing.assert_close(convolve(2), layer(x))
    assert "localconv" in " ".join(all_nodes(torch.export.export(layer, (x,))))


@pytest.mark.parametrize("operator", [torch.ops.localconv.local_conv, torch.ops.localconv.local_conv.default])
def test_operators_that_are_called_by_name(operator):
    """With arguments by name too, and without those that have defaults."""
    layer, x = local.LocalConv2d(2, 3, 2, 3), torch.randn(4, 2, 3, 3)
    window = {"kernel_size": [2, 2], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}

    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return operator(x, self.layer.weight, bias=self.layer.bias, **window)

    with portable():
        torch.testing.assert_close(Called()(x), layer(x))
        program = torch.export.export(Called(), (x,))
    assert "localconv" not in " ".join(all_nodes(program))


@pytest.mark.parametrize("kind", ["LocalConv2d", "LocalConvTranspose2d", "LowRankLocalConv2d"])
def test_traces_refuse_images_of_other_sizes(kind):
    """A batch of these could be one of more images."""
    layer = getattr(local, kind)(2, 3, 3, 5, **({"rank": 2} if kind.startswith("LowRank") else {})).eval()
    with portable():
        traced = torch.jit.trace(layer, torch.randn(4, 2, 5, 5))
    for batch in (0, 1, 7):
        x = torch.randn(batch, 2, 5, 5)
        torch.testing.assert_close(traced(x), layer(x))
    for size in ((1, 2, 10, 10), (2, 4, 5, 5), (5, 2, 4, 5)):
        with pytest.raises(RuntimeError):
            traced(torch.randn(size))


def test_traces_refuse_filters_of_other_sizes():
    """Of ten taps, the last would not be looked at."""
    function = Function("local_filter2d", 3, padding=1)
    with portable():
        traced = torch.jit.trace(function, (torch.randn(2, 2, 4, 5), torch.randn(2, 9, 4, 5)))
    x, filters = torch.randn(3, 2, 4, 5), torch.randn(3, 9, 4, 5)
    torch.testing.assert_close(traced(x, filters), function(x, filters))
    with pytest.raises(RuntimeError):
        traced(x, torch.randn(3, 10, 4, 5))


def test_contexts_are_of_a_thread():
    layer, x = local.LocalConv1d(3, 2, 3, 6, dtype=torch.float16), torch.randn(4, 3, 6).half()
    expected, found = layer(x), []
    with portable():
        worker = threading.Thread(target=lambda: found.append(torch.fx.experimental.proxy_tensor.make_fx(layer)(x)))
        worker.start()
        worker.join()
        here = torch.fx.experimental.proxy_tensor.make_fx(layer)(x)
    assert "localconv.local_conv.default" in all_nodes(found[0])
    assert "localconv.local_conv.default" not in all_nodes(here)
    assert torch.equal(found[0](x), expected)


def test_programs_of_compile_are_of_their_context():
    """Compiled inside and outside of the context, in one function that is there once."""
    torch._dynamo.reset()
    layer, x, programs = local.LocalConv2d(3, 2, 3, 6, padding=1), torch.randn(4, 3, 6, 6), []

    def keep(graph, inputs):
        programs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=keep, fullgraph=True)
    expected = layer(x)
    for inside in (False, True, False, True):
        if inside:
            with portable():
                torch.testing.assert_close(compiled(x), expected)
        else:
            torch.testing.assert_close(compiled(x), expected)
    assert ["localconv" in " ".join(all_nodes(program)) for program in programs] == [True, False]

    def enters(x):
        with portable():
            return layer(x)

    torch.testing.assert_close(torch.compile(enters, backend=keep, fullgraph=True)(x), expected)
    assert len(programs) == 3
    assert "localconv" not in " ".join(all_nodes(programs[-1]))


# ----------------------------------------------------------------------------------- files, opened without localconv


class Function(nn.Module):
    """A function of `localconv.torch` as a module."""

    def __init__(self, name, *arguments, **options):
        super().__init__()
        self.function, self.arguments, self.options = getattr(local, name), arguments, options

    def forward(self, x, other):
        return self.function(x, other, *self.arguments, **self.options)


class Narrow(nn.Module):
    """A module of 16 bits with float32 around it, as NumPy has no bfloat16."""

    def __init__(self, module, dtype):
        super().__init__()
        self.module, self.dtype = module.to(dtype), dtype

    def forward(self, x):
        return self.module(x.to(self.dtype)).float()


def families():
    """Modules and functions of every kind and rank with every option, the part of the largest number by which their
    results may be off, and the sizes of their inputs.
    """
    torch.manual_seed(0)
    modules = [
        (local.LocalConv1d(4, 6, 3, 12, padding="same", dilation=2), (4, 12)),
        (local.LocalConv1d(4, 6, 3, 13, stride=2, bias=False), (4, 13)),
        (local.LocalConv2d(4, 6, (3, 2), (8, 9), stride=(2, 1), padding=(1, 0), groups=2), (4, 8, 9)),
        (local.LocalConv2d(2, 3, 4, 6, padding="same", bias="shared"), (2, 6, 6)),
        (local.LocalConv3d(2, 4, 2, (4, 5, 4), padding=((1, 0), (0, 2), (0, 0))), (2, 4, 5, 4)),
        (local.LocalConvTranspose1d(6, 4, 3, 5, dilation=2, bias=False), (6, 5)),
        (local.LocalConvTranspose2d(6, 4, 3, (5, 4), 2, 1, output_padding=1, groups=2), (6, 5, 4)),
        (local.LocalConvTranspose3d(6, 4, (3, 1, 2), (2, 3, 2), stride=2, bias="shared"), (6, 2, 3, 2)),
    ]
    functions = [
        (Function("local_filter1d", 3, padding=1), (2, 7), (3, 7)),
        (Function("local_filter2d", 3, padding="inside", dilation=2, groups=2), (4, 7, 8), (18, 7, 8)),
        (Function("local_filter3d", 2, stride=2), (2, 4, 4, 5), (8, 2, 2, 2)),
        (Function("local_correlation1d", 3, padding="inside"), (2, 7), (2, 7)),
        (Function("local_correlation2d", 3, padding="same", groups=2), (4, 5, 5), (4, 5, 5)),
        (Function("local_correlation3d", (1, 2, 2), padding=(0, 1, 1)), (2, 2, 3, 3), (2, 2, 4, 4)),
    ]
    int8 = [(copy.deepcopy(module).quantize(), size) for module, size in modules]
    half = [(Narrow(copy.deepcopy(module), torch.float16), size) for module, size in (*modules[3:7:3], int8[2])]
    bfloat16 = [(Narrow(copy.deepcopy(module), torch.bfloat16), size) for module, size in modules[3:4]]
    exact = [(module, 1e-5, *sizes) for module, *sizes in (*modules, *int8, *functions)]
    return exact + [(*half_, 2e-3, size) for *half_, size in half] + [(*other, 2e-2, size) for *other, size in bfloat16]


def low_rank():
    """As `families`, of low rank, and one of a single tap."""
    return [
        (local.LowRankLocalConv1d(4, 6, 3, 8, 2, padding=1), 0, (4, 8)),
        (local.LowRankLocalConv2d(4, 6, (3, 2), 8, 2, padding=1, groups=2, separable=True), 0, (4, 8, 8)),
        (local.LocalConv2d(4, 6, (3, 1), 8), 0, (4, 8, 8)),
    ]


def few():
    """One of every kind and rank, with few taps: what takes long to export as it is."""
    torch.manual_seed(0)
    return [
        (local.LocalConv1d(4, 6, 2, 8, padding="same", dilation=2), 1e-5, (4, 8)),
        (local.LocalConv2d(4, 6, (3, 2), (4, 5), stride=(2, 1), padding=(1, 0), groups=2), 1e-5, (4, 4, 5)),
        (local.LocalConv3d(2, 4, 2, (2, 3, 2), bias="shared"), 1e-5, (2, 2, 3, 2)),
        (local.LocalConv2d(4, 6, 2, (4, 5), padding=1).quantize(), 1e-5, (4, 4, 5)),
        (Narrow(local.LocalConv2d(4, 6, 2, (4, 5), padding=1), torch.float16), 2e-3, (4, 4, 5)),
        (local.LocalConvTranspose1d(6, 4, 2, 5, dilation=2).quantize(), 1e-5, (6, 5)),
        (local.LocalConvTranspose2d(6, 4, (2, 1), (5, 4), stride=(2, 1), groups=2), 1e-5, (6, 5, 4)),
        (Function("local_filter1d", 2, padding=1), 1e-5, (2, 7), (2, 8)),
        (Function("local_correlation2d", 2, padding="inside"), 1e-5, (2, 3, 4), (2, 3, 4)),
    ]


class Parts(nn.Module):
    """Modules and functions side by side, each with inputs of its own: one file for many."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(part for part, *_ in parts)
        self.bounds, self.sizes = [bound for _, bound, *_ in parts], [sizes for _, _, *sizes in parts]

    def forward(self, *inputs):
        rest = list(inputs)
        return tuple(part(*[rest.pop(0) for _ in sizes]) for part, sizes in zip(self.parts, self.sizes, strict=True))

    def inputs(self, batch):
        made = torch.Generator().manual_seed(batch)
        return tuple(torch.randn(batch, *size, generator=made) for sizes in self.sizes for size in sizes)


# What a process does that cannot import localconv: all files of a folder on all of their inputs. Then it can.
ELSEWHERE = """
import pathlib, sys, warnings
sys.modules["localconv"] = None
warnings.simplefilter("ignore")
import numpy as np, onnxruntime, torch

folder, own = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]) / "own" / "few.own.pt2"

def on_all_inputs(run, file):
    for given in folder.glob(f"{file.name.partition('.')[0]}-*.npz"):
        with np.load(given) as arrays:
            np.savez(folder / "results" / f"{file.name}-{given.name}", *run(*arrays.values()))

def runner(file):
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file)
        names = [given.name for given in session.get_inputs()]
        return lambda *given: session.run(None, dict(zip(names, given)))  # bfloat16's, the last, may not be there
    program = torch.export.load(file).module() if file.suffix == ".pt2" else torch.jit.load(file)
    return lambda *given: [y.detach().numpy() for y in program(*map(torch.from_numpy, given))]

for file in folder.glob("*.*.*"):
    on_all_inputs(runner(file), file)

try:
    runner(own)
except RuntimeError:
    pass
else:
    raise AssertionError("a program of localconv's operators was opened without them")
del sys.modules["localconv"]
import localconv.torch
on_all_inputs(runner(own), own)
"""

BATCHES = (1, 2, 5)
FILES = ["few.exported.onnx", "few.program.pt2", "all.traced.onnx", "all.traced.pt"]


# 2.7 does not, while its newer exporter is at work: there it needs the context.
SAYS_WHEN_IT_EXPORTS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)


def write(way, model, inputs, file):
    """A file of the model for any batch."""
    batch = torch.export.Dim("batch", max=1024)  # 2.7 must know one
    shapes = {"inputs": tuple({0: batch} for _ in inputs)}
    if way == "exported.onnx":
        options = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False, "external_data": False}
        with contextlib.nullcontext() if SAYS_WHEN_IT_EXPORTS else portable():
            torch.onnx.export(model, inputs, file, **options)
    elif way == "traced.onnx":
        names = [f"input_{number}" for number, _ in enumerate(inputs)]
        axes = {name: {0: "batch"} for name in names}
        torch.onnx.export(model, inputs, file, dynamo=False, input_names=names, dynamic_axes=axes)
    elif way == "traced.pt":
        with portable():
            torch.jit.save(torch.jit.trace(model, inputs, check_trace=False), file)
    else:
        with portable() if way == "program.pt2" else contextlib.nullcontext():
            torch.export.save(torch.export.export(model, inputs, dynamic_shapes=shapes), file)


def needs_onnx():
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is among the tests' tools: make test-bridges installs it")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Models, and the folder of what their files came to in a process without localconv."""
    needs_onnx()
    folder = tmp_path_factory.mktemp("files")
    (folder / "own").mkdir()
    (folder / "results").mkdir()
    models = {"all": Parts(families()).eval(), "few": Parts(few()).eval()}
    # ONNX Runtime multiplies no matrices of bfloat16 on the processor.
    without_bfloat16 = Parts([part for part in families() if part[1] < 1e-2]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        for file in FILES:
            name, _, way = file.partition(".")
            model = without_bfloat16 if file == "all.traced.onnx" else models[name]
            # With one image the file would be for one alone, if the program of any module were.
            examples = 1 if way == "exported.onnx" and SAYS_WHEN_IT_EXPORTS else 2
            write(way, model, model.inputs(examples), folder / file)
        write("own.pt2", models["few"], models["few"].inputs(2), folder / "own" / "few.own.pt2")
    for name, model in models.items():
        for batch in BATCHES:
            np.savez(folder / f"{name}-{batch}.npz", *(t.numpy() for t in model.inputs(batch)))
    command = [sys.executable, "-c", ELSEWHERE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return models, folder / "results"


def results(elsewhere, file):
    """Of every batch, what a model's parts come to here and what its file came to elsewhere, with the bounds."""
    models, folder = elsewhere
    model = models[file.partition(".")[0]]
    for batch in BATCHES:
        with np.load(folder / f"{file}-{file.partition('.')[0]}-{batch}.npz") as arrays:
            found = [torch.from_numpy(array) for array in arrays.values()]
        yield model.bounds[: len(found)], model(*model.inputs(batch))[: len(found)], found


@pytest.mark.parametrize("file", FILES)
def test_files_give_the_same_numbers_without_localconv(elsewhere, file):
    """For other batches, too, than that which they were made for."""
    for bounds, expected, found in results(elsewhere, file):
        assert len(found) >= len(elsewhere[0][file.partition(".")[0]].parts) - 1  # that of bfloat16
        for bound, ours, theirs in zip(bounds, expected, found, strict=True):
            assert theirs.shape == ours.shape
            assert (theirs - ours).abs().max() <= bound * ours.abs().max()


def test_programs_of_our_operators_need_an_import(elsewhere):
    """And then have the compiled kernels' bits."""
    for _, expected, found in results(elsewhere, "few.own.pt2"):
        for ours, theirs in zip(expected, found, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("way", ["exported.onnx", "traced.onnx"])
@pytest.mark.filterwarnings("ignore")  # of the exporters, about themselves
def test_files_have_the_weights_as_they_are(way, tmp_path):
    """int8 and float16 among them, and little more."""
    needs_onnx()
    layers = [local.LocalConv2d(8, 16, 3, 16, padding=1).quantize(), local.LocalConv2d(8, 16, 3, 16, padding=1).half()]
    model = Parts([(layers[0], 0, (8, 16, 16)), (layers[1], 0, (8, 16, 16))]).eval()
    inputs = tuple(x.to(layer.bias.dtype) for x, layer in zip(model.inputs(2), layers, strict=True))
    write(way, model, inputs, tmp_path / "model.onnx")
    weights = sum(t.nbytes for t in model.state_dict().values())
    assert weights > 900_000
    assert weights <= (tmp_path / "model.onnx").stat().st_size <= weights + 100_000


def test_decompositions_leave_none_of_our_operators():
    """Of a program for any batch that was exported as it is."""
    model = nn.Sequential(
        local.LocalConv1d(3, 2, 3, 6, padding=1), local.LocalConvTranspose1d(2, 3, 2, 6, stride=2).quantize()
    )
    program = torch.export.export(model, (torch.randn(2, 3, 6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert "localconv" in " ".join(all_nodes(program))
    portable_one = program.run_decompositions(decompositions())
    assert "localconv" not in " ".join(all_nodes(portable_one))
    x = torch.randn(5, 3, 6)
    torch.testing.assert_close(portable_one.module()(x), model(x))


def test_programs_of_one_image_are_for_any_batch():
    """In the way of `torch.onnx.export`, which has them made so that a size of 1 is a size as any other."""
    for module, _, *sizes in [*families(), *low_rank()]:
        inputs, batch = tuple(torch.randn(1, *size) for size in sizes), torch.export.Dim("batch", max=1024)
        with portable(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
            program = torch.export.export(module.eval(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
        assert program.module()(*(torch.randn(5, *size) for size in sizes)).shape[0] == 5


def test_programs_are_within_what_most_runtimes_have():
    """No more than five axes, no operator that does nothing: Core ML has neither, nor LiteRT six axes."""
    made = families()
    kinds = [*made[:8], made[10], *made[16:22], *low_rank()]
    for module, _, *sizes in kinds:
        inputs = tuple(torch.randn(2, *size) for size in sizes)
        with portable():
            program = torch.export.export(module.eval(), inputs)
        nodes = [node for node in program.run_decompositions().graph.nodes if node.op == "call_function"]
        assert {str(node.target) for node in nodes}.isdisjoint({"aten.alias.default", "aten.concatenate.default"})
        # Numbers of pixels are constants, which runtimes compute when they open a file.
        values = [node.meta.get("val") for node in nodes]
        assert max(x.dim() for x in values if isinstance(x, torch.Tensor) and x.is_floating_point()) <= 5


@pytest.mark.filterwarnings("ignore")
def test_core_ml_converts_programs_and_traces():
    """Converts: what it runs on was not at hand."""
    core_ml = pytest.importorskip("coremltools", reason="coremltools is heavy: by hand, pip install coremltools")
    made = families()
    cases = [made[2], made[6], made[10], made[17], made[18], made[20], made[22]]
    cases.append((local.LowRankLocalConv2d(4, 6, 3, 8, 2, padding=1, groups=2), 0, (4, 8, 8)))
    for module, _, *sizes in cases:
        inputs = tuple(torch.randn(2, *size) for size in sizes)
        with portable():
            program = torch.export.export(module.eval(), inputs).run_decompositions()
            trace = torch.jit.trace(module, inputs)
        oldest = core_ml.target.iOS17
        core_ml.convert(program, minimum_deployment_target=oldest)
        tensors = [core_ml.TensorType(shape=x.shape) for x in inputs]
        core_ml.convert(trace, inputs=tensors, minimum_deployment_target=oldest)


LITERT = """
import sys
sys.modules["localconv"] = None
import numpy as np
from ai_edge_litert.interpreter import Interpreter

model = Interpreter(sys.argv[1])
model.allocate_tensors()
with np.load(sys.argv[2]) as arrays:
    for given, x in zip(sorted(model.get_input_details(), key=lambda given: given["name"]), arrays.values()):
        model.set_tensor(given["index"], x)
model.invoke()
np.save(sys.argv[3], model.get_tensor(model.get_output_details()[0]["index"]))
"""


@pytest.mark.filterwarnings("ignore")
def test_litert_gives_the_same_numbers_without_localconv(tmp_path):
    litert = pytest.importorskip("litert_torch", reason="litert-torch is heavy: by hand, pip install litert-torch")
    made = families()
    cases = [made[2], made[4], made[6], made[10], made[17], made[21]]
    cases.append((local.LowRankLocalConv2d(4, 6, 3, 8, 2, padding=1, groups=2), 1e-5, (4, 8, 8)))
    for module, bound, *sizes in cases:
        inputs = tuple(torch.randn(2, *size) for size in sizes)
        with portable():
            litert.convert(module.eval(), inputs).export(str(tmp_path / "model.tflite"))
        np.savez(tmp_path / "inputs.npz", *(x.numpy() for x in inputs))
        files = [str(tmp_path / name) for name in ("model.tflite", "inputs.npz", "result.npy")]
        done = subprocess.run([sys.executable, "-c", LITERT, *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ours, theirs = module(*inputs), torch.from_numpy(np.load(tmp_path / "result.npy"))
        assert (theirs - ours).abs().max() <= bound * ours.abs().max()


# ------------------------------------------------------------------------------------------------ torch.fx, torch.jit


def model_of_both():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3),
        local.LocalConv1d(4, 4, 3, 6, padding=1),
        nn.ReLU(),
        local.LocalConvTranspose1d(4, 2, 2, 6).quantize(),
        nn.Flatten(),
        nn.Linear(14, 2),
    ).eval()


def test_modules_are_leaves_of_fx():
    """As those of torch.nn; in the context, too, where what they compute is traced when the graph is."""
    model, x = model_of_both(), torch.randn(2, 3, 8)
    for context in (contextlib.nullcontext(), portable()):
        with context:
            traced = torch.fx.symbolic_trace(model)
        assert [node.op for node in traced.graph.nodes] == ["placeholder", *["call_module"] * len(model), "output"]
        assert torch.equal(traced(x), model(x))
    with portable():
        assert "localconv" not in " ".join(all_nodes(torch.export.export(traced, (x,))))


@pytest.mark.parametrize("kind", ["LocalConv1d", "LocalConvTranspose1d"])
def test_a_module_alone_is_a_call_of_its_function(kind):
    layer, x = getattr(local, kind)(4, 4, 3, 6, stride=2, padding=1, groups=2), torch.randn(2, 4, 6)
    traced = torch.fx.symbolic_trace(layer)
    name = "local_conv1d" if kind == "LocalConv1d" else "local_conv_transpose1d"
    assert getattr(local, name) in [node.target for node in traced.graph.nodes]
    assert torch.equal(traced(x), layer(x))
    with pytest.raises(TypeError, match=f"input must be a Tensor, got Proxy.*{kind} alone"):
        torch.fx.symbolic_trace(layer.quantize())


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("local_conv2d", (16, 18, 4), {"padding": "same"}),
        ("local_conv_transpose2d", (16, 9, 2), {"stride": 2, "output_padding": 1, "padding": 1}),
        ("local_filter2d", (3, 9, 4, 4), {"padding": "inside", "dilation": 1}),
        ("local_correlation2d", (3, 2, 4, 4), {"padding": ((0, 2), (2, 0))}),
    ],
)
def test_functions_are_nodes_of_fx(name, size, options):
    function = getattr(local, name)
    traced = torch.fx.symbolic_trace(lambda x, other: function(x, other, 3, **options))
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [function]
    x, other = torch.randn(3, 2, 4, 4), torch.randn(size)
    assert torch.equal(traced(x, other), function(x, other, 3, **options))


def test_what_is_no_tensor_is_refused_as_ever():
    with pytest.raises(TypeError, match="weight must be a Tensor, got ndarray"):
        local.local_conv1d(torch.ones(2, 3, 6), np.ones((4, 9, 2), np.float32), 3)
    with pytest.raises(TypeError, match="filters must be a Tensor, got ndarray"):
        local.local_filter1d(torch.ones(2, 3, 6), np.ones((4, 9, 2), np.float32), 3)
    with pytest.raises(TypeError, match="input must be a Tensor, got list"):
        local.LocalConv1d(3, 2, 3, 6)([1.0])


def test_quantization_by_fx_leaves_local_layers_as_they_are():
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model, x = model_of_both(), torch.randn(2, 3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("qnnpack"), (x,))
        prepared(x)
        converted = convert_fx(prepared)
    calls = [str(node.target) for node in converted.graph.nodes if node.op == "call_module"]
    assert {"1", "3"} <= set(calls)
    assert torch.equal(converted.get_submodule("1").weight, model[1].weight)


def test_scripting_says_what_to_do_and_that_works():
    model, x = model_of_both(), torch.randn(2, 3, 8)
    with pytest.raises(RuntimeError, match=r"trace it with torch.jit.trace in the context of localconv.torch.portable"):
        torch.jit.script(model)
    expected = model(x)
    with portable():
        model[1] = torch.jit.trace(model[1], torch.ones(1, 4, 6))
        model[3] = torch.jit.trace(model[3], torch.ones(1, 4, 6))
    scripted = torch.jit.script(model)
    assert "localconv::" not in str(scripted.inlined_graph)
    torch.testing.assert_close(scripted(x), expected)


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["LocalConv1d", "LocalConvTranspose1d"])
def test_traces_keep_the_operators_outside_of_the_context(kind):
    """A transposed convolution is told the size of its result, of which a trace keeps the batch."""
    layer = getattr(local, kind)(4, 3, 3, 6, padding=1)
    traced, x = torch.jit.trace(layer, torch.ones(2, 4, 6)), torch.randn(5, 4, 6)
    assert "localconv::" in str(traced.inlined_graph)
    assert torch.equal(traced(x[:2]), layer(x[:2]))
    if kind == "LocalConv1d":
        assert torch.equal(traced(x), layer(x))
    else:
        with pytest.raises(RuntimeError, match="Expected a gradient of the output's size"):
            traced(x)


# ------------------------------------------------------------------------------------------------------------- flops


def flops(module, *inputs):
    """Of a forward pass, and of one with a backward pass."""
    counts = []
    for call in (module, lambda *given: module(*given).sum().backward()):
        with FlopCounterMode(display=False) as counter:
            call(*inputs)
        counts.append(counter.get_total_flops())
    return counts


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_flops_are_those_of_convolutions_of_the_same_size(options):
    x = torch.randn(3, 4, 8, 9, requires_grad=True)
    assert flops(local.LocalConv2d(4, 6, 3, (8, 9), **options), x) == flops(nn.Conv2d(4, 6, 3, **options), x)
    ours = local.LocalConvTranspose2d(4, 6, 3, (8, 9), **options)
    assert flops(ours, x) == flops(nn.ConvTranspose2d(4, 6, 3, **options), x)
    forward = flops(ours, x)[0]
    assert flops(ours.quantize(), x) == [forward, 2 * forward]  # the weight has no gradient


def test_flops_of_groups_and_of_filters_that_come_with_the_data():
    x, filters = torch.randn(3, 4, 6, 6, requires_grad=True), torch.randn(3, 18, 6, 6, requires_grad=True)
    assert flops(local.LocalConv2d(4, 6, 3, 6, groups=2), x)[0] == flops(nn.Conv2d(4, 6, 3, groups=2), x)[0]
    products = 3 * 4 * 36 * 9
    given = functools.partial(local.local_filter2d, kernel_size=3, padding=1, groups=2)
    assert flops(given, x, filters) == [2 * products, 3 * 2 * products]
    correlation = functools.partial(local.local_correlation2d, kernel_size=3, padding=1, groups=2)
    assert flops(correlation, x, x.detach()) == [2 * products, 2 * 2 * products]
