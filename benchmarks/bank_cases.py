"""The cases of banks.py, and the formulations that kernel banks are measured against."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timing import Contender, Pace, ResultsDiffer, block, timed

import localconv
from localconv import KernelBank
from localconv._core import forget_stalls

Call = Callable[[], Any]
OPTIONS = {"padding": "same", "data_format": "channels_last"}
SIZES = (5, 9, 15, 25, 41, 61)


def installed(*libraries: str) -> bool:
    """Whether all of them are here; says which are not."""
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    if missing:
        print(f"  not compared with {libraries[0]}: {' and '.join(missing)} must be installed for it")
    return not missing


# ----------------------------------------------------------------------------------------------- results, and times


def agree(name: str, result: np.ndarray, expected: np.ndarray, bound: float) -> None:
    """Compare results before anything is timed."""
    difference = float(np.abs(result - expected).max())
    if not difference <= bound:  # written so that a NaN fails
        raise ResultsDiffer(f"{name}: off by {difference:.2e}, where rounding explains {bound:.2e}")


def compare(title: str, calls: dict[str, Call], quick: bool) -> None:
    """Measure contenders in turn, the bank first, and print a line for each."""
    pace = Pace(block=0.03, rounds=3 if quick else 9)
    contenders = [Contender("", label, call) for label, call in calls.items()]
    own = contenders[0]
    own.settle = forget_stalls
    for contender in contenders:
        contender.call()
        contender.estimate = max(timed(contender.call, 1), 1e-7)
    for number in range(pace.rounds):
        for contender in contenders[1:]:
            pair = (own, contender) if number % 2 else (contender, own)
            seconds = {each.label: block(each, pace) for each in pair}
            contender.ratios.append(seconds[contender.label] / seconds[own.label])
    for contender in contenders:
        line = (
            f"  {title:26} {contender.label:38} {contender.time * 1e3:8.1f} ms, fastest {contender.fastest * 1e3:8.1f}"
        )
        if contender.ratios:
            line += f" {contender.ratio:7.2f}x, {contender.fastest / own.fastest:7.2f}x"
        print(line, flush=True)


def sizes(bank: KernelBank) -> KernelBank:
    """The bank of the filters' and the weights' sizes."""
    return KernelBank(**{name: part if name == "indices" else abs(part) for name, part in bank.parts().items()})


def bound_of(bank: KernelBank, x: np.ndarray, size: int) -> float:
    """How far two results of either direction may lie apart: each is within N eps/2 times its sum of N products' sizes.

    One bound for all values: an error of a Fourier transform comes from the whole picture.
    """
    terms = size**2 * (len(bank.filters) if bank.indices is None else bank.indices.shape[1])
    return float(np.finfo(x.dtype).eps * terms * max(call().max() for call in directions(sizes(bank), abs(x), size)))


def directions(bank: KernelBank, x: np.ndarray, size: int) -> tuple[Call, Call]:
    """The bank's convolution and its adjoint, into arrays that are kept."""
    y, back = np.empty_like(x), np.empty_like(x)
    forward = partial(localconv.local_conv2d, x, bank, size, out=y, **OPTIONS)
    return forward, partial(localconv.grad.local_conv2d_input, x.shape, bank, x, size, out=back, **OPTIONS)


# ------------------------------------------------------------------------------------------------------- the cases


def weighted_bank(rng: np.random.Generator, side: int, size: int) -> KernelBank:
    """Nine filters, all of them weighted at every pixel."""
    filters = rng.standard_normal((9, size * size, 1), dtype=np.float32)
    return KernelBank(filters, rng.standard_normal((side * side, 9), dtype=np.float32))


def grid_bank(rng: np.random.Generator, side: int, size: int) -> KernelBank:
    """A grid of 8 x 8 filters, with bilinear interpolation."""
    filters, nodes = rng.standard_normal((64, size * size, 1), dtype=np.float32), np.linspace(0, side - 1, 8)
    return KernelBank.on_grid(filters, [nodes, nodes], (side, side))


