"""The distributions of initial weights, and where their fans come from."""

import math

import numpy as np
import pytest

from localconv import layers
from localconv.layers import initializers

SHAPE = (50, 40, 30)  # fans 2000 and 1500
CUT = 0.87962566103423978  # standard deviation of a standard normal variable cut at 2


def fans(mode):
    return {"fan_in": 2000, "fan_out": 1500, "fan_avg": 1750}[mode]


def check(values, limit=None, deviation=None, mean=0.0):
    """Mean and standard deviation within five of their own standard errors, and no value beyond the limit,
    which some come near.
    """
    n = values.size
    if deviation is None:
        deviation = limit / math.sqrt(3)
    assert abs(values.mean() - mean) < 5 * deviation / math.sqrt(n)
    assert abs(values.std() - deviation) < 5 * deviation / math.sqrt(2 * n)
    if limit is not None:
        assert 0.99 * limit < np.abs(values - mean).max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_variance_scaling(mode, seed):
    for scale in (1.0, 2.0):
        deviation = math.sqrt(scale / fans(mode))
        check(initializers.VarianceScaling(scale, mode, "uniform", seed)(SHAPE), limit=math.sqrt(3) * deviation)
        check(initializers.VarianceScaling(scale, mode, "untruncated_normal", seed)(SHAPE), deviation=deviation)
        for name in ("truncated_normal", "normal"):
            check(
                initializers.VarianceScaling(scale, mode, name, seed)(SHAPE),
                limit=2 * deviation / CUT,
                deviation=deviation,
            )


@pytest.mark.parametrize(
    ("name", "scale", "mode"), [("glorot", 1, "fan_avg"), ("he", 2, "fan_in"), ("lecun", 1, "fan_in")]
)
def test_family(name, scale, mode):
    deviation = math.sqrt(scale / fans(mode))
    rng = np.random.default_rng(5)
    check(initializers.get(f"{name}_uniform")(SHAPE, rng=rng), limit=math.sqrt(3) * deviation)
    check(initializers.get(f"{name}_normal")(SHAPE, rng=rng), limit=2 * deviation / CUT, deviation=deviation)


def test_others():
    check(initializers.RandomUniform(-1, 3, 0)(SHAPE), limit=2, mean=1)
    check(initializers.RandomNormal(2, 0.1, 0)(SHAPE), deviation=0.1, mean=2)
    check(initializers.TruncatedNormal(2, 0.1, 0)(SHAPE), limit=0.2, deviation=0.1 * CUT, mean=2)
    assert (initializers.Zeros()(SHAPE) == 0).all()
    assert (initializers.Ones()(SHAPE) == 1).all()
    assert (initializers.Constant(3.5)(SHAPE) == 3.5).all()
    assert (initializers.Constant(np.arange(30.0))(SHAPE)[7, 8] == np.arange(30)).all()
    assert initializers.Identity(2)((2, 3)).tolist() == [[2, 0, 0], [0, 2, 0]]
    for shape in ((8, 5), (5, 8), (2, 3, 4), (2, 2, 9)):
        q = initializers.Orthogonal(2.0, 0)(shape, "float64").reshape(-1, shape[-1])
        small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
        np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_is_uniform():
    """Uniform over orthogonal matrices: in two dimensions, the first column's angle is."""
    rng = np.random.default_rng(0)
    matrices = np.array([initializers.Orthogonal()((2, 2), "float64", rng) for _ in range(4000)])
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    counts, _ = np.histogram(angles, 8, (-np.pi, np.pi))
    assert (np.abs(counts - 500) < 5 * math.sqrt(500)).all()
    assert abs((np.linalg.det(matrices) > 0).mean() - 0.5) < 0.05


def test_dtype_and_seed():
    a = initializers.GlorotUniform(seed=3)
    assert a((4, 4)).dtype == "float32"
    assert a((4, 4), "float64").dtype == "float64"
    assert np.array_equal(a((4, 4)), a((4, 4))), "a seeded initializer repeats itself, as in Keras"
    b = initializers.GlorotUniform()
    assert not np.array_equal(b((4, 4)), b((4, 4)))


@pytest.mark.parametrize(("implementation", "limit"), [(1, 0.0782), (2, 0.0171), (3, 0.0357)])
def test_fans_of_stored_shapes(implementation, limit):
    """Keras's: those measured with L=100, C=2, k=3, O=4."""
    layer = layers.LocallyConnected1D(4, 3, implementation=implementation, seed=0)
    layer.build((None, 100, 2))
    assert round(float(np.abs(layer.kernel.value).max()), 4) == pytest.approx(limit, abs=2e-4)


