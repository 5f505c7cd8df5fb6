"""localconv.torch on whatever accelerator is there: values, then times against what PyTorch can do there, and memory.

    python benchmarks/device.py --out DIRECTORY      # at most eight minutes on one GPU
    TRITON_INTERPRET=1 python benchmarks/device.py --test    # no accelerator: small shapes on the processor

Of each shape the forward result and a training step (both gradients) by PyTorch's operations (`localconv.torch`'s
formulation), by Triton's kernels, and by what people write, `unfold` and `bmm`, or `einsum`. Values are compared with
the processor's compiled kernels first: times of wrong results are worth nothing. "bytes" is the share of the device's
bandwidth, a copy measured in the same run, that reading each operand and writing each result once would take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import shapes
import torch
import torch.nn.functional as F

import localconv
import localconv.torch as lt
from localconv.torch import fallback

# Seconds after which no shape is begun.
BUDGET = 420
REPEATS, LONG = 20, 0.25


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("device"))
    parser.add_argument("--test", action="store_true", help="small shapes on the processor, kernels interpreted")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    return parser.parse_args()


def device_of(test: bool) -> torch.device:
    if test:
        return torch.device("cpu")
    if not torch.accelerator.is_available():
        sys.exit("no accelerator that this PyTorch can use; --test runs small shapes on the processor")
    return torch.accelerator.current_accelerator()


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def median_ms(call: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of a call: the median of some, fewer of long ones."""
    call()
    wait(device)
    times, start = [], time.perf_counter()
    while len(times) < REPEATS and (len(times) < 3 or time.perf_counter() - start < LONG):
        wait(device)
        before = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e3


