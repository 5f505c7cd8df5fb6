"""KernelBank in JAX: values, derivatives and transformations, against the definition and the banks for NumPy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads

import localconv
import localconv.jax as lj
from localconv import grad
from localconv.jax import bank as banks

WIDE = np.longdouble
KINDS = ("weights", "labels", "weights and indices")


@dataclasses.dataclass
class Case:
    """A convolution; channels and columns fit its groups."""

    spatial: tuple
    size: tuple
    options: dict

    @property
    def rank(self):
        return len(self.size)

    @property
    def output(self):
        window = [self.options.get(name, default) for name, default in (("strides", 1), ("padding", "valid"))]
        spread = self.options.get("dilation_rate", 1)
        return tuple(
            len(axis) for axis in oracle._taps(self.spatial, self.size, *window, spread, oracle._start_clipped)
        )

    def arrays(self, kind, dtype=np.float32, count=3, batch=2):
        """An input, and the parts of a bank."""
        rng, groups = np.random.default_rng(0), self.options.get("groups", 1)
        channels, columns, positions = 2 * groups, 2 * groups, math.prod(self.output)
        first = self.options["data_format"] == "channels_first"
        shape = (batch, channels, *self.spatial) if first else (batch, *self.spatial, channels)
        x = rng.standard_normal(shape).astype(dtype)
        parts = {"filters": rng.standard_normal((count, math.prod(self.size) * 2, columns)).astype(dtype)}
        if kind == "weights":
            parts["weights"] = rng.standard_normal((positions, count)).astype(dtype)
        elif kind == "labels":
            parts["indices"] = rng.integers(0, count, positions)
        else:
            parts["weights"] = rng.standard_normal((positions, 2)).astype(dtype)
            parts["indices"] = rng.integers(0, count, (positions, 2))
        return x, parts

    def run(self, module, x, bank, **more):
        return getattr(module, f"local_conv{self.rank}d")(x, bank, self.size, **self.options, **more)


CASES = [
    Case((9,), (3,), {"data_format": "channels_last"}),
    Case((10,), (4,), {"strides": 3, "padding": "same", "data_format": "channels_first"}),
    Case((8,), (2,), {"dilation_rate": 3, "padding": "causal", "groups": 2, "data_format": "channels_last"}),
    Case((6, 5), (3, 2), {"strides": (1, 2), "data_format": "channels_last"}),
    Case((7, 6), (2, 3), {"padding": "same", "groups": 2, "data_format": "channels_first"}),
    Case((7, 6), (2, 2), {"dilation_rate": (2, 3), "padding": ((1, 2), (0, 3)), "data_format": "channels_last"}),
    Case((4, 3, 4), (2, 2, 3), {"strides": (2, 1, 1), "padding": "same", "data_format": "channels_last"}),
    Case((4, 3, 4), (2, 1, 2), {"padding": "same", "groups": 2, "data_format": "channels_first"}),
]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """Of a few positions, so that there are several."""
    monkeypatch.setattr(banks, "GATHERED", 60)


def expanded(parts, absolute=False):
    """The definition, wider than the bank."""
    size = abs if absolute else (lambda array: array)
    filters, weights, indices = size(parts["filters"].astype(WIDE)), parts.get("weights"), parts.get("indices")
    if indices is None:
        indices = np.broadcast_to(np.arange(len(filters)), weights.shape)
    indices = indices.reshape(len(indices), -1)
    weights = np.ones(indices.shape, WIDE) if weights is None else size(weights.astype(WIDE))
    return sum(weights[:, m, None, None] * filters[indices[:, m]] for m in range(indices.shape[1]))


# Every geometry, with and without indices.
PAIRS = [(case, "weights") for case in CASES] + [(case, KINDS[1 + n % 2]) for n, case in enumerate(CASES)]


def name_of(value):
    return value if isinstance(value, str) else f"{value.spatial}-{','.join(value.options)}"


@pytest.mark.parametrize(("case", "kind"), PAIRS, ids=name_of)
def test_values(case, kind):
    x, parts = case.arrays(kind)
    columns = parts["filters"].shape[2]
    shape = {"weights": None, "labels": (columns,), "weights and indices": (*case.output, columns)}[kind]
    bias = None if shape is None else np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    y = case.run(lj, x, lj.KernelBank(**parts), bias=bias)
    values = oracle.local_conv(case.rank, x.astype(WIDE), expanded(parts), case.size, bias=bias, **case.options)
    magnitudes = oracle.local_conv(case.rank, abs(x.astype(WIDE)), expanded(parts, True), case.size, **case.options)
    magnitudes = magnitudes + (0 if bias is None else abs(bias).max())
    terms = parts["filters"].shape[1] * 3 + 4
    assert y.dtype == np.float32
    assert y.shape == values.shape
    assert (abs(np.asarray(y) - values) <= terms * np.finfo(np.float32).eps * magnitudes).all()


def test_banks_for_numpy_are_taken():
    case, kind = CASES[0], "weights and indices"
    x, parts = case.arrays(kind)
    expected = case.run(lj, x, lj.KernelBank(**parts))
    np.testing.assert_array_equal(case.run(lj, x, localconv.KernelBank(**parts)), expected)


@pytest.mark.parametrize(
    ("case", "kind"),
    [(CASES[1], "weights"), (CASES[1], "labels"), (CASES[4], "weights"), (CASES[4], "weights and indices")],
    ids=name_of,
)
def test_gradients(case, kind, x64):
    """Those of `localconv.grad`, for the input, the filters and the weights."""
    x, parts = case.arrays(kind, np.float64)
    bank, indices = localconv.KernelBank(**parts), parts.get("indices")
    g = np.random.default_rng(2).standard_normal(case.run(localconv, x, bank).shape)

    def total(x, filters, weights):
        return (case.run(lj, x, lj.KernelBank(filters, weights, indices)) * g).sum()

    numbers = (0, 1, 2) if bank.weights is not None else (0, 1)
    found = jax.grad(total, numbers)(x, parts["filters"], parts.get("weights"))
    name = f"local_conv{case.rank}d"
    expected = [getattr(grad, f"{name}_input")(x.shape, bank, g, case.size, **case.options)]
    expected += getattr(grad, f"{name}_bank")(x, bank, g, case.size, **case.options)
    for one, value in zip(found, expected, strict=False):
        np.testing.assert_allclose(one, value, rtol=1e-10, atol=1e-10)


def test_one_block(monkeypatch):
    """Of all positions, as for small pictures."""
    case = CASES[4]
    x, parts = case.arrays("weights and indices")
    bank = lj.KernelBank(**parts)
    expected = case.run(lj, x, bank)
    monkeypatch.undo()
    jax.clear_caches()
    np.testing.assert_allclose(case.run(lj, x, bank), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "mode"), [("weights", "rev"), ("weights and indices", "fwd")])
def test_derivatives_of_order_2(kind, mode, x64):
    case = CASES[0]
    x, parts = case.arrays(kind, np.float64)
    indices = parts.pop("indices", None)

    def call(x, *floats):
        return case.run(lj, x, lj.KernelBank(floats[0], *floats[1:], indices=indices))

    check_grads(call, (x, *parts.values()), order=2, modes=[mode])


@pytest.mark.parametrize("kind", ["weights", "weights and indices"])
def test_banks_are_trees(kind):
    """Arguments and results of compiled functions, and what `jax.tree` goes over."""
    case = CASES[3]
    x, parts = case.arrays(kind)
    bank = lj.KernelBank(**parts)
    expected = case.run(lj, x, bank)
    np.testing.assert_allclose(jax.jit(lambda x, bank: case.run(lj, x, bank))(x, bank), expected, rtol=1e-5, atol=1e-5)
    again = jax.jit(lambda bank: bank)(bank)
    assert type(again) is lj.KernelBank
    assert (again.shape, again.dtype, again.ndim) == (bank.shape, bank.dtype, 3)
    leaves, _ = jax.tree_util.tree_flatten_with_path(bank)
    assert [jax.tree_util.keystr(path) for path, _ in leaves] == [f".{name}" for name in parts]
    names = jax.tree_util.tree_map(lambda part: part.shape, bank)
    assert names.filters == parts["filters"].shape
    assert "filters=(3, 12, 2)" in repr(names)
    assert repr(bank) == "KernelBank(shape=(8, 12, 2), filters=3)"
    np.testing.assert_allclose(bank.expand(), expanded(parts).astype(np.float32), rtol=1e-5, atol=1e-5)


def test_gradient_for_a_bank():
    """Is a bank: a step of training is a map over trees."""
    case = CASES[4]
    x, parts = case.arrays("weights")

    @jax.jit
    def step(bank):
        slope = jax.grad(lambda bank: (case.run(lj, x, bank) ** 2).mean())(bank)
        return jax.tree_util.tree_map(lambda part, along: part - 0.01 * along, bank, slope)

    bank = lj.KernelBank(**parts)
    before = (case.run(lj, x, bank) ** 2).mean()
    assert (case.run(lj, x, step(bank)) ** 2).mean() < before


@pytest.mark.parametrize("mapped", ["inputs", "filters", "weights", "indices", "bank"])
def test_vmap(mapped):
    case = CASES[4]
    x, parts = case.arrays("weights and indices")
    axes = {name: 0 if mapped in (name, "bank") else None for name in ("filters", "weights", "indices")}
    axes = {name: axis for name, axis in axes.items() if name in parts}

    def several(name, part):
        return np.stack([part, part[::-1]]) if axes.get(name, 0 if mapped == name else None) == 0 else part

    xs = several("inputs", x)
    stacked = {name: several(name, part) for name, part in parts.items()}

    def call(x, parts):
        return case.run(lj, x, lj.KernelBank(**parts))

    found = jax.vmap(call, (0 if mapped == "inputs" else None, axes))(xs, stacked)
    for number in range(2):
        one = {name: part[number] if axes[name] == 0 else part for name, part in stacked.items()}
        expected = call(xs[number] if mapped == "inputs" else x, one)
        np.testing.assert_allclose(found[number], expected, rtol=1e-4, atol=1e-4)


def test_vmap_over_banks():
    """Banks in a stack are a bank whose arrays have an axis in front."""
    case = CASES[0]
    x, parts = case.arrays("weights")
    one = lj.KernelBank(**parts)
    stack = jax.tree_util.tree_map(lambda part: jnp.stack([part, 2 * part]), one)
    found = jax.vmap(lambda bank: case.run(lj, x, bank))(stack)
    np.testing.assert_allclose(found[1], 4 * case.run(lj, x, one), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "dtype"), [("weights", "float16"), ("weights and indices", "bfloat16")])
def test_half_precision(kind, dtype):
    """Computed in float32, and rounded once."""
    case = CASES[4]
    x, parts = case.arrays(kind)
    x, parts = (
        jnp.asarray(x, dtype),
        {name: part if name == "indices" else jnp.asarray(part, dtype) for name, part in parts.items()},
    )
    wide = {name: part if name == "indices" else part.astype(np.float32) for name, part in parts.items()}
    y = case.run(lj, x, lj.KernelBank(**parts))
    assert y.dtype == dtype
    expected = case.run(lj, x.astype(np.float32), lj.KernelBank(**wide)).astype(dtype)
    np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))
    assert case.run(lj, x.astype(np.float32), lj.KernelBank(**parts)).dtype == np.float32


def test_indices_that_are_traced():
    """What is out of range is the nearest that is in it."""
    case = CASES[3]
    x, parts = case.arrays("labels")
    call = jax.jit(lambda filters, indices: case.run(lj, x, lj.KernelBank(filters, indices=indices)))
    for indices in (parts["indices"], parts["indices"] + 1, parts["indices"] - 1):
        expected = case.run(lj, x, lj.KernelBank(parts["filters"], indices=indices.clip(0, 2)))
        np.testing.assert_allclose(call(parts["filters"], indices), expected, rtol=1e-5, atol=1e-5)


def test_inf_and_nan_stay_where_they_are():
    """A filter of inf reaches the positions that have it; what meets padding is in no sum."""
    filters = np.ones((3, 9, 1), np.float32)
    filters[1, 4], filters[2, 0] = np.inf, np.nan
    labels = np.arange(64).reshape(8, 8) // 24
    bank = lj.KernelBank(filters, indices=labels.ravel())
    x = np.ones((1, 8, 8, 1), np.float32)
    y = lj.local_conv2d(x, bank, 3, padding="same", data_format="channels_last")
    expected = localconv.local_conv2d(x, np.asarray(bank.expand()), 3, padding="same", data_format="channels_last")
    np.testing.assert_array_equal(y, expected)
    assert np.isfinite(y[0, :, 0, 0]).sum() == 5  # at the left border the first tap is in padding


def test_memory_is_bounded(monkeypatch):
    """The kernel would be 100 MB; of what is gathered, forth and back, a block is there at a time."""
    rng = np.random.default_rng(3)
    filters, labels = rng.standard_normal((9, 625, 1), dtype=np.float32), rng.integers(0, 9, 200 * 200)
    x = rng.standard_normal((1, 200, 200, 1), dtype=np.float32)

    def total(x, filters):
        bank = lj.KernelBank(filters, indices=labels)
        return (lj.local_conv2d(x, bank, 25, padding="same", data_format="channels_last") ** 2).sum()

    monkeypatch.undo()
    compiled = jax.jit(jax.grad(total, (0, 1))).lower(x, filters).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6


@pytest.mark.parametrize("kind", ["weights", "weights and indices"])
def test_symbolic_batch(kind):
    case = CASES[3]
    x, parts = case.arrays(kind)
    batch = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), *x.shape[1:]), x.dtype)
    exported = jax.export.export(jax.jit(lambda x: case.run(lj, x, lj.KernelBank(**parts))))(batch)
    np.testing.assert_allclose(exported.call(x), case.run(lj, x, lj.KernelBank(**parts)), rtol=1e-5, atol=1e-5)


FILTERS = np.ones((2, 9, 1), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, TypeError, "weights or indices must be given"),
        ({"filters": FILTERS[0], "indices": [0]}, ValueError, r"filters must have shape \(filters, taps of"),
        ({"filters": FILTERS.astype(int), "indices": [0]}, TypeError, "filters must have one of the dtypes"),
        ({"filters": [[[1.0]]], "indices": [0]}, TypeError, "filters must be an array of .*, got list"),
        ({"indices": [0.0]}, TypeError, "indices must be integers"),
        ({"indices": [0, 2]}, ValueError, "indices must be from 0 to 1, for 2 filters, got 0 to 2"),
        ({"indices": [[0, 1]]}, ValueError, "weights must be given where a position has several"),
        ({"weights": np.ones((4, 3), np.float32)}, ValueError, r"weights must have shape .* = \(positions, 2\)"),
        ({"weights": np.ones((4, 2), np.float32), "indices": [0] * 4}, ValueError, "weights must have the shape of"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_parts(arguments, error, words):
    with pytest.raises(error, match=words):
        lj.KernelBank(**{"filters": FILTERS} | arguments)


def test_bad_traced_indices():
    call = jax.jit(lambda indices: lj.KernelBank(FILTERS, indices=indices))
    with pytest.raises(TypeError, match="indices must be integers, got an array of float32"):
        call(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"indices must have shape \(positions, M\)"):
        call(jnp.zeros((3, 1, 1), int))


def test_bad_calls():
    bank, x = lj.KernelBank(FILTERS, indices=np.zeros(36, int)), jnp.ones((1, 8, 8, 1))
    with pytest.raises(ValueError, match=r"kernel must have shape .* got \(36, 9, 1\)"):
        lj.local_conv2d(x, bank, 2, data_format="channels_last")
    with pytest.raises(ValueError, match="bias must have shape"):
        lj.local_conv2d(x, bank, 3, data_format="channels_last", bias=jnp.ones(3))
    for one in (bank, localconv.KernelBank(FILTERS, indices=np.zeros(36, int))):
        with pytest.raises(TypeError, match=r"inputs must be an array of .* got a KernelBank"):
            lj.local_conv2d(one, one, 3, data_format="channels_last")
        with pytest.raises(TypeError, match=r"kernel must be an array of .* got a KernelBank"):
            lj.local_conv2d_transpose(x, one, 3, 1, (1, 10, 10, 1), data_format="channels_last")
        with pytest.raises(TypeError, match=r"filters must be an array of .* got a KernelBank"):
            lj.local_filter2d(x, one, 3, data_format="channels_last")