@pytest.mark.parametrize("implementation", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_fans_of_one_position(implementation, padding):
    limit = math.sqrt(6 / (3 * 2 + 3 * 4))
    initializer = initializers.GlorotUniform(fans="position")
    layer = layers.LocallyConnected1D(
        4, 3, kernel_initializer=initializer, implementation=implementation, padding=padding, seed=0
    )
    layer.build((None, 100, 2))
    check(layer.kernel.value, limit=limit)
    layer = layers.LocallyConnected2D(
        4,
        (3, 2),
        kernel_initializer=initializers.HeNormal(fans="position"),
        implementation=implementation,
        padding=padding,
        seed=0,
    )
    layer.build((None, 12, 11, 2))
    check(layer.kernel.value, deviation=math.sqrt(2 / 12))
    layer = layers.LocallyConnected3D(
        4, (1, 3, 2), kernel_initializer=initializer, implementation=implementation, padding=padding, seed=0
    )
    layer.build((None, 3, 7, 6, 2))
    check(layer.kernel.value, limit=math.sqrt(6 / (6 * 2 + 6 * 4)))


def test_fans_of_convolutions_are_the_position_s():
    for maker, shape, layer_fans in (
        (layers.Conv1D, (None, 9, 4), (3 * 4, 3 * 8)),
        (layers.Conv2D, (None, 9, 9, 4), (9 * 4, 9 * 8)),
        (layers.Conv3D, (None, 3, 4, 5, 4), (27 * 4, 27 * 8)),
    ):
        plain, position = (
            maker(8, 3, kernel_initializer=initializers.GlorotNormal(fans=f), seed=3) for f in (None, "position")
        )
        explicit = maker(8, 3, kernel_initializer=initializers.GlorotNormal(fans=layer_fans), seed=3)
        for layer in (plain, position, explicit):
            layer.build(shape)
            assert np.array_equal(layer.kernel.value, plain.kernel.value)
    grouped = layers.Conv1D(8, 3, groups=2, kernel_initializer=initializers.GlorotUniform(fans="position"), seed=0)
    grouped.build((None, 900, 4))
    assert np.abs(grouped.kernel.value).max() <= math.sqrt(6 / (3 * 2 + 3 * 8))


def test_explicit_fans():
    check(initializers.HeUniform(seed=0, fans=(24, 7))(SHAPE), limit=math.sqrt(6 / 24))
    check(initializers.GlorotUniform(seed=0, fans=(24, 8))(SHAPE), limit=math.sqrt(6 / 32))
    assert initializers.HeUniform(fans=[3, 4]).get_config() == {"seed": None, "fans": [3, 4]}
    assert initializers.HeUniform().get_config() == {"seed": None}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1)),
        ((5,), (5, 5)),
        ((5, 6), (5, 6)),
        ((3, 5, 6), (15, 18)),
        ((2, 3, 5, 6), (30, 36)),
        ((10, 2, 8, 4), (160, 80)),
    ],
)
def test_compute_fans(shape, expected):
    assert initializers.compute_fans(shape) == expected


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(50, bias_initializer=None, kernel_initializer=None), (None, 4)),
        (layers.Conv1D(50, 3, bias_initializer=None, kernel_initializer=None), (None, 9, 4)),
    ],
)
def test_no_initializer_is_glorot_uniform(layer, shape):
    """As in Keras, for a bias too."""
    layer.build(shape)
    for variable in (layer.kernel, layer.bias):
        limit = math.sqrt(6 / sum(initializers.compute_fans(variable.shape)))
        assert limit / 2 < np.abs(variable.value).max() <= limit
    assert layer.get_config()["bias_initializer"] is None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: initializers.VarianceScaling(0), ValueError),
        (lambda: initializers.VarianceScaling(mode="in"), ValueError),
        (lambda: initializers.VarianceScaling(distribution="cauchy"), ValueError),
        (lambda: initializers.VarianceScaling(distribution=3), TypeError),
        (lambda: initializers.GlorotUniform(fans="positions"), ValueError),
        (lambda: initializers.GlorotUniform(fans=(1, 2, 3)), ValueError),
        (lambda: initializers.GlorotUniform(fans=(0, 2)), ValueError),
        (lambda: initializers.GlorotUniform(fans="position")((3, 3)), ValueError),
        (lambda: initializers.GlorotUniform(seed="1"), TypeError),
        (lambda: initializers.RandomUniform(1, 0), ValueError),
        (lambda: initializers.RandomNormal(stddev=-1), ValueError),
        (lambda: initializers.RandomNormal("0"), TypeError),
        (lambda: initializers.RandomNormal(np.inf), ValueError),
        (lambda: initializers.Constant("a"), TypeError),
        (lambda: initializers.Constant([1, 2])((3,)), ValueError),
        (lambda: initializers.Orthogonal()((3,)), ValueError),
        (lambda: initializers.Identity()((3, 3, 3)), ValueError),
        (lambda: initializers.Zeros()("abc"), TypeError),
        (lambda: initializers.Zeros()((2, -1)), ValueError),
        (lambda: initializers.Zeros()((2,), "int32"), ValueError),
    ],
)
def test_wrong_values(call, error):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
