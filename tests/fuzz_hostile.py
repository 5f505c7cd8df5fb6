"""Rounds of the fuzzer over objects that are not what they say, and over what is replaced behind a library's back."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from fuzz_functions import draw_call
from fuzz_layers import draw_layer, guarded
from fuzz_values import REFUSALS, Finding

import localconv
from localconv import QuantizedKernel, layers


def lying_class(rng, shape):
    """A class of arrays that answers for one attribute what is not so."""
    lies = {
        "shape": tuple(rng.choice([0, 1, 3 * n + 1]) for n in shape),
        "size": rng.choice([0, 1, 10**6]),
        "ndim": rng.choice([0, 1, 7]),
        "dtype": np.dtype(rng.choice(["float32", "float64", "int8"])),
        "flags": np.zeros(1).flags,
        "strides": tuple(4 for _ in shape),
    }
    name = rng.choice(sorted(lies))
    return type("Lying", (np.ndarray,), {name: property(lambda self: lies[name])})


class Meddling:
    """No array, though it says that it is one; whoever asks it anything shrinks an array of the call's."""

    def __init__(self, array):
        object.__setattr__(self, "array", array)

    def __getattribute__(self, name):
        array = object.__getattribute__(self, "array")
        with contextlib.suppress(ValueError):  # where somebody holds it
            array.resize((1,), refcheck=False)
        if name == "__class__":
            return np.ndarray
        return getattr(array, name)

    def __bool__(self):
        return self.array is not None  # which shrinks it


def lying_round(rng, seed):
    """A right call with one array of a class that lies, or with an argument that changes another array when asked.

    It is refused, or computes what NumPy itself knows of the array.
    """
    operation, arguments, expected = draw_call(rng)
    arrays = [key for key, value in arguments.items() if type(value) is np.ndarray and value.size]
    if not arrays:
        return "refused"
    key = rng.choice(arrays)
    given = {name: value.copy() if name in arrays else value for name, value in arguments.items()}
    if rng.random() < 0.5:
        given[key] = given[key].view(lying_class(rng, given[key].shape))
    elif operation.accumulates and rng.random() < 0.5:
        given["out"] = np.zeros(expected.shape, given[key].dtype)
        given["accumulate"] = Meddling(given[key])
    else:
        given["out"] = Meddling(given[key])
    try:
        getattr(operation.module, operation.name)(**given)
    except REFUSALS:
        return "refused"
    except Exception as error:
        raise Finding(f"seed {seed}: {operation.name} raised {error!r} for an array that lies") from error
    if type(given.get("out")) is Meddling:
        raise Finding(f"seed {seed}: {operation.name} took an out that is no array")
    return "checked"


def kept_kernel_round(rng, seed):
    """A quantized kernel stays what it was made as, whatever happens to the arrays it was made of and hands out."""
    positions, rows, filters = rng.randint(1, 9), 3 * rng.randint(1, 4), rng.randint(1, 20)
    values = np.random.default_rng(seed).integers(-127, 128, (positions, rows, filters), np.int8)
    scales = np.full((positions, filters), 0.5, np.float32)
    kernel = QuantizedKernel(values, scales)
    x = np.ones((2, positions + 2, rows // 3), np.float32)
    expected = values.astype(float).sum(1) / 2
    misuses = [
        lambda: setattr(values, "shape", (values.size,)),
        lambda: setattr(scales, "shape", (scales.size, 1)),
        lambda: setattr(kernel.values, "shape", (values.size, 1, 1)),
        lambda: setattr(kernel.scales, "shape", (1, scales.size)),
        lambda: values.resize((1,), refcheck=False),
        lambda: scales.resize((10**6,), refcheck=False),
        lambda: kernel.values.setflags(write=True),
        lambda: kernel.scales.__setitem__(..., np.nan),
    ]
    for misuse in rng.sample(misuses, 3):
        try:
            misuse()
        except ValueError:
            continue
    result = localconv.local_conv1d(x, kernel, 3, 1, "channels_last")
    if not np.allclose(result, expected, rtol=1e-4, atol=1e-3):
        raise Finding(f"seed {seed}: a quantized kernel changed")
    return "checked"


def replaced_round(rng, seed):
    """A layer, quantized or not, one of whose attributes was replaced by a variable of any shape and value."""
    maker, arguments, x = draw_layer(rng)
    layer = guarded(seed, f"{maker.__name__}({arguments})", True, lambda: maker(**arguments))
    guarded(seed, f"{maker.__name__}({arguments}), called", True, lambda: layer(np.asarray(x, "f")))
    if not hasattr(layer, "kernel_size") or not hasattr(layer, "kernel"):
        return "refused"
    if rng.random() < 0.7:
        try:
            layer.quantize(rng.choice(["int8", "float16"]))
        except REFUSALS:
            return "refused"
    shape = rng.choice([(), (1,), (1, 1), (2, 3, 4), (10**5,), layer.kernel.shape])
    name = rng.choice(["kernel", "kernel_scale", "bias"])
    other = rng.choice([layers.Variable(np.ones(shape, "f"), "other"), None, np.ones(shape, "f")])
    try:
        setattr(layer, name, other)
    except TypeError:
        return "refused"
    what = f"a {type(layer).__name__} whose {name} was replaced by one of shape {shape}"
    try:
        layer(np.asarray(x, "f"))
    except REFUSALS:
        return "refused"
    except Exception as error:
        raise Finding(f"seed {seed}: {what} raised {error!r}") from error
    return "checked"


def stream_round(rng, seed):
    """The command line with some of its streams closed: status as ever, and what is written is whole."""
    closed = rng.sample([0, 1, 2], rng.randint(1, 3))
    model = layers.Sequential([layers.Dense(2, name=rng.choice(["dense", "d\u00e9nse", "\u5c64"]))])
    model.build((None, 3))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.h5", Path(folder) / "weights.npz"
        model.save(source)
        redirect = " ".join(f"{number}>&-" for number in closed)
        command = f'exec "{sys.executable}" -m localconv convert "{source}" "{target}" {redirect}'
        # All that is around: a sanitizer's runtime must be loaded in this process too.
        environment = os.environ | {"PYTHONPATH": ":".join(sys.path), "LC_ALL": rng.choice(["C", "C.UTF-8"])}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False, timeout=50)
        what = f"convert of a layer {model.layers[0].name!r} with {redirect}"
        if done.returncode or not target.exists():
            raise Finding(f"seed {seed}: {what}: status {done.returncode}, {done.stderr[-300:]!r}")
        again = guarded(seed, what, True, lambda: model.load_weights(target) or model)
    return "checked" if again is not None else "refused"


ROUNDS = [lying_round] * 2 + [kept_kernel_round, replaced_round]
# A process each: seldom.
SLOW_ROUNDS = [stream_round]