def resident(field: str) -> int:
    """Bytes of this process, by a field of Linux's."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


def growth(call: Call) -> int:
    """By how much the process is larger at its peak during a call than before."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def psf(quick: bool) -> None:
    """Nine weighted filters over a large picture."""
    side, size = 1000, 25
    rng = np.random.default_rng(0)
    bank, x = weighted_bank(rng, side, size), rng.standard_normal((1, side, side, 1), dtype=np.float32)
    assert bank.weights is not None
    kernel = np.ascontiguousarray(bank.filters[:, :, 0].T).reshape(size, size, 1, 9)
    weights = bank.weights.reshape(1, side, side, 9)
    weighed = x * weights
    forward, adjoint = directions(bank, x, size)
    maps, back = np.empty_like(weights), np.empty_like(x)
    if sys.platform == "linux":
        grown = growth(forward), growth(adjoint)
        print(
            f"  memory beside the arrays: forward {grown[0] / 1e6:.0f} MB, adjoint {grown[1] / 1e6:.0f} MB; the bank "
            f"{bank.nbytes / 1e6:.0f} MB, nine maps {maps.nbytes / 1e6:.0f} MB, the kernel "
            f"{bank.size * bank.dtype.itemsize / 1e6:,.0f} MB"
        )
    nine = partial(localconv.conv2d, x, kernel, out=maps, **OPTIONS)
    nine_back = partial(localconv.grad.conv2d_input, x.shape, kernel, weighed, out=back, **OPTIONS)
    bound = bound_of(bank, x, size)
    agree("conv2d to nine filters", (nine() * weights).sum(-1, keepdims=True), forward(), bound)
    agree("its gradient for the input", nine_back(), adjoint(), bound)
    compare("forward", {"the bank": forward, "conv2d to nine filters": nine}, quick)
    compare("adjoint", {"the bank": adjoint, "gradient of conv2d from nine filters": nine_back}, quick)


def grid(quick: bool) -> None:
    """A grid of filters."""
    side, size = 512, 15
    rng = np.random.default_rng(1)
    bank, x = grid_bank(rng, side, size), rng.standard_normal((1, side, side, 1), dtype=np.float32)
    forward, adjoint = directions(bank, x, size)
    gathers: dict[str, Call] = {"the bank": forward}
    scatters: dict[str, Call] = {"the bank": adjoint}
    if installed("pylops", "numba"):
        gathers |= {"PyLops, numba: adjoint": pylops_calls(bank, x, size)[1]}
        scatters |= {"PyLops, numba: forward": pylops_calls(bank, x, size)[0]}
    if installed("scipy"):
        gathers |= {f"FFT, {label}": call for label, call in fourier(bank, x, size).items()}
        scatters |= {f"FFT, {label}": call for label, call in fourier_adjoint(bank, x, size).items()}
    bound = bound_of(bank, x, size)
    for title, calls in (("forward", gathers), ("adjoint", scatters)):
        expected = calls["the bank"]().reshape(side, side).copy()
        for label, call in list(calls.items()):
            agree(f"{title}, {label}", call().reshape(side, side), expected, bound)
        compare(title, calls, quick)


def pylops_calls(bank: KernelBank, x: np.ndarray, size: int) -> tuple[Call, Call]:
    """PyLops' operator, whose forward scatters, and its adjoint."""
    from pylops.signalprocessing import NonStationaryConvolve2D

    dims = x.shape[1:3]
    nodes = tuple(np.linspace(0, dims[0] - 1, 8).astype(int).tolist())
    filters = bank.filters.reshape(8, 8, size, size)
    operator = NonStationaryConvolve2D(dims, filters, nodes, nodes, engine="numba", dtype="float32")
    vector = x.ravel()
    return partial(operator.matvec, vector), partial(operator.rmatvec, vector)


