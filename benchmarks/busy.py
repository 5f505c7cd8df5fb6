"""Measure calls on a machine that others use too: the default threads against one, with busy processes beside them.

    python benchmarks/busy.py                 # none, one, and as many busy processes as processors
    python benchmarks/busy.py --busy 2

The figure is the mean time of a block of calls, since what disturbs is rare and long; blocks of the default threads and
of one thread take turns, and the ratio is that of their sums. A first block of each is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from compare import available_cpus

import localconv

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

CALLS = 400


def conv2d(side: int) -> Callable[[], object]:
    """A 3 x 3 convolution of one image of 64 channels with 64 filters."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, side, side, 64), dtype=np.float32)
    kernel = rng.standard_normal((3, 3, 64, 64), dtype=np.float32)
    out = np.empty_like(x)
    return lambda: localconv.conv2d(x, kernel, padding="same", data_format="channels_last", out=out)


def training_step() -> Callable[[], object]:
    """A step of examples/digits.py."""
    import digits

    rng = np.random.default_rng(0)
    model = digits.network(0)
    x = rng.standard_normal((32, *model.input_shape[1:]), dtype=np.float32)
    target = rng.integers(0, 10, 32)
    model(x)
    optimizer = digits.Adam(model.trainable_weights)
    return lambda: digits.train_step(model, optimizer, x, target, 1e-3)


WORK = {
    "conv2d 14x14x64 f64": lambda: conv2d(14),
    "conv2d 28x28x64 f64": lambda: conv2d(28),
    "digits training step": training_step,
}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that do nothing but use a processor."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def block(call: Callable[[], object], threads: int | None) -> list[float]:
    """The seconds of every call of a block."""
    localconv.set_num_threads(threads)
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def measure(name: str, make: Callable[[], Callable[[], object]], rounds: int) -> float:
    """Print the means and medians; return the ratio of the means."""
    call = make()
    for threads in (None, 1):
        block(call, threads)
    several, one = [], []
    for turn in range(rounds):
        for threads, times in [(None, several), (1, one)][:: 1 if turn % 2 else -1]:
            times += block(call, threads)
    ratio = sum(several) / sum(one)
    print(
        f"  {name:24} mean {1e6 * np.mean(several):8.0f} microseconds, one thread {1e6 * np.mean(one):8.0f}: "
        f"{ratio:.2f}x;   "
        f"median {1e6 * median(several):6.0f}, {1e6 * median(one):6.0f}",
        flush=True,
    )
    return ratio


def main() -> int:
    """Measure; the status is 1 if a mean is above what is wanted beside as many busy processes as processors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, action="append", help="so many busy processes (may be repeated)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--wanted", type=float, default=1.2, help="ratio of the means (default: %(default)s)")
    options = parser.parse_args()
    cpus, threads, worst = available_cpus(), localconv.get_num_threads(), 0.0
    for count in options.busy or (0, 1, cpus):
        print(f"{count} busy processes on {cpus} processors, {threads} threads")
        with busy_processes(count):
            ratios = [measure(name, make, options.rounds) for name, make in WORK.items()]
        worst = max(worst, *ratios) if count >= cpus else worst
    return 1 if worst > options.wanted else 0


if __name__ == "__main__":
    sys.exit(main())
