"""padding_mode of modules: that of torch.nn.Conv2d, by the values of the same weight at all positions."""

import copy
import inspect
import io
import pickle
import re

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from localconv import torch as lt  # noqa: E402
from localconv.torch import (  # noqa: E402
    LazyLocalConv2d,
    LocalConv1d,
    LocalConv2d,
    LocalConv3d,
    LocalConvTranspose2d,
    from_keras,
    from_snippet,
    to_keras,
    to_snippet,
)

MODES = ["reflect", "replicate", "circular"]
LOCAL = {1: LocalConv1d, 2: LocalConv2d, 3: LocalConv3d}
SHARED = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
# Size of the images and of the window, stride, padding, dilation.
WINDOWS = [
    ((6,), 3, 1, 1, 1),
    ((5,), 4, 2, 4, 1),
    ((7,), 4, 1, "same", 2),
    ((6, 5), 3, 1, 1, 1),
    ((5, 7), (2, 3), (2, 3), (0, 4), 1),
    ((5, 6), (2, 4), 1, "same", 1),
    ((4, 5), 3, 1, "valid", 1),
    ((4, 3, 5), (3, 2, 1), 1, (2, 1, 0), 1),
    ((3, 4, 3), (2, 1, 3), 1, "same", 1),
]


def twins(window, mode, channels=4, groups=2):
    """A module of torch's, and one of ours with its weight at every position."""
    size, kernel_size, stride, padding, dilation = window
    rank = len(size)
    shared = SHARED[rank](channels, 6, kernel_size, stride, padding, dilation, groups, True, mode, dtype=torch.float64)
    arguments = (kernel_size, size, stride, padding, dilation, groups, "shared", mode)
    local = LOCAL[rank](channels, 6, *arguments, dtype=torch.float64)
    # (filters, channels, taps) to (taps, channels, filters)
    rows = shared.weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
    with torch.no_grad():
        local.weight.copy_(rows.expand(local.weight.shape))
        local.bias.copy_(shared.bias)
    return shared, local


