"""Measure `localconv.torch` inside PyTorch: ``python benchmarks/torch_bridge.py``; ``--quick`` for a first look.

Five tables, each of ratios of times taken in turn in one process, medians over the rounds:

- training steps (forward, backward for input, weight and bias) and inference of the unshared shapes of shapes.py,
  against the faster of two formulations in torch's own operations: unfold and bmm, and unfold and einsum;
- what the bridge costs: the same shapes against `localconv` on NumPy arrays, and microseconds of the smallest call;
- one OpenMP runtime: torch's and localconv's calls alternating, over the sum of both alone, for either order of import;
- memory: how much the process grows over many training steps.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import geometric_mean, median

import numpy as np
import torch
from shapes import Case, cases, smallest_call

import localconv
from localconv import grad
from localconv.torch import functional

Call = Callable[[], object]


def timed(call: Call, repeats: int) -> float:
    """Return seconds a call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def alternate(calls: list[Call], rounds: int, block: float) -> list[list[float]]:
    """Return the times of every call, a block of each in turn, with a pause for the threads of the one before."""
    for call in calls:
        call()
    repeats = [max(1, round(block / max(timed(call, 1), 1e-7))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        for k in range(len(calls)):
            k = (k + number) % len(calls)
            time.sleep(0.01)
            times[k].append(timed(calls[k], repeats[k]))
    return times


def ratio(of: list[float], over: list[float]) -> float:
    """Return the median of the ratios of the rounds."""
    return median([a / b for a, b in zip(of, over, strict=True)])


def tensors(case: Case) -> list[torch.Tensor]:
    """Return input (channels_last memory), weight, bias, and a gradient for the output."""
    torch.manual_seed(0)
    x = torch.randn(case.input_shape).movedim(-1, 1)
    bias = torch.randn(case.filters, *case.out)
    gradient = torch.randn(case.output_shape).movedim(-1, 1)
    return [x, torch.randn(case.kernel_shape) / math.sqrt(case.window), bias, gradient]


def windows(x: torch.Tensor, case: Case) -> torch.Tensor:
    """Return what every position sees, (positions, N, taps * channels), by unfold."""
    for axis in range(case.rank):
        x = x.unfold(2 + axis, case.kernel_size[axis], case.strides[axis])
    order = (*range(2, 2 + case.rank), 0, *range(2 + case.rank, 2 + 2 * case.rank), 1)
    return x.permute(order).reshape(case.positions, case.batch, case.window)


def by_bmm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, case: Case) -> torch.Tensor:
    """Return the layer's output by unfold and bmm."""
    y = torch.bmm(windows(x, case), weight)
    return y.permute(1, 2, 0).reshape(case.batch, case.filters, *case.out) + bias


def by_einsum(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, case: Case) -> torch.Tensor:
    """Return the layer's output by unfold and einsum."""
    y = torch.einsum("pnd,pdf->nfp", windows(x, case), weight)
    return y.reshape(case.batch, case.filters, *case.out) + bias


def ours(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, case: Case) -> torch.Tensor:
    """Return the layer's output by localconv.torch."""
    function = getattr(functional, f"local_conv{case.rank}d")
    return function(x, weight, case.kernel_size, bias, case.strides)


def inference(formulation: Callable[..., torch.Tensor], case: Case, given: list[torch.Tensor]) -> Call:
    """Return a call without gradients."""
    x, weight, bias, _ = given

    def call() -> torch.Tensor:
        with torch.no_grad():
            return formulation(x, weight, bias, case)

    return call


def step(formulation: Callable[..., torch.Tensor], case: Case, given: list[torch.Tensor]) -> Call:
    """Return a call of forward and backward, for all of the gradients."""
    leaves = [t.detach().requires_grad_() for t in given[:3]]

    def call() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(formulation(*leaves, case), leaves, given[3])

    return call


def in_numpy(case: Case, given: list[torch.Tensor], training: bool) -> Call:
    """Return the same computation on NumPy arrays that share the tensors' memory."""
    x, weight, bias, gradient = [t.detach() for t in given]
    x, gradient = x.movedim(1, -1).numpy(), gradient.movedim(1, -1).numpy()
    kernel, terms = weight.numpy(), np.ascontiguousarray(bias.movedim(0, -1).numpy())
    options = (case.kernel_size, case.strides, *((None,) if case.rank > 1 else ()), "channels_last")
    forward = getattr(localconv, f"local_conv{case.rank}d")
    to_input, to_kernel = (getattr(grad, f"local_conv{case.rank}d_{of}") for of in ("input", "kernel"))

    def call() -> object:
        y = forward(x, kernel, *options, bias=terms)
        if not training:
            return y
        return (
            y,
            to_input(x.shape, kernel, gradient, *options),
            to_kernel(x, kernel.shape, gradient, *options),
            grad.bias(terms.shape, gradient, "channels_last"),
        )

    return call


def compare(case: Case, training: bool, rounds: int, block: float) -> tuple[float, float, float]:
    """Return milliseconds of ours, how many times longer torch's best takes, and our time over NumPy's."""
    given, make = tensors(case), step if training else inference
    own, rivals = make(ours, case, given), [make(rival, case, given) for rival in (by_bmm, by_einsum)]
    results = [call() for call in (own, *rivals)]
    for result in results[1:]:
        for one, other in zip(*[r if isinstance(r, tuple) else (r,) for r in (results[0], result)], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * math.sqrt(case.window * case.batch))
    best = min(rivals, key=lambda call: timed(call, 1))
    times = alternate([own, best, in_numpy(case, given, training)], rounds, block)
    return median(times[0]) * 1e3, ratio(times[1], times[0]), ratio(times[0], times[2])


def shapes_table(substring: str, rounds: int, block: float) -> None:
    """Print steps and inference of the unshared shapes."""
    for training in (True, False):
        print(f"\n{'training step' if training else 'inference':32} {'ms':>8} {'torch':>8} {'over NumPy':>11}")
        gains = []
        for case in cases("unshared", ("forward",)):
            if substring not in case.name:
                continue
            ms, gain, over = compare(case, training, rounds, block)
            gains.append(gain)
            print(f"{case.name:32} {ms:8.2f} {gain:7.2f}x {over:10.2f}x", flush=True)
        if gains:
            print(f"{'geometric mean':32} {'':8} {geometric_mean(gains):7.2f}x")


def smallest(rounds: int) -> None:
    """Print what the smallest call costs beyond NumPy's, in microseconds."""
    case = smallest_call()
    given = tensors(case)
    print(f"\n{'smallest call, microseconds':32} {'ours':>8} {'NumPy':>8} {'torch':>8} {'overhead':>9}")
    for training in (False, True):
        make = step if training else inference
        calls = [make(ours, case, given), in_numpy(case, given, training), make(by_bmm, case, given)]
        own, plain, torchs = [[t * 1e6 for t in times] for times in alternate(calls, rounds, 0.05)]
        over = median([a - b for a, b in zip(own, plain, strict=True)])
        name = "forward and backward" if training else "without gradients"
        print(f"{name:32} {median(own):8.1f} {median(plain):8.1f} {median(torchs):8.1f} {over:9.1f}")


ALTERNATING = """
import sys, time
from statistics import median
if sys.argv[1] == "torch":
    import torch, localconv
else:
    import localconv, torch
import numpy as np
rounds = int(sys.argv[2])
for length, channels, size, repeats in ((200, 32, 300, 40), (2000, 64, 800, 5)):
    x = np.ones((16, length, channels), np.float32)
    kernel = np.ones((length - 2, 3 * channels, channels), np.float32)
    square = torch.ones(size, size)
    calls = [lambda: localconv.local_conv1d(x, kernel, 3, 1, "channels_last"), lambda: torch.mm(square, square)]
    both = lambda: [call() for call in calls]
    both()
    ratios = []
    for _ in range(rounds):
        times = []
        for call in (*calls, both):
            time.sleep(0.02)
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times.append(time.perf_counter() - start)
        ratios.append(times[2] / (times[0] + times[1]))
    alone = [1e3 * seconds / repeats for seconds in times[:2]]
    print(f"{sys.argv[1]:9} first {alone[0]:25.2f} {alone[1]:8.2f} {median(ratios):7.2f}x")
"""


def runtimes(rounds: int) -> None:
    """Print how long alternating calls take over the sum of both alone."""
    print(f"\n{'one OpenMP runtime':32} {'ours ms':>8} {'mm ms':>8} {'both':>8}", flush=True)
    for order in ("torch", "localconv"):
        subprocess.run([sys.executable, "-c", ALTERNATING, order, str(rounds)], check=True)


def growth(steps: int) -> None:
    """Print how much the process grew over so many training steps."""
    case = smallest_call()
    call = step(ours, case, tensors(case))

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    timed(call, 1000)
    before = resident()
    timed(call, steps)
    print(f"\n{steps} training steps: the process grew by {(resident() - before) / 2**10:.0f} KiB")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only shapes whose name contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    localconv.set_num_threads(options.threads)
    rounds, block = (5, 0.05) if options.quick else (21, 0.2)
    print(f"torch {torch.__version__}, localconv {localconv.__version__}, {options.threads} threads")
    smallest(2 * rounds)
    runtimes(rounds)
    if sys.platform == "linux":
        growth(10**4 if options.quick else 10**5)
    shapes_table(options.filter, rounds, block)


if __name__ == "__main__":
    main()