def low_rank(quick: bool) -> None:
    """A training step of a local layer of low rank."""
    batch, side, channels, columns, rank, out = 32, 28, 64, 64, 4, 26
    rng = np.random.default_rng(2)
    x = rng.standard_normal((batch, side, side, channels), dtype=np.float32)
    filters = rng.standard_normal((rank, 9 * channels, columns), dtype=np.float32) / np.float32(24)
    bank = KernelBank(filters, rng.standard_normal((out * out, rank), dtype=np.float32))
    gradient = rng.standard_normal((batch, out, out, columns), dtype=np.float32)
    calls = {"the bank": bank_step(bank, x, gradient)}
    if installed("torch"):
        terms = (9 * channels * rank, 9 * columns * rank, batch * out * out, batch * 9 * channels * columns)
        ours, largest = calls["the bank"](), bank_step(sizes(bank), abs(x), abs(gradient))()
        for layout in ("channels_last", "contiguous"):
            label = f"PyTorch, {layout}"
            calls[label] = torch_step(bank, x, gradient, layout)
            for number, theirs in enumerate(calls[label]()):
                bound = np.finfo(x.dtype).eps * terms[number] * largest[number].max()
                agree(f"{label}, result {number}", theirs, ours[number], bound)
    compare("training step", calls, quick)


def bank_step(bank: KernelBank, x: np.ndarray, gradient: np.ndarray) -> Call:
    """The forward result and the gradients for the input, the filters and the weights."""
    y, dx, options = np.empty_like(gradient), np.empty_like(x), {"data_format": "channels_last"}

    def call() -> tuple[np.ndarray | None, ...]:
        localconv.local_conv2d(x, bank, 3, out=y, **options)
        localconv.grad.local_conv2d_input(x.shape, bank, gradient, 3, out=dx, **options)
        return y, dx, *localconv.grad.local_conv2d_bank(x, bank, gradient, 3, **options)

    return call


def torch_step(bank: KernelBank, x: np.ndarray, gradient: np.ndarray, layout: str) -> Call:
    """Autograd through a convolution to the filters of the bank, and the sum over these."""
    import torch

    rank, _, columns = bank.filters.shape
    channels, (batch, rows, width, _) = x.shape[-1], gradient.shape
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    kernel = bank.filters.reshape(rank, 3, 3, channels, columns).transpose(0, 4, 3, 1, 2)
    leaves = [
        torch.from_numpy(array).contiguous(memory_format=form).requires_grad_()
        for array, form in (
            (np.moveaxis(x, -1, 1), memory),
            (np.ascontiguousarray(kernel).reshape(-1, channels, 3, 3), memory),
            (bank.weights.reshape(rows, width, rank).copy(), torch.contiguous_format),
        )
    ]
    for_result = torch.from_numpy(np.moveaxis(gradient, -1, 1)).contiguous(memory_format=memory)

    def call() -> tuple[np.ndarray, ...]:
        maps = torch.nn.functional.conv2d(leaves[0], leaves[1]).view(batch, rank, columns, rows, width)
        y = torch.einsum("nrfhw,hwr->nfhw", maps, leaves[2])
        dx, dk, dw = torch.autograd.grad(y, leaves, for_result)
        by_filter = dk.view(rank, columns, channels, 3, 3).permute(0, 3, 4, 2, 1).reshape(bank.filters.shape)
        results = y.detach().movedim(1, -1), dx.movedim(1, -1), by_filter, dw.view(-1, rank)
        return tuple(result.numpy() for result in results)

    return call


def fft(quick: bool) -> None:
    """Banks against Fourier transforms, by the size of the filters."""
    if not installed("scipy"):
        return
    kinds = {"9 weighted": weighted_bank, "8 x 8 grid": grid_bank}
    for (kind, make), side in itertools.product(kinds.items(), (512, 1000)):
        for size in SIZES:
            rng = np.random.default_rng(size)
            bank, x = make(rng, side, size), rng.standard_normal((1, side, side, 1), dtype=np.float32)
            forward, _ = directions(bank, x, size)
            calls: dict[str, Call] = {"the bank": forward}
            calls |= {f"FFT, {label}": call for label, call in fourier(bank, x, size).items()}
            expected, bound = forward().reshape(side, side).copy(), bound_of(bank, x, size)
            for label, call in calls.items():
                agree(f"{kind} {side} {size}, {label}", call().reshape(side, side), expected, bound)
            compare(f"{kind}, {side}, {size} x {size}", calls, quick)


# ---------------------------------------------------------------------------------------------- Fourier transforms

Part = tuple[slice, slice]


