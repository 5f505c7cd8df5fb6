"""The libraries compared, each with the ways in which its users can write the same computation.

A library is a class with a name, a version and ``formulations(case)``: a dictionary from a label to a function that
takes the case, the input and the kernel (NumPy arrays in localconv's layout) and returns the call to be timed and a
function that brings the call's result to a channels_last NumPy array. What a call needs in another layout is laid out
before, outside the timed region; packing weights ahead of time, beyond a plain array, is done for none of them. A
formulation may return its result in whatever order it comes out: nobody is made to copy it into another.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from shapes import Case

Call = Callable[[], Any]
Fetch = Callable[[Any], np.ndarray]
Builder = Callable[[Case, np.ndarray, np.ndarray], tuple[Call, Fetch]]


def _batch_first(result: Any) -> np.ndarray:
    """(P, B, O), as a batch of matrix products leaves it, to (B, P, O)."""
    return np.asarray(result).transpose(1, 0, 2)


def _channels_last(result: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(result), 1, -1)


def _channels_first_patches(case: Case, kernel: np.ndarray) -> np.ndarray:
    """Reorder the rows of an unshared kernel from (tap, channel) to (channel, tap)."""
    taps = kernel.reshape(case.positions, -1, case.channels, case.filters)
    return np.ascontiguousarray(taps.transpose(0, 2, 1, 3)).reshape(kernel.shape)


class LocalConv:
    """This library: the plain backend call."""

    name = "localconv"

    def __init__(self, threads: int):
        self._module = importlib.import_module("localconv")
        self._module.set_num_threads(threads)
        self.version = self._module.__version__

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing to prepare."""
        yield

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the one call that computes the case."""
        name = f"{'local_' if case.family == 'unshared' else ''}conv{case.rank}d"
        return {name: partial(self._build, getattr(self._module, name))}

    @staticmethod
    def _build(function: Callable, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        if case.family == "shared":
            single = case.rank == 1
            strides, dilation = (case.strides[0], case.dilation[0]) if single else (case.strides, case.dilation)
            return partial(function, x, w, strides, "valid", "channels_last", dilation), np.asarray
        arguments = (case.kernel_size, case.strides, *([case.out] if case.rank == 2 else []), "channels_last")
        return partial(function, x, w, *arguments), np.asarray


class NumPy:
    """Windows by sliding_window_view, products by matmul and einsum."""

    name = "numpy"

    def __init__(self, threads: int):  # its BLAS has read the environment
        self.version = np.__version__

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing to prepare."""
        yield

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case."""
        if case.family == "shared":
            return {"windows @ kernel": self._windows_matmul, "a matmul per tap": self._tap_matmul}
        return {
            "matmul, windows (B,P,D)": partial(self._local, copied=False),
            "matmul, windows (P,B,D)": partial(self._local, copied=True),
            "matmul, kernel transposed": self._local_transposed,
            "einsum": self._local_einsum,
        }

    @staticmethod
    def _folded(case: Case, x: np.ndarray) -> np.ndarray:
        """Return windows (B, *out, *kernel_size[:-1], k*C): the last axis and the channels slide as one, uncopied."""
        c = case.channels
        flat = x.reshape(case.batch, *case.spatial[:-1], -1)
        sizes = (*case.kernel_size[:-1], case.kernel_size[-1] * c)
        steps = (*case.strides[:-1], case.strides[-1] * c)
        axes = tuple(range(1, case.rank + 1))
        windows = sliding_window_view(flat, sizes, axes)
        return windows[(slice(None), *(slice(None, None, s) for s in steps))]

    @classmethod
    def _flat_windows(cls, case: Case, x: np.ndarray) -> np.ndarray:
        return cls._folded(case, x).reshape(case.batch, case.positions, case.window)

    def _local(self, case: Case, x: np.ndarray, w: np.ndarray, *, copied: bool) -> tuple[Call, Fetch]:
        def call() -> np.ndarray:
            windows = self._folded(case, x)
            if copied:
                windows = np.ascontiguousarray(np.moveaxis(windows, 0, case.rank))
                return np.matmul(windows.reshape(case.positions, case.batch, case.window), w)
            return np.matmul(self._flat_windows(case, x).transpose(1, 0, 2), w)

        return call, _batch_first

    def _local_transposed(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        def call() -> np.ndarray:
            return np.matmul(w.transpose(0, 2, 1), self._flat_windows(case, x).transpose(1, 2, 0))

        return call, lambda result: result.transpose(2, 0, 1)

    def _local_einsum(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        return lambda: np.einsum("bpd,pdo->bpo", self._flat_windows(case, x), w), np.asarray

    @staticmethod
    def _windows_matmul(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        axes = tuple(range(1, case.rank + 1))
        spans = tuple((k - 1) * d + 1 for k, d in zip(case.kernel_size, case.dilation, strict=True))
        every = [slice(None, None, s) for s in case.strides] + [slice(None)]
        every += [slice(None, None, d) for d in case.dilation]

        def call() -> np.ndarray:
            windows = np.moveaxis(sliding_window_view(x, spans, axes)[(slice(None), *every)], case.rank + 1, -1)
            return windows.reshape(-1, case.window) @ w.reshape(case.window, case.filters)

        return call, np.asarray

    @staticmethod
    def _tap_matmul(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        taps = list(itertools.product(*map(range, case.kernel_size)))
        slices = [(slice(None), *_tap_slices(case, tap)) for tap in taps]

        def call() -> np.ndarray:
            total = x[slices[0]] @ w[taps[0]]
            for tap, where in zip(taps[1:], slices[1:], strict=True):
                total += x[where] @ w[tap]
            return total

        return call, np.asarray


def _tap_slices(case: Case, tap: tuple[int, ...]) -> list[slice]:
    """Return the spatial slices of the input values that meet one tap, one for every output position."""
    axes = zip(tap, case.dilation, case.strides, case.out, strict=True)
    return [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, s, n in axes]


class Torch:
    """Batched matrix products over unfolded windows; conv1d and conv2d in both memory layouts."""

    name = "torch"

    def __init__(self, threads: int):
        self._torch = importlib.import_module("torch")
        self._torch.set_num_threads(threads)
        self.version = self._torch.__version__

    @contextmanager
    def session(self) -> Iterator[None]:
        """Without the bookkeeping for gradients."""
        with self._torch.inference_mode():
            yield

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case."""
        if case.family == "shared":
            row = ", 1 row," if case.rank == 1 else ""
            found = {
                f"conv{case.rank}d contiguous": partial(self._conv, channels_last=False),
                f"conv2d{row} channels_last": partial(self._conv, channels_last=True),
            }
            return found | ({"windows @ kernel": self._windows_matmul} if set(case.dilation) == {1} else {})
        found = {
            "bmm, windows (B,P,D)": partial(self._bmm, copied=False),
            "bmm, windows (P,B,D)": partial(self._bmm, copied=True),
            "bmm, kernel transposed": self._bmm_transposed,
            "einsum": self._einsum,
            "bmm, channels_first": self._bmm_channels_first,
        }
        return found | ({"bmm, F.unfold": self._bmm_unfold} if case.rank == 2 else {})

    @staticmethod
    def _folded(case: Case, x: Any) -> Any:
        """Return windows (B, *out, *kernel_size[:-1], k*C): the last axis and the channels slide as one, uncopied."""
        c = case.channels
        windows = x.view(case.batch, *case.spatial[:-1], -1)
        for axis in range(case.rank):
            width = c if axis == case.rank - 1 else 1
            windows = windows.unfold(axis + 1, case.kernel_size[axis] * width, case.strides[axis] * width)
        return windows

    @classmethod
    def _flat_windows(cls, case: Case, x: Any) -> Any:
        return cls._folded(case, x).reshape(case.batch, case.positions, case.window)

    def _bmm(self, case: Case, x: np.ndarray, w: np.ndarray, *, copied: bool) -> tuple[Call, Fetch]:
        torch, tx, tw = self._torch, self._torch.from_numpy(x), self._torch.from_numpy(w)

        def call() -> Any:
            if copied:
                windows = self._folded(case, tx).movedim(0, case.rank).contiguous()
                return torch.bmm(windows.view(case.positions, case.batch, case.window), tw)
            return torch.bmm(self._flat_windows(case, tx).transpose(0, 1), tw)

        return call, _batch_first

    def _bmm_transposed(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        torch, tx, tw = self._torch, self._torch.from_numpy(x), self._torch.from_numpy(w)

        def call() -> Any:
            return torch.bmm(tw.transpose(1, 2), self._flat_windows(case, tx).permute(1, 2, 0))

        return call, lambda result: result.numpy().transpose(2, 0, 1)

    def _einsum(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        torch, tx, tw = self._torch, self._torch.from_numpy(x), self._torch.from_numpy(w)
        return lambda: torch.einsum("bpd,pdo->bpo", self._flat_windows(case, tx), tw), np.asarray

    def _channels_first(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Any, Any]:
        first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
        return self._torch.from_numpy(first), self._torch.from_numpy(_channels_first_patches(case, w))

    def _bmm_channels_first(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        torch = self._torch
        tx, tw = self._channels_first(case, x, w)
        order = (*range(2, case.rank + 2), 0, 1, *range(case.rank + 2, 2 * case.rank + 2))

        def call() -> Any:
            windows = tx
            for axis in range(case.rank):
                windows = windows.unfold(axis + 2, case.kernel_size[axis], case.strides[axis])
            return torch.bmm(windows.permute(order).reshape(case.positions, case.batch, case.window), tw)

        return call, _batch_first

    def _bmm_unfold(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        torch, unfold = self._torch, self._torch.nn.functional.unfold
        tx, tw = self._channels_first(case, x, w)

        def call() -> Any:
            columns = unfold(tx, case.kernel_size, stride=case.strides)
            return torch.bmm(columns.permute(2, 0, 1), tw)

        return call, _batch_first

    def _conv(self, case: Case, x: np.ndarray, w: np.ndarray, *, channels_last: bool) -> tuple[Call, Fetch]:
        torch = self._torch
        strides, dilation = case.strides, case.dilation
        w = w.transpose(-1, -2, *range(case.rank))
        x = np.moveaxis(x, -1, 1)
        if not channels_last:
            function = getattr(torch.nn.functional, f"conv{case.rank}d")
            tx, tw = (torch.from_numpy(np.ascontiguousarray(a)) for a in (x, w))
            return partial(function, tx, tw, stride=strides, dilation=dilation), _channels_last
        if case.rank == 1:  # torch has no such layout for one axis: a picture of one row does
            x, w, strides, dilation = x[:, :, None], w[:, :, None], (1, *strides), (1, *dilation)
        tx, tw = (torch.from_numpy(a).contiguous(memory_format=torch.channels_last) for a in (x, w))
        return partial(torch.nn.functional.conv2d, tx, tw, stride=strides, dilation=dilation), _channels_last

    def _windows_matmul(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        tx, tw = self._torch.from_numpy(x), self._torch.from_numpy(w)

        def call() -> Any:
            return self._flat_windows(case, tx) @ tw.view(case.window, case.filters)

        return call, np.asarray


class Jax:
    """XLA's convolutions, and the windows written out for its matrix product; all of it jitted."""

    name = "jax"

    def __init__(self, threads: int):  # XLA has read the environment
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        self._jax = importlib.import_module("jax")
        self.version = self._jax.__version__

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing to prepare."""
        yield

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case."""
        if case.family == "shared":
            return {"conv_general_dilated": self._conv}
        return {"conv_general_dilated_local": self._conv_local, "windows, einsum": self._einsum}

    def _jitted(self, function: Callable, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        jx, jw = self._jax.numpy.asarray(x), self._jax.numpy.asarray(w)
        compiled = self._jax.jit(function)
        return lambda: compiled(jx, jw).block_until_ready(), np.asarray

    @staticmethod
    def _dimensions(case: Case) -> tuple[str, str, str]:
        spatial = "HW"[-case.rank :]
        return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"

    def _conv(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        def function(x: Any, w: Any) -> Any:
            return self._jax.lax.conv_general_dilated(
                x, w, case.strides, "VALID", rhs_dilation=case.dilation, dimension_numbers=self._dimensions(case)
            )

        return self._jitted(function, x, w)

    def _conv_local(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        def function(x: Any, w: Any) -> Any:
            return self._jax.lax.conv_general_dilated_local(
                x, w, case.strides, "VALID", case.kernel_size, dimension_numbers=self._dimensions(case)
            )

        w = _channels_first_patches(case, w).reshape(*case.out, case.window, case.filters)
        return self._jitted(function, x, w)

    def _einsum(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        taps = list(itertools.product(*map(range, case.kernel_size)))

        def function(x: Any, w: Any) -> Any:
            pieces = [x[(slice(None), *_tap_slices(case, tap))] for tap in taps]
            windows = self._jax.numpy.concatenate(pieces, axis=-1)
            windows = windows.reshape(case.batch, case.positions, case.window)
            return self._jax.numpy.einsum("bpd,pdo->bpo", windows, w)

        return self._jitted(function, x, w)


LIBRARIES = {library.name: library for library in (NumPy, Torch, Jax)}


def installed(names: list[str]) -> list[str]:
    """Return those of the named libraries that can be imported here."""
    return [name for name in names if importlib.util.find_spec(name)]


def tolerance(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return how far two right results may lie apart, for every output value: eps * D * sum |w| |x|.

    A sum of D products, added up in any order, is within D * eps/2 * sum |w| |x| of the exact one, to first order; two
    such sums are within twice that of each other.
    """
    kind = NumPy(1)
    label = "windows @ kernel" if case.family == "shared" else "matmul, windows (P,B,D)"
    call, fetch = kind.formulations(case)[label](case, np.abs(x), np.abs(w))
    bound = np.ascontiguousarray(fetch(call())).reshape(case.output_shape)
    return bound * (np.finfo(np.float32).eps * case.window)


def random_arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return an input and a kernel; the same ones in every run."""
    generator = np.random.default_rng(math.prod(case.input_shape))
    x, w = (generator.standard_normal(shape, dtype=np.float32) for shape in (case.input_shape, case.kernel_shape))
    return x, w
