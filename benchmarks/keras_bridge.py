"""Measure localconv.keras: training and prediction by the compiled kernels over those by the engine "ops", per backend.

    python benchmarks/keras_bridge.py                   # every backend that is installed, a process each
    python benchmarks/keras_bridge.py --backends torch
    python benchmarks/keras_bridge.py --quick

The network has two locally connected layers on images of 28 x 28, in batches of 64. Both engines take turns in blocks,
and what counts is the median over the rounds of the ratio within a round. Then a kernel of 250 MB: how much memory a
prediction takes beyond what is there, in kernels (Linux only).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

BACKENDS = ("tensorflow", "torch", "jax", "numpy")
BATCH, BATCHES = 64, 8
ENGINES = ("compiled", "ops")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not figures to quote")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def network(engine: str) -> Any:
    """The network, with the same weights for every engine."""
    import keras

    from localconv.keras import LocallyConnected2D

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            LocallyConnected2D(16, 3, activation="relu", engine=engine),
            LocallyConnected2D(16, 3, activation="relu", engine=engine),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def seconds(call: Callable[[], object]) -> float:
    """The time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name: str, calls: dict[str, Callable[[], object]], rounds: int) -> None:
    """Print both engines' time of one batch, and the median of their ratios."""
    times: dict[str, list[float]] = {engine: [] for engine in calls}
    for number in range(rounds):
        for engine in ENGINES if number % 2 else ENGINES[::-1]:
            times[engine].append(seconds(calls[engine]) / BATCHES)
    ratio = median(b / a for a, b in zip(times["compiled"], times["ops"], strict=True))
    shown = " ".join(f"{engine} {1e3 * median(values):8.2f}" for engine, values in times.items())
    print(f"{name:12} ms a batch: {shown}   ops over compiled {ratio:5.2f}", flush=True)


def check(models: dict[str, Any], x: Any) -> None:
    """Assert that what comes out of the locally connected layers differs between the engines by rounding alone.

    A layer that sums so many terms adds at most terms * eps times the sum of |weight| |input| to the error of its
    input, and relu makes none larger: so what the layers make of absolute values bounds the whole. Behind the dense
    layer, whose answers are small beside such a sum, the comparison would say nothing.
    """
    import keras
    import numpy as np

    def answers(model: Any, images: Any) -> Any:
        local = keras.Model(model.inputs, model.layers[1].output)
        return local.predict(images, batch_size=BATCH, verbose=0)

    ours, theirs = (answers(model, x) for model in models.values())
    absolute = network("compiled")
    absolute.set_weights([abs(weight) for weight in models["compiled"].get_weights()])
    # A kernel is (positions, products in a sum, filters); the bias is one term more.
    terms = sum(layer.kernel.shape[1] + 1 for layer in absolute.layers[:2])
    limit = 2 * terms * np.finfo(np.float32).eps * answers(absolute, abs(x))
    assert (abs(ours - theirs) <= limit).all(), f"the engines differ by up to {abs(ours - theirs).max()}"


def two_layers(rounds: int) -> None:
    """Compare the engines on the network."""
    import keras
    import numpy as np

    name = keras.backend.backend()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * BATCHES, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, BATCH * BATCHES)
    models = {engine: network(engine) for engine in ENGINES}
    check(models, x)
    predict = {
        engine: lambda model=model: model.predict(x, batch_size=BATCH, verbose=0) for engine, model in models.items()
    }
    compare(f"{name} predict", predict, rounds)
    if name == "numpy":
        return  # Keras trains on the others only
    fit = {engine: lambda model=model: model.fit(x, y, batch_size=BATCH, verbose=0) for engine, model in models.items()}
    for call in fit.values():
        call()
    compare(f"{name} fit", fit, rounds)


def resident(name: str) -> int:
    """Bytes of this process: VmRSS, or VmHWM for their peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def large_kernel() -> None:
    """Print what a prediction by a kernel of 250 MB, deepface's L4, takes."""
    import keras
    import numpy as np

    from localconv.keras import LocallyConnected2D

    for engine in ENGINES:
        layer = LocallyConnected2D(16, 9, engine=engine, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((63, 63, 16)), layer])
        x = np.zeros((1, 63, 63, 16), np.float32)
        model.predict(x, verbose=0)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        times = [seconds(partial(model.predict, x, verbose=0)) for _ in range(5)]
        grown = (resident("VmHWM") - before) / (4 * 3025 * 1296 * 16)
        print(
            f"{keras.backend.backend():12} a kernel of 250 MB, {engine}: predict {1e3 * median(times):.0f} ms, "
            f"memory {grown:.2f} kernels more",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run every backend in a process of its own; return the exit status."""
    options = parse(arguments)
    if options.here:
        two_layers(5 if options.quick else 15)
        if sys.platform == "linux":
            large_kernel()
        return 0
    for backend in options.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend:12} is not installed")
            continue
        command = [sys.executable, __file__, "--here", *(["--quick"] if options.quick else [])]
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