def parts_of(bank: KernelBank, side: int) -> list[tuple[int, Part, np.ndarray]]:
    """Of every filter the part of the picture where it counts, and its weights there."""
    if bank.indices is None:
        whole = slice(0, side), slice(0, side)
        return [(m, whole, column.reshape(side, side)) for m, column in enumerate(np.ascontiguousarray(bank.weights.T))]
    found = []
    for m in range(len(bank.filters)):
        weights = np.where(bank.indices == m, bank.weights, 0).sum(1, dtype=np.float32).reshape(side, side)
        rows, columns = (np.flatnonzero(weights.any(axis)) for axis in (1, 0))
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        found.append((m, part, np.ascontiguousarray(weights[part])))
    return found


def met(part: Part, reach: int, side: int) -> tuple[Part, Part]:
    """The part with a border as wide as a filter reaches, inside the picture; and where the part lies in it."""
    around = tuple(slice(max(s.start - reach, 0), min(s.stop + reach, side)) for s in part)
    inner = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(part, around, strict=True))
    return (around[0], around[1]), (inner[0], inner[1])


def fourier(bank: KernelBank, x: np.ndarray, size: int) -> dict[str, Call]:
    """What the bank gathers, by SciPy's fftconvolve filter by filter, and with all transforms of filters kept."""
    from scipy.signal import fftconvolve

    picture, side = x[0, :, :, 0], x.shape[1]
    filters = bank.filters.reshape(-1, size, size)
    parts = [(m, part, *met(part, size // 2, side), weights) for m, part, weights in parts_of(bank, side)]

    def by_fftconvolve() -> np.ndarray:
        result = np.zeros_like(picture)
        for m, part, around, inner, weights in parts:
            result[part] += weights * fftconvolve(picture[around], filters[m, ::-1, ::-1], "same")[inner]
        return result

    return {"fftconvolve": with_workers(by_fftconvolve), "transforms kept": kept_transforms(bank, x, size)}


def kept_transforms(bank: KernelBank, x: np.ndarray, size: int) -> Call:
    """The same; where all filters count everywhere, they share one transform of the picture."""
    import scipy.fft

    picture, side, reach = x[0, :, :, 0], x.shape[1], size // 2
    filters = bank.filters.reshape(-1, size, size)[:, ::-1, ::-1]
    parts = [(m, part, *met(part, reach, side), weights) for m, part, weights in parts_of(bank, side)]
    lengths = [tuple(scipy.fft.next_fast_len(s.stop - s.start + size - 1, True) for s in part[2]) for part in parts]
    kept = [scipy.fft.rfft2(filters[part[0]], shape) for part, shape in zip(parts, lengths, strict=True)]

    def call() -> np.ndarray:
        result = np.zeros_like(picture)
        shared = scipy.fft.rfft2(picture, lengths[0]) if bank.indices is None else None
        for (_, part, around, inner, weights), shape, transform in zip(parts, lengths, kept, strict=True):
            of_picture = scipy.fft.rfft2(picture[around], shape) if shared is None else shared
            made = scipy.fft.irfft2(of_picture * transform, shape)
            rows, columns = (slice(s.start + reach, s.stop + reach) for s in inner)
            result[part] += weights * made[rows, columns]
        return result

    return with_workers(call)


def fourier_adjoint(bank: KernelBank, x: np.ndarray, size: int) -> dict[str, Call]:
    """What the bank scatters, filter by filter."""
    from scipy.signal import fftconvolve

    picture, side = x[0, :, :, 0], x.shape[1]
    filters = bank.filters.reshape(-1, size, size)
    parts = [(m, part, *met(part, size // 2, side), weights) for m, part, weights in parts_of(bank, side)]

    def by_fftconvolve() -> np.ndarray:
        result = np.zeros_like(picture)
        for m, part, around, inner, weights in parts:
            weighed = np.zeros_like(picture[around])
            weighed[inner] = weights * picture[part]
            result[around] += fftconvolve(weighed, filters[m], "same")
        return result

    return {"fftconvolve": with_workers(by_fftconvolve)}


def with_workers(function: Call) -> Call:
    """As many threads for the transforms as for everything else."""
    import scipy.fft

    def call() -> Any:
        with scipy.fft.set_workers(localconv.get_num_threads()):
            return function()

    return call


CASES = {"psf": psf, "grid": grid, "low-rank": low_rank, "fft": fft}