def images(window, channels=4, batch=2, **options):
    return torch.randn(batch, channels, *window[0], generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", ["zeros", *MODES])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_values_and_gradients(window, mode):
    shared, local = twins(window, mode)
    x = images(window, dtype=torch.float64)
    for given in (x, x[0], x.movedim(1, -1).contiguous().movedim(-1, 1), x[:0]):
        results = []
        for module in (shared, local):
            own = given.clone(memory_format=torch.preserve_format).requires_grad_()
            y = module(own)
            weights = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape) % 7 - 3
            slope, bias = torch.autograd.grad((y * weights).sum(), [own, module.bias])
            results.append((y, slope, bias))
        for expected, found in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_bits_of_a_padded_input(window, mode):
    """Those of torch.nn.functional.pad and a module without padding."""
    size, kernel_size, stride, padding, dilation = window
    module = LOCAL[len(size)](2, 3, kernel_size, size, stride, padding, dilation, padding_mode=mode)
    pads = SHARED[len(size)](2, 3, kernel_size, stride, padding, dilation)._reversed_padding_repeated_twice
    x = F.pad(images(window, 2), pads, mode=mode)
    plain = LOCAL[len(size)](2, 3, kernel_size, tuple(x.shape[2:]), stride, 0, dilation)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(module(images(window, 2)), plain(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradcheck(rank, mode):
    module = LOCAL[rank](2, 2, 3, 3, padding=2, stride=2, padding_mode=mode, dtype=torch.float64)
    x = torch.randn(2, 2, *[3] * rank, dtype=torch.float64, requires_grad=True)

    def call(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, module.weight, module.bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, module.weight, module.bias), fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
def test_compiled(mode):
    module = LocalConv2d(2, 3, 3, (6, 5), padding="same", padding_mode=mode)
    twin = copy.deepcopy(module)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 2, 6, 5)
    found, expected = compiled(x), module(x)
    assert torch.equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(twin.weight.grad, module.weight.grad)


@pytest.mark.parametrize("mode", MODES)
def test_exported(mode):
    module = LocalConv2d(2, 3, 3, (6, 5), padding=(2, 1), padding_mode=mode).eval()
    batch = torch.export.Dim("batch", min=2, max=9)
    program = torch.export.export(module, (torch.randn(4, 2, 6, 5),), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 2, 6, 5)
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward derivatives
@pytest.mark.parametrize("mode", MODES)
def test_transforms(mode):
    module = LocalConv1d(2, 3, 3, 6, padding=1, padding_mode=mode)
    x = torch.randn(5, 2, 6)
    torch.testing.assert_close(torch.vmap(module)(x), module(x))
    assert LocalConv1d(2, 3, 3, 6, padding=1, padding_mode=mode, device="meta")(x.to("meta")).shape == (5, 3, 6)
    _, derivative = torch.func.jvp(module, (x,), (x,))
    torch.testing.assert_close(derivative, module(x) - module.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).shape == (5, 3, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_16_bits_and_int8(mode, dtype):
    for rank in (1, 2, 3):
        module = LOCAL[rank](2, 3, 3, 5, padding=1, padding_mode=mode)
        x = torch.randn(2, 2, *[5] * rank).to(dtype)
        rounded = copy.deepcopy(module).to(dtype)
        expected = copy.deepcopy(rounded).float()(x.float())
        assert torch.equal(rounded(x), expected.to(dtype))
        small = copy.deepcopy(module).quantize()
        values, scales = small.weight_values.float(), small.weight_scales[:, None]
        with torch.no_grad():
            module.weight.copy_(values * scales)
        assert torch.equal(small(x.float()), module(x.float()))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_place_of_the_argument(rank):
    """As in torch.nn, where ours have one size more."""
    transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    pairs = [
        (LOCAL[rank], SHARED[rank]),
        (getattr(lt, f"LazyLocalConv{rank}d"), getattr(nn, f"LazyConv{rank}d")),
        (getattr(lt, f"LocalConvTranspose{rank}d"), transposed[rank]),
    ]
    for ours, theirs in pairs:
        names = [name for name in inspect.signature(ours).parameters if name != "input_size"]
        assert names == list(inspect.signature(theirs).parameters)


def test_representation():
    for mode in MODES:
        like = nn.Conv2d(2, 4, 3, padding=1, bias=False, padding_mode=mode)
        module = LocalConv2d(2, 4, 3, 5, padding=1, bias=False, padding_mode=mode)
        assert repr(module) == repr(like).replace("Conv2d", "LocalConv2d").replace(
            "stride", "input_size=(5, 5), stride"
        )
    assert "padding_mode" not in repr(LocalConv2d(2, 4, 3, 5, padding=1))


@pytest.mark.parametrize("mode", MODES)
def test_low_rank_modules(mode):
    """As the module with a kernel for every position that they stand for."""
    for make, size in [(lt.LowRankLocalConv1d, 7), (lt.LowRankLocalConv2d, (6, 5))]:
        options = {"padding": 1, "padding_mode": mode, "bias": "shared", "dtype": torch.float64}
        module = make(2, 3, 3, size, rank=2, **options)
        local = module.to_local()
        assert (module.padding_mode, local.padding_mode) == (mode, mode)
        assert f"padding_mode={mode}" in repr(module)
        x = torch.randn(4, 2, *module.input_size, dtype=torch.float64)
        results = []
        for each in (module, local):
            own = x.clone().requires_grad_()
            y = each(own)
            results.append((y, each(own[0]), *torch.autograd.grad(y.square().sum(), own)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match="padding_mode must be one of"):
            make(2, 3, 3, size, rank=2, padding=1, padding_mode="edge")


# --- states and copies ------------------------------------------------------------------------------------------------


def test_states_and_copies():
    module = LocalConv2d(2, 3, 3, 5, padding=1, padding_mode="circular")
    plain = LocalConv2d(2, 3, 3, 5, padding=1)
    assert list(module.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    module.load_state_dict(plain.state_dict())
    x = torch.randn(2, 2, 5, 5)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        assert other.padding_mode == "circular"
        assert torch.equal(other(x), module(x))
    assert not torch.equal(plain(x), module(x))


@pytest.mark.parametrize("make", [LocalConv2d, LocalConvTranspose2d])
def test_pickles_from_before_have_zeros(make):
    module = make(2, 3, 3, 5, padding=1)
    del module.__dict__["padding_mode"]
    old = pickle.loads(pickle.dumps(module))
    assert "padding_mode" not in old.__dict__
    assert old.padding_mode == "zeros"
    x = torch.randn(2, 2, 5, 5)
    new = make(2, 3, 3, 5, padding=1)
    new.load_state_dict(module.state_dict())
    assert torch.equal(old(x), new(x))
    assert repr(old) == repr(new)


def test_it_may_be_changed():
    """As people do with torch.nn.Conv2d, for pictures that tile."""
    module = LocalConv2d(2, 3, 3, (4, 5), padding=(4, 1))
    x = torch.randn(2, 2, 4, 5)
    module.padding_mode = "circular"
    twin = LocalConv2d(2, 3, 3, (4, 5), padding=(4, 1), padding_mode="circular")
    twin.load_state_dict(module.state_dict())
    assert torch.equal(module(x), twin(x))
    with pytest.raises(ValueError, match="padding must be less than input_size"):
        module.padding_mode = "reflect"
    with pytest.raises(ValueError, match="padding_mode must be one of"):
        module.padding_mode = "edge"
    assert module.padding_mode == "circular"
    with pytest.raises(ValueError, match='Only "zeros" padding mode'):
        LocalConvTranspose2d(2, 3, 3, 5).padding_mode = "reflect"


def test_lazy():
    lazy = LazyLocalConv2d(3, 3, padding=1, padding_mode="reflect")
    assert "padding_mode=reflect" in repr(lazy)
    x = torch.randn(2, 2, 5, 4)
    y = lazy(x)
    twin = LocalConv2d(2, 3, 3, (5, 4), padding=1, padding_mode="reflect")
    twin.load_state_dict(lazy.state_dict())
    assert repr(lazy) == repr(twin)
    assert torch.equal(y, twin(x))
    with pytest.raises(ValueError, match=r"padding must be less than input_size .* for input_size=\(1, 4\)"):
        LazyLocalConv2d(3, 3, padding=1, padding_mode="reflect")(torch.randn(2, 2, 1, 4))


# --- wrong arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["edge", "", None, 3, ["zeros"]])
def test_unknown_modes(wrong):
    """In torch.nn's words, whose set of names has no order."""
    with pytest.raises(ValueError, match="padding_mode must be one of") as found:
        LocalConv2d(2, 3, 3, 5, padding_mode=wrong)
    if isinstance(wrong, str):
        with pytest.raises(ValueError, match="padding_mode must be one of") as expected:
            nn.Conv2d(2, 3, 3, padding_mode=wrong)
        words = [sorted(re.findall(r"[\w=]+", str(error.value))) for error in (found, expected)]
        assert words[0] == words[1]


def test_transposed_modules_have_zeros_alone():
    for rank in (1, 2, 3):
        make, like = getattr(lt, f"LocalConvTranspose{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
        assert make(2, 3, 3, 5, padding_mode="zeros").padding_mode == "zeros"
        with pytest.raises(ValueError, match="padding mode") as expected:
            like(2, 3, 3, padding_mode="reflect")
        with pytest.raises(ValueError, match="padding mode") as found:
            make(2, 3, 3, 5, padding_mode="reflect")
        assert str(found.value) == str(expected.value).replace("ConvT", "LocalConvT")


@pytest.mark.parametrize(("mode", "most", "words"), [("reflect", 3, "less than"), ("circular", 4, "at most")])
def test_padding_is_limited(mode, most, words):
    """To what torch.nn.functional.pad takes: where torch.nn refuses images, ours refuses their size."""
    x = torch.randn(1, 2, 4, 4)
    for padding, right in [(most, True), (most + 1, False), (((0, most + 1), (0, 0)), False)]:
        if isinstance(padding, int):
            like = nn.Conv2d(2, 3, 3, padding=padding, padding_mode=mode)
        if right:
            assert LocalConv2d(2, 3, 3, 4, padding=padding, padding_mode=mode)(x).shape == like(x).shape
            continue
        with pytest.raises(RuntimeError, match=r"[Pp]adding"):
            like(x)
        with pytest.raises(ValueError, match=f"padding must be {words} input_size along every axis .* got padding="):
            LocalConv2d(2, 3, 3, 4, padding=padding, padding_mode=mode)
    assert LocalConv2d(2, 3, 3, 1, padding=9, padding_mode="replicate")(x[..., :1, :1]).shape == (1, 3, 17, 17)


# --- layers of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_snippets_that_pad(mode):
    """Who pads the images by torch.nn.functional.pad, and multiplies windows."""
    weight, x = torch.randn(1, 3, 2, 6, 6, 9), torch.randn(4, 2, 6, 6)
    windows = F.pad(x, [1] * 4, mode=mode).unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    expected = torch.einsum("nchwt,ochwt->nohw", windows, weight[0])
    module = from_snippet(weight, padding=1, padding_mode=mode)
    assert (module.padding_mode, module.input_size) == (mode, (6, 6))
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(to_snippet(module)[0], weight)
    with pytest.raises(ValueError, match="padding_mode must be one of"):
        from_snippet(weight, padding=1, padding_mode="edge")


def test_keras_has_zeros_alone():
    module = LocalConv1d(2, 3, 3, 6, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"module must have padding_mode='zeros', .* got LocalConv1d"):
        to_keras(module)
    module.padding_mode = "zeros"
    weights = to_keras(module)
    assert from_keras(weights, input_shape=(None, 6, 2), kernel_size=3, padding="same").padding_mode == "zeros"
