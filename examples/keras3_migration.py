"""A model that Keras 2.15 saved, opened in Keras 3, trained further, and opened again on another backend.

    pip install '.[keras,torch]' jax        # two of Keras's backends, any
    python examples/keras3_migration.py             # the story, a minute
    python examples/keras3_migration.py --full-size # deepface's own network: time and memory of both engines

The file is a small copy of the network of the deepface package (FbDeepFace), whose three LocallyConnected2D layers
Keras 3 cannot read by itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

OLD_FILE = Path(__file__).parent.parent / "tests" / "golden" / "layers" / "deepface.model.h5"
BACKENDS = ("tensorflow", "torch", "jax")
MEBIBYTE = 2**20


def installed_backends():
    return [name for name in BACKENDS if importlib.util.find_spec(name)]


def faces(count):
    """Pictures of nobody: waves, of as many kinds as there are answers."""
    import numpy as np

    rows, columns, channels = np.ogrid[:71, :71, :3]
    kinds = np.arange(count) % 5
    waves = [np.sin(0.3 * rows + 0.1 * (kind + 2) * columns * (channels + 1) + channels) for kind in kinds]
    return np.stack(waves).astype("float32"), kinds


def story(folder):
    """All of it but the other backend, which has a process of its own."""
    import keras
    import numpy as np

    import localconv.keras
    import localconv.layers

    keras.utils.set_random_seed(3)
    localconv.keras.install()
    model = keras.models.load_model(OLD_FILE, compile=False)
    x, kinds = faces(20)
    y = model.predict(x, verbose=0)
    same = localconv.layers.load_model(OLD_FILE).predict(x)
    difference = abs(y - same).max()
    print(f"{OLD_FILE.name}, saved by Keras 2.15, on {keras.backend.backend()}: as localconv.layers", end=" ")
    print(f"but for {difference:.1e}")
    assert difference < 1e-5

    model.compile(keras.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.evaluate(x, kinds, verbose=0)
    model.fit(x, kinds, epochs=12, batch_size=5, verbose=0)
    after = model.evaluate(x, kinds, verbose=0)
    print(f"trained further: loss {before[0]:.3f} before, {after[0]:.3f} after")
    assert after[0] < before[0]

    path = folder / "model.keras"
    model.save(path)
    np.savez(folder / "answers.npz", x=x, y=model.predict(x, verbose=0))
    return path


def opened_again(folder):
    """What another backend makes of the file."""
    import keras
    import numpy as np

    import localconv.keras

    assert localconv.keras.LocallyConnected2D  # imported is enough: the file names the class itself
    model = keras.models.load_model(folder / "model.keras")
    with np.load(folder / "answers.npz") as file:
        x, y = file["x"], file["y"]
    difference = abs(model.predict(x, verbose=0) - y).max()
    print(f"opened again on {keras.backend.backend()}: the same but for {difference:.1e}")
    assert difference < 1e-4


def deepface(engine):
    """FbDeepFace at full size, 152 x 152 x 3: its first locally connected kernel alone has 250 MB."""
    from keras import Input, Sequential
    from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D

    from localconv.keras import LocallyConnected2D

    return Sequential(
        [
            Input((152, 152, 3)),
            Conv2D(32, 11, activation="relu", name="C1"),
            MaxPooling2D(pool_size=3, strides=2, padding="same", name="M2"),
            Conv2D(16, 9, activation="relu", name="C3"),
            LocallyConnected2D(16, 9, activation="relu", engine=engine, name="L4"),
            LocallyConnected2D(16, 7, strides=2, activation="relu", engine=engine, name="L5"),
            LocallyConnected2D(16, 5, activation="relu", engine=engine, name="L6"),
            Flatten(name="F0"),
            Dense(4096, activation="relu", name="F7"),
            Dropout(rate=0.5, name="D0"),
            Dense(8631, activation="softmax", name="F8"),
        ]
    )


def memory(name):
    """Of this process in MB, on Linux: VmRSS, or VmHWM for the most since `forget_peak`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def full_size(engine):
    """One face through the network, as deepface asks for: seconds, and memory beyond what the built model takes."""
    import keras
    import numpy as np

    model = deepface(engine)
    # JAX makes the weights while the program goes on.
    assert all(np.isfinite(keras.ops.convert_to_numpy(keras.ops.max(weight))) for weight in model.weights)
    x = np.random.default_rng(0).random((1, 152, 152, 3), dtype=np.float32)
    forget_peak()
    built = memory("VmRSS")
    start = time.perf_counter()
    y = model.predict(x, verbose=0)
    first, first_peak = time.perf_counter() - start, memory("VmHWM") - built
    forget_peak()
    before, seconds = memory("VmRSS"), []
    for _ in range(7):
        start = time.perf_counter()
        again = model.predict(x, verbose=0)
        seconds.append(time.perf_counter() - start)
    assert y.shape == (1, 8631)
    np.testing.assert_allclose(again, y, rtol=1e-4)
    grown = memory("VmHWM") - before
    found = {"first": first, "first_peak": first_peak, "predict": median(seconds), "grown": grown}
    print(json.dumps(found | {"weights": model.count_params() * 4 / MEBIBYTE}))


def elsewhere(backend, *arguments):
    """This file in a process of its own, on a backend."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def compare_full_size():
    """Both engines on every backend, a process each."""
    if sys.platform != "linux":
        sys.exit("memory is read from /proc, which only Linux has")
    print("backend      engine     first s, MB more    each ms, MB more")
    for backend in installed_backends():
        for engine in ("compiled", "ops"):
            found = json.loads(elsewhere(backend, "--one-engine", engine).splitlines()[-1])
            first = f"{found['first']:7.2f} {found['first_peak']:8.0f}"
            print(f"{backend:12} {engine:10} {first} {1e3 * found['predict']:10.1f} {found['grown']:8.0f}", flush=True)
    print(f"the weights have {found['weights']:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true", help="deepface's own network by both engines")
    parser.add_argument("--one-engine", choices=("compiled", "ops"), help=argparse.SUPPRESS)
    parser.add_argument("--story", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one_engine:
        full_size(chosen.one_engine)
    elif chosen.story:
        story(chosen.story)
    elif chosen.open:
        opened_again(chosen.open)
    elif chosen.full_size:
        compare_full_size()
    else:
        backends = installed_backends()
        if not backends:
            sys.exit(f"one of Keras's backends is needed: {', '.join(BACKENDS)}")
        with tempfile.TemporaryDirectory() as folder:
            print(elsewhere(backends[0], "--story", folder), end="")
            for backend in backends[1:] or backends:
                print(elsewhere(backend, "--open", folder), end="")


if __name__ == "__main__":
    main()
