"""Measure kernels of fewer bytes against float32: unshared convolutions whose time is the time to read the weights.

    python benchmarks/small_kernels.py                    # everything
    python benchmarks/small_kernels.py --filter deepface  # some of the shapes
    python benchmarks/small_kernels.py --quick

Each type has as many kernels as it takes for all of them together to be four times the last-level cache, and a block
goes through them in turn: what a call reads was last read long ago. The types take turns in blocks; what counts is the
median over the rounds of float32's time by the type's within a round. bfloat16 needs ml_dtypes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from compare import available_cpus, instruction_set, limit_threads, processor
from shapes import SHARED, Case

# (spatial, channels, kernel_size, strides, filters): deepface's locally connected layers, and one of more filters.
LAYERS = {
    "deepface-L4 63x63x16 k9 f16": ((63, 63), 16, (9, 9), (1, 1), 16),
    "deepface-L5 55x55x16 k7s2 f16": ((55, 55), 16, (7, 7), (2, 2), 16),
    "deepface-L6 25x25x16 k5 f16": ((25, 25), 16, (5, 5), (1, 1), 16),
    "2d 28x28x64 k3 f64": ((28, 28), 64, (3, 3), (1, 1), 64),
}
BATCHES = (1, 8, 32)
TYPES = ("float32", "float16", "bfloat16", "int8")
# Caches that a machine shares with others are larger than what it gets of them; and a machine has so much memory.
MOST_BYTES = 6 * 2**30


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cpus(), help="(default: %(default)s)")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only shapes whose name contains this")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not figures to quote")
    return parser.parse_args(arguments)


@dataclass
class Kind:
    """One type of kernel: all its kernels, and what was measured."""

    name: str
    kernels: list[Any]
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    error: float = 0.0

    @property
    def nbytes(self) -> int:
        return self.kernels[0].nbytes


def small(kernel: np.ndarray, name: str) -> Any:
    """The kernel in that type."""
    import ml_dtypes

    import localconv

    if name == "int8":
        return localconv.quantize(kernel)
    return kernel.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def kinds(case: Case, caches: int) -> list[Kind]:
    """The types' kernels, so many that all together are four times as large as the caches."""
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal(case.kernel_shape, dtype=np.float32)
    together = int(kernel.nbytes * (1 + 1 / 2 + 1 / 2 + 1 / 4))
    count = max(1, -(-min(4 * caches, MOST_BYTES) // together))
    return [Kind(name, [small(kernel, name) for _ in range(count)]) for name in TYPES]


def seconds(call: Any, kernels: list[Any]) -> float:
    """The mean time of a call over all kernels."""
    start = time.perf_counter()
    for kernel in kernels:
        call(kernel)
    return (time.perf_counter() - start) / len(kernels)


def unshared(case: Case, found: list[Kind], rounds: int) -> None:
    """Measure forward results and input gradients; print a line a type."""
    import localconv

    generator = np.random.default_rng(1)
    x = generator.standard_normal(case.input_shape, dtype=np.float32)
    dy = generator.standard_normal(case.output_shape, dtype=np.float32)
    y, dx = np.empty_like(dy), np.empty_like(x)
    options = {"data_format": "channels_last"}
    step = (case.kernel_size, case.strides)

    def forward(kernel: Any) -> np.ndarray:
        return localconv.local_conv2d(x, kernel, *step, out=y, **options)

    def backward(kernel: Any) -> np.ndarray:
        return localconv.grad.local_conv2d_input(x.shape, kernel, dy, *step, out=dx, **options)

    exact = forward(found[0].kernels[0]).copy()
    for kind in found:
        kind.error = float(abs(forward(kind.kernels[0]) - exact).max() / abs(exact).max())
        backward(kind.kernels[0])
    for number in range(rounds):
        for kind in found[number % len(found) :] + found[: number % len(found)]:
            kind.forward.append(seconds(forward, kind.kernels))
            kind.backward.append(seconds(backward, kind.kernels))
    report(f"{case.name}, batch {case.batch}", found)


def report(title: str, found: list[Kind]) -> None:
    """Print a line a type, each beside float32."""
    first = found[0]
    for kind in found:
        line = f"{title:38} {kind.name:9} {kind.nbytes / 1e6:7.1f} MB"
        for label, mine, theirs in (
            ("forward", kind.forward, first.forward),
            ("input gradient", kind.backward, first.backward),
        ):
            if mine:
                ratio = median(a / b for a, b in zip(theirs, mine, strict=True))
                line += f"  {label} {median(mine) * 1e3:7.2f} ms {ratio:5.2f}x"
        print(f"{line}  difference {kind.error:.1e}", flush=True)


def shared(case: Case, rounds: int) -> None:
    """The same for a shared convolution, whose kernel is small: what widening it costs."""
    import localconv

    generator = np.random.default_rng(2)
    x = generator.standard_normal(case.input_shape, dtype=np.float32)
    kernel = generator.standard_normal(case.kernel_shape, dtype=np.float32)
    y = np.empty(case.output_shape, np.float32)
    function = partial(getattr(localconv, f"conv{case.rank}d"), x)
    options = {"padding": "valid", "data_format": "channels_last", "dilation_rate": case.dilation, "out": y}

    def forward(kernel: Any) -> np.ndarray:
        return function(kernel, case.strides, **options)

    found = [Kind(name, [small(kernel, name)] * 8) for name in TYPES]
    exact = forward(kernel).copy()
    for kind in found:
        kind.error = float(abs(forward(kind.kernels[0]) - exact).max() / abs(exact).max())
    for number in range(rounds):
        for kind in found[number % len(found) :] + found[: number % len(found)]:
            kind.forward.append(seconds(forward, kind.kernels))
    report(case.name, found)


def main(arguments: list[str] | None = None) -> int:
    """Run all comparisons; return the exit status."""
    options = parse(arguments)
    limit_threads(options.threads)
    import localconv
    from localconv import _core

    localconv.set_num_threads(options.threads)
    caches = _core.cache_sizes()[2]
    rounds = 3 if options.quick else 9
    print(
        f"{processor()}, {options.threads} threads, {instruction_set()}, last-level cache {caches / 2**20:.0f} MiB; "
        f"'x': float32's time by the type's; difference: the largest, by the largest result"
    )
    for name, (spatial, channels, kernel_size, strides, filters) in LAYERS.items():
        if options.filter not in name:
            continue
        first = Case("unshared", name, 1, spatial, channels, kernel_size, strides, (1, 1), filters)
        found = kinds(first, caches)
        for batch in BATCHES:
            kept = [Kind(kind.name, kind.kernels) for kind in found]
            case = Case("unshared", name, batch, spatial, channels, kernel_size, strides, (1, 1), filters)
            unshared(case, kept, rounds)
    for name, entry in SHARED.items():
        if options.filter in name:
            shared(Case("shared", name, *entry), rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
