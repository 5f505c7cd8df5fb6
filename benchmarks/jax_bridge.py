"""Measure localconv.jax: a small call beside a trivial program, a large one beside NumPy's, and JAX's own function.

    python benchmarks/jax_bridge.py                    # everything
    python benchmarks/jax_bridge.py --filter deepface  # some of the unshared shapes
    python benchmarks/jax_bridge.py --quick

Contenders take turns in blocks; what counts is the median over the rounds of the ratio, or of the difference, within a
round (timing.py). Everything computes the same values, which are checked.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from compare import available_cpus, limit_threads
from shapes import Case, cases, smallest_call

# A kernel of 250 MB: (batch, spatial, channels, kernel_size, strides, dilation, filters).
LARGE = Case("unshared", "1d b1 1004x64 k5 f195", 1, (1004,), 64, (5,), (1,), (1,), 195)

CALLS = 300  # of the smallest call in a block


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cpus(), help="for everyone (default: %(default)s)")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only shapes whose name contains this")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not figures to quote")
    return parser.parse_args(arguments)


def convolve(case: Case, x: Any, w: Any) -> Any:
    """The case by localconv.jax."""
    import localconv.jax as lj

    options = {"kernel_size": case.kernel_size, "strides": case.strides, "data_format": "channels_last"}
    if case.rank == 1:
        return lj.local_conv1d(x, w, **options)
    return getattr(lj, f"local_conv{case.rank}d")(x, w, output_shape=case.out, **options)


def by_numpy(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A case of one spatial axis by localconv."""
    import localconv

    return localconv.local_conv1d(x, w, case.kernel_size, case.strides, "channels_last")


def libraries(threads: int) -> tuple[Any, Any]:
    """localconv.jax, and JAX with its own function alone, as peers.py has them."""
    import peers

    class Bridge(peers.Jax):
        name = "localconv.jax"

        def formulations(self, case: Case) -> dict[str, Any]:
            plain = peers.Formulation(peers.PLAIN, peers.PLAIN, peers.PLAIN, convolve)
            return {"bridge": partial(self._step if case.passes > 1 else self._forward, plain)}

    class Own(peers.Jax):
        def formulations(self, case: Case) -> dict[str, Any]:
            label = "conv_general_dilated_local"
            return {label: super().formulations(case)[label]}

    return Bridge(threads), Own(threads)


def seconds(call: Callable[[], object], calls: int) -> float:
    """The mean time of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def rounds_of(contenders: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, list[float]]:
    """Times of every contender, one a round; the order turns from round to round."""
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            contenders[name]()
            times[name].append(seconds(contenders[name], calls))
    return times


def overhead(rounds: int) -> None:
    """Print what the smallest call costs, beside jit of x + 1 and the call by NumPy."""
    import jax
    from peers import random_arrays

    case = smallest_call()
    x, w = random_arrays(case)
    jx, jw = jax.numpy.asarray(x), jax.numpy.asarray(w)
    program, trivial = jax.jit(partial(convolve, case)), jax.jit(lambda x: x + 1)
    np.testing.assert_allclose(program(jx, jw), by_numpy(case, x, w))
    times = rounds_of(
        {
            "x + 1": lambda: trivial(jx).block_until_ready(),
            "bridge": lambda: program(jx, jw).block_until_ready(),
            "NumPy": lambda: by_numpy(case, x, w),
        },
        CALLS,
        rounds,
    )
    above = median(b - a for a, b in zip(times["x + 1"], times["bridge"], strict=True))
    shown = ", ".join(f"{name} {median(values) * 1e6:.1f}" for name, values in times.items())
    print(f"the smallest call, microseconds: {shown}; above x + 1: {above * 1e6:.1f}")


def large(rounds: int) -> None:
    """Print the time of a call with a large kernel over that of the call by NumPy."""
    import jax
    from peers import random_arrays

    x, w = random_arrays(LARGE)
    jx, jw = jax.numpy.asarray(x), jax.numpy.asarray(w)
    program = jax.jit(partial(convolve, LARGE))
    np.testing.assert_array_equal(program(jx, jw), by_numpy(LARGE, x, w))
    contenders = {"bridge": lambda: program(jx, jw).block_until_ready(), "NumPy": lambda: by_numpy(LARGE, x, w)}
    times = rounds_of(contenders, 10, rounds)
    ratio = median(a / b for a, b in zip(times["bridge"], times["NumPy"], strict=True))
    shown = ", ".join(f"{name} {median(values) * 1e3:.2f}" for name, values in times.items())
    print(f"a kernel of {4 * math.prod(LARGE.kernel_shape) / 1e6:.0f} MB, ms: {shown}; ratio {ratio:.3f}")


def own(options: argparse.Namespace) -> None:
    """Print how much faster the bridge is than JAX's own function, shape by shape."""
    from timing import Pace, measure

    bridge, peer = libraries(options.threads)
    pace = Pace(block=0.01, rounds=3) if options.quick else Pace(block=0.03, rounds=5)
    ratios: dict[str, list[float]] = {}
    for case in cases(options.filter):
        if case.family != "unshared":
            continue
        row = measure(case, bridge, [peer], None, pace, lambda words: None)
        ratio = row.peers["jax"].ratio
        ratios.setdefault(case.work, []).append(ratio)
        ours, theirs = row.ours.time * 1e3, row.peers["jax"].time * 1e3
        print(f"{case.name:32} {case.work:14} ms: {ours:9.3f} against {theirs:10.3f}, {ratio:6.1f} times", flush=True)
    for work, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"{work}: {mean:.1f} times in the geometric mean of {len(values)}, {min(values):.1f} at least")


def main(arguments: list[str] | None = None) -> int:
    """Run all comparisons; return the exit status."""
    options = parse(arguments)
    limit_threads(options.threads)
    rounds = 7 if options.quick else 25
    overhead(rounds)
    large(rounds)
    own(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