def peak_mib(call: Callable[[], Any], device: torch.device) -> float | None:
    """Memory that a call takes beside its operands; None where the device does not tell."""
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    wait(device)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def bandwidth(device: torch.device, test: bool) -> float:
    """Bytes a second of a copy, both ways counted."""
    source = torch.ones(2**20 if test else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / (median_ms(lambda: target.copy_(source), device) / 1e3)


def local_cases(test: bool) -> dict[str, dict[str, Any]]:
    """The unshared shapes of the benchmark, without the smallest and the largest batch."""
    if test:
        return {"2d b2 5x5x3 k3 f4": {"size": (2, 3, 5, 5), "k": (3, 3), "s": (1, 1), "f": 4}}
    made = {}
    for name, (batch, spatial, channels, k, s, filters) in list(shapes.LOCAL.items())[1:11]:
        made[name] = {"size": (batch, channels, *spatial), "k": k, "s": s, "f": filters}
    return made


def filter_cases(test: bool) -> dict[str, dict[str, Any]]:
    if test:
        return {"2d b2 5x4x4 k3 g2": {"size": (2, 4, 5, 4), "k": (3, 3), "g": 2}}
    made = {}
    for name, (batch, spatial, channels, k, groups) in shapes.FILTERS.items():
        made[name] = {"size": (batch, channels, *spatial), "k": k, "g": groups}
    return made


def by_unfold(case: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """Windows laid out, and one product for each position."""
    rank = len(case["k"])

    def compute(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        windows = x.movedim(1, -1)
        for axis, (k, s) in enumerate(zip(case["k"], case["s"], strict=True)):
            windows = windows.unfold(1 + axis, k, s)
        out = windows.shape[1 : 1 + rank]
        # (N, *out, C, *k) to (positions, N, taps * C)
        order = (*range(1, 1 + rank), 0, *range(2 + rank, 2 + 2 * rank), 1 + rank)
        rows = windows.permute(order).reshape(prod(out), x.shape[0], -1)
        return torch.bmm(rows, weight).reshape(*out, x.shape[0], -1).movedim((rank, rank + 1), (0, 1))

    return compute


def by_einsum(case: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """Windows of all pixels, and a sum of products over the taps."""
    rank, groups = len(case["k"]), case["g"]

    def compute(x: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        pads = [n for k in reversed(case["k"]) for n in ((k - 1) // 2, k - 1 - (k - 1) // 2)]
        windows = F.pad(x, pads)
        for axis, k in enumerate(case["k"]):
            windows = windows.unfold(2 + axis, k, 1)
        windows = windows.flatten(2 + rank).unflatten(1, (groups, -1))
        by_group = filters.unflatten(1, (groups, -1))
        letters = "xyz"[:rank]
        return torch.einsum(f"ngc{letters}t,ngt{letters}->ngc{letters}", windows, by_group).flatten(1, 2)

    return compute


def ways_of(ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor]) -> dict[str, tuple[bool, Any]]:
    """By name: whether Triton's kernels are on, and the function."""
    return {"formulation": (False, ours), "triton": (True, ours), "unfold": (False, theirs)}


def measure(
    compute: Callable[..., torch.Tensor],
    operands: list[torch.Tensor],
    expected: list[torch.Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """Errors against the processor's values, then times and memory, forward and of a step."""
    given = [t.detach().to(device).requires_grad_() for t in operands]
    y = compute(*given)
    gradient = torch.ones_like(y)
    results = [y, *torch.autograd.grad(y, given, gradient)]
    errors = [
        ((a.double().cpu() - b).abs().max() / b.abs().max()).item() for a, b in zip(results, expected, strict=True)
    ]

    def step() -> None:
        torch.autograd.grad(compute(*given), given, gradient)

    with torch.no_grad():
        forward = median_ms(lambda: compute(*given), device)
        memory = peak_mib(lambda: compute(*given), device)
    return {
        "error": max(errors),
        "forward_ms": forward,
        "step_ms": median_ms(step, device),
        "forward_mib": memory,
        "step_mib": peak_mib(step, device),
    }


def row(
    name: str, ours: Any, theirs: Any, operands: list[torch.Tensor], device: torch.device, speed: float, test: bool
) -> dict[str, Any]:
    wide = [t.double().requires_grad_() for t in operands]
    lt.use_triton(False)
    y = ours(*wide)
    expected = [t.detach() for t in (y, *torch.autograd.grad(y, wide, torch.ones_like(y)))]
    size = sum(t.nbytes for t in operands) + y.numel() * operands[0].itemsize
    made: dict[str, Any] = {"shape": name, "bytes_ms": size / speed * 1e3}
    for way, (kernels, compute) in ways_of(ours, theirs).items():
        lt.use_triton(kernels)
        try:
            with fallback.forced() if test else contextlib.nullcontext():
                made[way] = measure(compute, operands, expected, device)
        except torch.OutOfMemoryError as error:
            made[way] = {"failed": str(error).splitlines()[0]}
    lt.use_triton(False)
    return made


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| shape | work | bytes | formulation | triton | unfold | error of triton |", "| --- |" + " ---: |" * 6]
    for made in rows:
        for work in ("forward", "step"):
            cells = [f"{made['bytes_ms']:.3f}"] if work == "forward" else ["-"]
            cells += [
                f"{made[way][f'{work}_ms']:.3f}" if "failed" not in made[way] else made[way]["failed"][:40]
                for way in ("formulation", "triton", "unfold")
            ]
            cells.append(f"{made['triton'].get('error', float('nan')):.1e}")
            lines.append(f"| {made['shape']} | {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = parsed()
    device, start = device_of(arguments.test), time.perf_counter()
    dtype, speed = getattr(torch, arguments.dtype), bandwidth(device, arguments.test)
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    work: list[tuple[str, Any, Any, Callable[[], list[torch.Tensor]]]] = []
    for name, case in local_cases(arguments.test).items():
        rank, size = len(case["k"]), case["size"]
        out = [(n - k) // s + 1 for n, k, s in zip(size[2:], case["k"], case["s"], strict=True)]
        shape = prod(out), prod(case["k"]) * size[1], case["f"]
        function = getattr(lt, f"local_conv{rank}d")

        def ours(x: Any, w: Any, function: Any = function, case: Any = case) -> Any:
            return function(x, w, case["k"], stride=case["s"])

        work.append((name, ours, by_unfold(case), lambda size=size, shape=shape: [drawn(*size), drawn(*shape)]))
    for name, case in filter_cases(arguments.test).items():
        rank, size = len(case["k"]), case["size"]
        shape = size[0], case["g"] * prod(case["k"]), *size[2:]
        function = getattr(lt, f"local_filter{rank}d")

        def filtered(x: Any, f: Any, function: Any = function, case: Any = case) -> Any:
            return function(x, f, case["k"], padding="same", groups=case["g"])

        name = f"filter {name}"
        work.append((name, filtered, by_einsum(case), lambda size=size, shape=shape: [drawn(*size), drawn(*shape)]))
    for name, ours_, theirs, operands in work:
        if time.perf_counter() - start > BUDGET:
            print(f"left out after {BUDGET} s: {name}")
            continue
        rows.append(row(name, ours_, theirs, operands(), device, speed, arguments.test))
        print(name, flush=True)
    setting = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "localconv": localconv.__version__,
        "dtype": arguments.dtype,
        "copy_gb_s": speed / 1e9,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "device.json").write_text(json.dumps({"setting": setting, "rows": rows}, indent=1))
    text = "\n".join(f"- {key}: {value}" for key, value in setting.items()) + "\n\n" + table(rows) + "\n"
    (arguments.out / "device.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
