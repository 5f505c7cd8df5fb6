"""What the tests of layers share: Keras's golden cases, closeness, derivatives by differences, models in files."""

import io
import json
import math
import pathlib
import zipfile
from collections import Counter

import numpy as np

from localconv.layers.naming import snake_case

GOLDEN = pathlib.Path(__file__).parent / "golden" / "layers"


def golden(family):
    """The cases of one .npz file, their arrays in place."""
    with np.load(GOLDEN / f"{family}.npz") as file:
        flat = {name: file[name] for name in ("float32", "float64")}
        cases = json.loads(str(file["cases"]))

    def filled(value):
        if isinstance(value, list):
            return [filled(part) for part in value]
        if isinstance(value, dict) and set(value) == {"array"}:
            dtype, start, shape = value["array"]
            return flat[dtype][start : start + math.prod(shape)].reshape(shape)
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        return value

    return [filled(case) for case in cases]


def assert_close(result, expected, roundings=64):
    """Of the same dtype and shape, and within so many roundings of the largest value."""
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, finite.max(initial=0))
    np.testing.assert_allclose(
        result,
        expected,
        rtol=roundings * np.finfo(expected.dtype).eps,
        atol=roundings * np.finfo(expected.dtype).eps * scale,
    )


def central_differences(function, x, step=1e-5):
    """The derivative of a function of one float64 array with respect to each element."""
    slopes = np.empty_like(x)
    for place in np.ndindex(x.shape):
        low, high = x.copy(), x.copy()
        low[place] -= step
        high[place] += step
        slopes[place] = (float(function(high)) - float(function(low))) / (2 * step)
    return slopes


def away_from(x, *kinks, distance=1e-2):
    """x, moved where it is so near to a kink of a function that differences across it would mean nothing."""
    for kink in kinks:
        near = np.abs(x - kink) < distance
        x = np.where(near, kink + distance * np.where(x < kink, -1, 1), x)
    return x


def differentiable(layer, shape, seed=0):
    """Every gradient of the layer against differences of the number it is the gradient of: sum(y * g) + sum(losses)."""
    rng = np.random.default_rng(seed)
    layer.build((None, *shape[1:]))
    layer.set_weights([away_from(rng.normal(size=w.shape), 0) for w in layer.weights])
    x, g = rng.normal(size=shape), rng.normal(size=layer.compute_output_shape(shape))

    def total(at):
        return float((layer(at) * g).sum()) + sum(map(float, layer.losses))

    layer(x, training=True)
    dx = layer.backward(g)
    np.testing.assert_allclose(dx, central_differences(total, x), rtol=1e-5, atol=1e-7)
    for variable in layer.trainable_weights:
        value = variable.numpy()

        def changed(to, variable=variable):
            variable.assign(to)
            return total(x)

        np.testing.assert_allclose(
            variable.grad, central_differences(changed, value), rtol=1e-5, atol=1e-7, err_msg=variable.name
        )
        variable.assign(value)


def whatever_errstate(compute):
    """The arrays that `compute` makes, which must be the same under every `numpy.errstate`."""
    with np.errstate(all="ignore"):
        expected = compute()
    with np.errstate(all="raise"):
        found = compute()
    found_by_default = compute()  # a warning is an error in tests
    for results in (found, found_by_default):
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted, strict=True)
    return expected


def write_model(model, path):
    """Writes a whole model as Keras 2 lays it out: a .keras, or a .h5 of what `save_weights` writes and the config."""
    import h5py

    if path.suffix == ".h5":
        model.save_weights(path)
        with h5py.File(path, "a") as root:
            root.attrs["model_config"] = model.to_json()
        return
    content, seen = io.BytesIO(), Counter()
    with h5py.File(content, "w") as root:
        for layer in model.layers:
            name = snake_case(type(layer).__name__)
            group = root.create_group(f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}").create_group(
                "vars"
            )
            seen[name] += 1
            for number, weight in enumerate(layer.get_weights()):
                group[str(number)] = weight.view(np.uint16) if weight.dtype.name == "bfloat16" else weight
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", model.to_json())
        archive.writestr("model.weights.h5", content.getvalue())
