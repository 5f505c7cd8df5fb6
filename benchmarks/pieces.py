"""Unshared convolution by the frameworks' own operations: in pieces, as it is computed, against all windows at once.

    python benchmarks/pieces.py                            # PyTorch on the processor
    python benchmarks/pieces.py --framework jax --filter deepface
    python benchmarks/pieces.py --device cuda              # PyTorch on a GPU

Of the unshared shapes of shapes.py the forward result and both gradients, as the median over the rounds of the ratio of
two calls that take turns, the time in pieces over that of all at once; and what each takes beside its operands: on a
processor the growth of the process's peak, which Linux tells, on a GPU what PyTorch allocates. Each has its result in
it. JAX computes on the processor what it would on other platforms.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from compare import limit_threads
from shapes import Case, cases

from localconv.core import formulation

Call = Callable[[], object]
AT_ONCE = 2**62


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("torch", "jax"), default="torch")
    parser.add_argument("--device", default="cpu", help="of PyTorch (default: %(default)s)")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only shapes whose name contains this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="1 where others use the machine (default: all)")
    return parser.parse_args()


def arrays(case: Case) -> list[np.ndarray]:
    """An input, a kernel, and a gradient for the output, channels_last."""
    rng = np.random.default_rng(0)
    shapes = case.input_shape, case.kernel_shape, case.output_shape
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def by_torch(case: Case, device: str) -> dict[str, Call]:
    import torch

    from localconv.torch import fallback
    from localconv.torch.window import arguments_of, window_of

    x, weight, gradient = [torch.from_numpy(array).to(device) for array in arrays(case)]
    x, gradient = x.movedim(-1, 1), gradient.movedim(-1, 1)
    window = window_of(arguments_of(case.rank, case.kernel_size, case.strides, 0, 1, 1))

    def ended(compute: Callable[..., Any], *operands: Any) -> None:
        compute(*operands)
        if device != "cpu":
            torch.accelerator.synchronize()

    return {
        "forward": partial(ended, fallback.forward, x, weight, None, window),
        "input": partial(ended, fallback.grad_input, x.shape, weight, gradient, None, window),
        "kernel": partial(ended, fallback.grad_weight, x, weight.shape, gradient, window),
    }


def by_jax(case: Case, device: str) -> dict[str, Call]:
    import jax

    from localconv.core.spec import local_spec
    from localconv.jax import platforms
    from localconv.jax.window import window_of

    x, kernel, gradient = map(jax.numpy.asarray, arrays(case))
    spec = local_spec(case.rank, case.kernel_size, case.strides, "valid", "channels_last", 1, 1)
    window = window_of(spec, case.spatial)

    def program(operation: str, *operands: Any, **options: Any) -> Call:
        compiled: dict[int, Any] = {}

        def call() -> None:
            if formulation.MEMORY not in compiled:
                traced = jax.jit(partial(platforms._by_jnp, operation, window=window, **options))
                compiled[formulation.MEMORY] = traced.lower(*operands).compile()
            compiled[formulation.MEMORY](*operands).block_until_ready()

        return call

    return {
        "forward": program("local_forward", x, kernel),
        "input": program("local_grad_input", kernel, gradient, spatial=case.spatial),
        "kernel": program("local_grad_kernel", x, gradient),
    }


def within(memory: int, call: Call) -> float:
    """Seconds of a call for which the formulation may take so many bytes."""
    before, formulation.MEMORY = formulation.MEMORY, memory
    try:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    finally:
        formulation.MEMORY = before


def peak_mib(call: Call, memory: int, device: str) -> float:
    """What a call takes beside its operands; nan where nobody tells."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        within(memory, call)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    if sys.platform != "linux":
        return float("nan")
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # of what earlier calls have left
    status = Path("/proc/self/status")

    def read(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1])  # type: ignore[index]

    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    within(memory, call)
    return (read("VmHWM") - before) / 2**10


def main() -> None:
    """Print a line for each shape and operation."""
    options = parsed()
    if options.threads:
        limit_threads(options.threads)
    make, limits = {"torch": by_torch, "jax": by_jax}[options.framework], (formulation.MEMORY, AT_ONCE)
    print(f"{options.framework}, {options.device}: ms in pieces, over the time of all windows at once, MiB of both")
    for case in cases("unshared", ("forward",)):
        if options.filter not in case.name:
            continue
        for name, call in make(case, options.device).items():
            memory = [peak_mib(call, limit, options.device) for limit in limits for _ in range(2)][1::2]
            pairs = [[within(limit, call) for limit in limits] for _ in range(options.rounds)]
            ratio = median(pieces / at_once for pieces, at_once in pairs)
            ms = median(pieces for pieces, _ in pairs) * 1e3
            print(f"{case.name:32} {name:8} {ms:9.2f} {ratio:6.2f}x {memory[0]:8.1f} {memory[1]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
