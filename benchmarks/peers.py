"""The libraries compared, each with the ways in which its users can write the same computation.

A library is a class with a name, a version and ``formulations(case)``: a dictionary from a label to a function that
takes the case, the input, the kernel and for a training step the forward result's gradient (NumPy arrays in localconv's
layout) and returns the call to be timed and a function that brings the call's results, the forward one, the input's
gradient and the kernel's, to NumPy arrays in localconv's layout. What a call needs in another layout is laid out
before, outside the timed region; packing weights ahead of time, beyond a plain array, is done for none of them. A
formulation may return its result in whatever order it comes out: nobody is made to copy it into another.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from filter_peers import NumPyFilters, TorchFilters
from layouts import (
    CHANNELS_FIRST,
    FIRST_PATCHES,
    FLAT_PIXELS,
    IMAGES_LAST,
    OIHW,
    PLAIN,
    POSITIONS_FIRST,
    ROW_KERNEL,
    ROW_PIXELS,
    Formulation,
    Layout,
    inner,
    padded,
    positions_flat,
    tap_slices,
)
from numpy.lib.stride_tricks import sliding_window_view
from shapes import ATTENTION, CORRELATION, FORWARD, STEP, Case

Call = Callable[[], Any]
Fetch = Callable[[Any], tuple[np.ndarray, ...]]
Builder = Callable[..., tuple[Call, Fetch]]


def _batch_first(result: Any) -> tuple[np.ndarray]:
    """(P, B, O), as a batch of matrix products leaves it, to (B, P, O)."""
    return (result.transpose(1, 0, 2),)


def _as_it_is(result: Any) -> tuple[np.ndarray]:
    return (result,)


class LocalConv:
    """This library: the plain backend calls."""

    name = "localconv"

    def __init__(self, threads: int):
        self.module = importlib.import_module("localconv")
        self.module.set_num_threads(threads)
        self.version = self.module.__version__
        # That a rival's workers took a processor is no reason to do without threads in the blocks that follow.
        self.settle = importlib.import_module("localconv._core").forget_stalls

    @staticmethod
    def function_of(case: Case) -> str:
        """The name of the function that computes the case."""
        if case.family == "filter":
            return f"local_{'correlation' if case.work == CORRELATION else 'filter'}{case.rank}d"
        return f"{'local_' if case.family == 'unshared' else ''}conv{case.rank}d"

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the calls that compute the case."""
        name = self.function_of(case)
        if case.work == ATTENTION:
            return {"local_correlation, softmax, local_filter": self._attention}
        return {name: self._step if case.work == STEP else partial(self._forward, name)}

    def workspace(self, case: Case) -> int | None:
        """Bytes of a thread beside the arrays, in the operation that takes most; None but for filters from the data."""
        if case.family != "filter":
            return None
        from localconv.core import arrays, engine

        operations = {FORWARD: "forward", CORRELATION: "grad_kernel", ATTENTION: "forward grad_kernel"}
        names = operations.get(case.work, "forward grad_kernel grad_input").split()
        element = arrays.element_type(None, np.empty(0, case.dtype))
        shapes = (case.input_shape, case.kernel_shape)
        if case.channels_first:
            shapes = tuple((shape[0], shape[-1], *shape[1:-1]) for shape in shapes)
        jobs = [engine.prepare(f"filter_{name}", spec_of(case), *shapes, element).job for name in names]
        return max(job.thread_bytes + job.shared_bytes // job.threads for job in jobs)

    @staticmethod
    def _arguments(case: Case) -> dict[str, Any]:
        if case.family == "shared":
            single = case.rank == 1
            strides, dilation = (case.strides[0], case.dilation[0]) if single else (case.strides, case.dilation)
            more = {"strides": strides, "dilation_rate": dilation}
        else:
            more = {"kernel_size": case.kernel_size, "strides": case.strides}
            more |= {"dilation_rate": case.dilation} if case.family == "filter" else {}
        data_format = "channels_first" if case.channels_first else "channels_last"
        return more | {"padding": case.padding, "data_format": data_format, "groups": case.groups}

    @staticmethod
    def _layouts(case: Case) -> tuple[Layout, Layout, Layout]:
        """Those of input, kernel and output: what is given in channels_first is laid out so before."""
        if not case.channels_first:
            return PLAIN, PLAIN, PLAIN
        kernel = {"unshared": FIRST_PATCHES, "shared": PLAIN, "filter": CHANNELS_FIRST}[case.family]
        return CHANNELS_FIRST, kernel, CHANNELS_FIRST

    def _forward(self, name: str, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        for_x, for_w, for_y = self._layouts(case)
        call = partial(getattr(self.module, name), for_x.lay(case, x), for_w.lay(case, w), **self._arguments(case))
        return call, lambda result: (for_y.back(case, result),)

    def operations(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> dict[str, Call]:
        """The three operations of a training step by name, in the order of their results.

        Each is a call that writes into an array which is kept from call to call, and returns it.
        """
        name, arguments = self.function_of(case), self._arguments(case)
        other = "filters" if case.family == "filter" else "kernel"
        forward, grad = getattr(self.module, name), self.module.grad
        for_input, for_kernel = getattr(grad, f"{name}_input"), getattr(grad, f"{name}_{other}")
        for_x, for_w, for_y = self._layouts(case)
        x, w, dy = for_x.lay(case, x), for_w.lay(case, w), for_y.lay(case, dy)
        y, dx, dw = (np.empty_like(a) for a in (dy, x, w))
        return {
            "forward": partial(forward, x, w, **arguments, out=y),
            "input gradient": partial(for_input, x.shape, w, dy, **arguments, out=dx),
            "kernel gradient": partial(for_kernel, x, w.shape, dy, **arguments, out=dw),
        }

    def _step(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[Call, Fetch]:
        """All three results into arrays that are kept from step to step."""
        calls = tuple(self.operations(case, x, w, dy).values())
        layouts = self._layouts(case)

        def fetch(results: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            return tuple(
                layout.back(case, array)
                for layout, array in zip((layouts[2], layouts[0], layouts[1]), results, strict=True)
            )

        return lambda: tuple(call() for call in calls), fetch

    def _attention(self, case: Case, keys: np.ndarray, queries: np.ndarray, values: np.ndarray) -> tuple[Call, Fetch]:
        """The attention of every position to its window, with NumPy's softmax between the two sums."""
        correlation, local_filter = (
            getattr(self.module, f"local_{kind}{case.rank}d") for kind in ("correlation", "filter")
        )
        arguments, scale = self._arguments(case), 1 / math.sqrt(case.channels // case.groups)

        def call() -> np.ndarray:
            weights = correlation(keys, queries * scale, **arguments).reshape(-1, case.taps)
            weights -= weights.max(-1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= weights.sum(-1, keepdims=True)
            return local_filter(values, weights.reshape(case.kernel_shape), **arguments)

        return call, _as_it_is


class NumPy:
    """Windows by sliding_window_view, products by matmul and einsum."""

    name = "numpy"

    def __init__(self, threads: int):  # its BLAS has read the environment
        self.version = np.__version__

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case."""
        if case.family == "filter":
            return NumPyFilters().formulations(case)
        if case.work == STEP:
            return {"windows and taps": self._step_of_groups if case.groups > 1 else self._step}
        if case.groups > 1:
            return {"a product per tap": self._groups}
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
        flat = padded(case, x).reshape(case.batch, *case.padded[:-1], -1)
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

        return call, lambda result: (result.transpose(2, 0, 1),)

    def _local_einsum(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        return lambda: np.einsum("bpd,pdo->bpo", self._flat_windows(case, x), w), _as_it_is

    @staticmethod
    def _windows_matmul(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        axes = tuple(range(1, case.rank + 1))
        spans = tuple((k - 1) * d + 1 for k, d in zip(case.kernel_size, case.dilation, strict=True))
        every = [slice(None, None, s) for s in case.strides] + [slice(None)]
        every += [slice(None, None, d) for d in case.dilation]

        def call() -> np.ndarray:
            windows = sliding_window_view(padded(case, x), spans, axes)[(slice(None), *every)]
            windows = np.moveaxis(windows, case.rank + 1, -1)
            return windows.reshape(-1, case.window) @ w.reshape(case.window, case.filters)

        return call, _as_it_is

    @staticmethod
    def _tap_matmul(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        taps = list(itertools.product(*map(range, case.kernel_size)))
        slices = [(slice(None), *tap_slices(case, tap)) for tap in taps]

        def call() -> np.ndarray:
            given = padded(case, x)
            total = given[slices[0]] @ w[taps[0]]
            for tap, where in zip(taps[1:], slices[1:], strict=True):
                total += given[where] @ w[tap]
            return total

        return call, _as_it_is

    def _step(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[Call, Fetch]:
        """Matrix products of the windows, a position or all of them at a time,
        and each tap's gradients added where it met.
        """
        unshared = case.family == "unshared"
        dy = (
            np.ascontiguousarray(positions_flat(case, dy).transpose(1, 0, 2))
            if unshared
            else dy.reshape(-1, case.filters)
        )
        kernel = w if unshared else w.reshape(case.window, case.filters)
        taps = list(itertools.product(*map(range, case.kernel_size)))
        places = [(slice(None), *tap_slices(case, tap)) for tap in taps]

        def call() -> tuple[np.ndarray, ...]:
            given = padded(case, x)
            pieces = [
                np.moveaxis(given[place].reshape(case.batch, case.positions, -1), 0, int(unshared)) for place in places
            ]
            windows = np.concatenate(pieces, axis=-1).reshape(*dy.shape[:-1], case.window)
            dwindows = np.matmul(dy, kernel.swapaxes(-1, -2)).reshape(*pieces[0].shape[:2], case.window)
            dx = np.zeros_like(given)
            for number, place in enumerate(places):
                part = np.moveaxis(
                    dwindows[..., number * case.channels : (number + 1) * case.channels], int(unshared), 0
                )
                dx[place] += part.reshape(case.batch, *case.out, case.channels)
            return np.matmul(windows, kernel), dx[inner(case)], np.matmul(windows.swapaxes(-1, -2), dy)

        def fetch(results: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            y, dx, dw = results
            return (y.transpose(1, 0, 2) if unshared else y), dx, dw

        return call, fetch

    @staticmethod
    def _groups(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        """Of each tap the products of its pixels, by groups."""
        groups = _Groups(case)
        kernel = groups.kernel(w)

        def call() -> np.ndarray:
            given = padded(case, x)
            pairs = groups.pairs(kernel)
            return sum(np.einsum(groups.forward, groups.pixels(given[place]), tap) for place, tap in pairs)

        return call, _as_it_is

    @staticmethod
    def _step_of_groups(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[Call, Fetch]:
        """Of each tap all three products."""
        groups = _Groups(case)
        kernel, gradient = groups.kernel(w), groups.outputs(dy)

        def call() -> tuple[np.ndarray, ...]:
            given = padded(case, x)
            y, dx, dw = np.zeros_like(gradient), np.zeros_like(given), np.empty_like(kernel)
            for number, (place, tap) in enumerate(groups.pairs(kernel)):
                pixels = groups.pixels(given[place])
                y += np.einsum(groups.forward, pixels, tap)
                dx[place] += np.einsum(groups.for_input, gradient, tap).reshape(given[place].shape)
                dw[number] = np.einsum(groups.for_kernel, pixels, gradient)
            return y, dx[inner(case)], dw

        return call, lambda results: (*results[:2], groups.kernel_back(results[2]))


class _Groups:
    """How the arrays of a convolution in groups are taken apart, tap by tap, for einsum."""

    def __init__(self, case: Case):
        self._case = case
        own = "p" if case.family == "unshared" else ""
        self.forward = f"bpgc,{own}cgo->bpgo"
        self.for_input = f"bpgo,{own}cgo->bpgc"
        self.for_kernel = f"bpgc,bpgo->{own}cgo"
        self._inside = (case.channels // case.groups, case.groups, case.filters // case.groups)
        taps = itertools.product(*map(range, case.kernel_size))
        self.places = [(slice(None), *tap_slices(case, tap)) for tap in taps]

    def pixels(self, x: Any) -> Any:
        """(B, P, G, channels of a group)."""
        return x.reshape(self._case.batch, self._case.positions, self._case.groups, -1)

    def outputs(self, y: Any) -> Any:
        """(B, P, G, filters of a group)."""
        return y.reshape(self._case.batch, self._case.positions, self._case.groups, -1)

    def kernel(self, w: Any) -> Any:
        """(taps, of an unshared one positions, channels of a group, G, filters of a group)."""
        if self._case.family == "unshared":
            return w.reshape(self._case.positions, self._case.taps, *self._inside).swapaxes(0, 1)
        return w.reshape(self._case.taps, *self._inside)

    def kernel_back(self, kernel: Any) -> Any:
        """What `kernel` made, in the kernel's shape."""
        return (kernel.swapaxes(0, 1) if self._case.family == "unshared" else kernel).reshape(self._case.kernel_shape)

    def pairs(self, kernel: Any) -> Any:
        """Of every tap its pixels' places and its kernel."""
        return zip(self.places, kernel, strict=True)


class Torch:
    """Batched matrix products over unfolded windows.

    Conv1d, conv2d and conv3d in both memory layouts; gradients by autograd.
    """

    name = "torch"

    def __init__(self, threads: int):
        self._torch = importlib.import_module("torch")
        self._torch.set_num_threads(threads)
        self.version = self._torch.__version__

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case and its work."""
        if case.family == "filter":
            return TorchFilters(self._torch).formulations(case)
        build = self._autograd if case.work == STEP else self._forward
        found = self._formulations(case)
        if case.work == STEP and case.family == "unshared" and case.groups == 1:
            found["autograd.Function"] = Formulation(PLAIN, PLAIN, POSITIONS_FIRST, self._own_function)
        return {label: partial(build, formulation) for label, formulation in found.items()}

    def _formulations(self, case: Case) -> dict[str, Formulation]:
        if case.groups > 1 and case.family == "unshared":
            return {
                "a product per tap": Formulation(PLAIN, PLAIN, PLAIN, self._taps_of_groups),
                "windows * kernel, einsum": Formulation(PLAIN, PLAIN, FLAT_PIXELS, self._einsum_of_groups),
            }
        if case.family == "shared":
            row, last = ", 1 row," if case.rank == 1 else "", f"conv{max(2, case.rank)}d"
            found = {
                f"conv{case.rank}d contiguous": Formulation(CHANNELS_FIRST, OIHW, CHANNELS_FIRST, self._conv),
                f"{last}{row} channels_last": Formulation(ROW_PIXELS, ROW_KERNEL, ROW_PIXELS, self._conv),
            }
            windows = Formulation(PLAIN, PLAIN, FLAT_PIXELS, self._windows_matmul)
            return found | ({"windows @ kernel": windows} if {*case.dilation, case.groups} == {1} else {})
        found = {
            "bmm, windows (B,P,D)": Formulation(PLAIN, PLAIN, POSITIONS_FIRST, self._bmm),
            "bmm, windows (P,B,D)": Formulation(PLAIN, PLAIN, POSITIONS_FIRST, self._bmm_copied),
            "bmm, kernel transposed": Formulation(PLAIN, PLAIN, IMAGES_LAST, self._bmm_transposed),
            "einsum": Formulation(PLAIN, PLAIN, FLAT_PIXELS, self._einsum),
            "bmm, channels_first": Formulation(
                CHANNELS_FIRST, FIRST_PATCHES, POSITIONS_FIRST, self._bmm_channels_first
            ),
        }
        unfold = Formulation(CHANNELS_FIRST, FIRST_PATCHES, POSITIONS_FIRST, self._bmm_unfold)
        return found | ({"bmm, F.unfold": unfold} if case.rank == 2 else {})

    def _forward(self, formulation: Formulation, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        tx, tw = (self._torch.from_numpy(layout.lay(case, a)) for layout, a in ((formulation.x, x), (formulation.w, w)))

        def call() -> Any:
            with self._torch.inference_mode():
                return formulation.function(case, tx, tw)

        return call, lambda result: (formulation.y.back(case, result.numpy()),)

    def _autograd(
        self, formulation: Formulation, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray
    ) -> tuple[Call, Fetch]:
        torch, layouts = self._torch, (formulation.x, formulation.w, formulation.y)
        tx, tw, tdy = (torch.from_numpy(layout.lay(case, a)) for layout, a in zip(layouts, (x, w, dy), strict=True))
        tx.requires_grad_()
        tw.requires_grad_()

        def call() -> Any:
            y = formulation.function(case, tx, tw)
            return y, *torch.autograd.grad(y, (tx, tw), tdy)

        return call, partial(self._fetch_step, case, (formulation.y, formulation.x, formulation.w))

    @staticmethod
    def _fetch_step(case: Case, layouts: tuple[Layout, ...], results: tuple) -> tuple[np.ndarray, ...]:
        return tuple(layout.back(case, r.detach().numpy()) for layout, r in zip(layouts, results, strict=True))

    def _own_function(self, case: Case, x: Any, w: Any) -> Any:
        """An autograd.Function: windows copied once for both passes,
        each tap's gradients added to the pixels that it met.
        """
        torch, folded = self._torch, self._folded
        places = [(slice(None), *tap_slices(case, tap)) for tap in itertools.product(*map(range, case.kernel_size))]

        class Local(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any, w: Any) -> Any:
                windows = (
                    folded(case, x).movedim(0, case.rank).contiguous().view(case.positions, case.batch, case.window)
                )
                ctx.save_for_backward(windows, w)
                return torch.bmm(windows, w)

            @staticmethod
            def backward(ctx: Any, dy: Any) -> Any:
                windows, w = ctx.saved_tensors
                dwindows = torch.bmm(dy, w.transpose(1, 2))
                by_tap = dwindows.view(*case.out, case.batch, len(places), case.channels).movedim(case.rank, 0)
                dx = torch.zeros((case.batch, *case.padded, case.channels), dtype=dy.dtype)
                for number, place in enumerate(places):
                    dx[place] += by_tap[..., number, :]
                return dx[inner(case)], torch.bmm(windows.transpose(1, 2), dy)

        return Local.apply(x, w)

    def _padded(self, case: Case, x: Any, last: bool = True) -> Any:
        """The input with its zeros, channels last or first; itself where there are none."""
        if case.padded == case.spatial:
            return x
        pads = [n for pair in reversed(case.pads) for n in pair]
        return self._torch.nn.functional.pad(x, [0, 0, *pads] if last else pads)

    def _folded(self, case: Case, x: Any) -> Any:
        """Return windows (B, *out, *kernel_size[:-1], k*C): the last axis and the channels slide as one, uncopied."""
        c = case.channels
        windows = self._padded(case, x).view(case.batch, *case.padded[:-1], -1)
        for axis in range(case.rank):
            width = c if axis == case.rank - 1 else 1
            windows = windows.unfold(axis + 1, case.kernel_size[axis] * width, case.strides[axis] * width)
        return windows

    def _flat_windows(self, case: Case, x: Any) -> Any:
        return self._folded(case, x).reshape(case.batch, case.positions, -1)

    def _bmm(self, case: Case, x: Any, w: Any) -> Any:
        return self._torch.bmm(self._flat_windows(case, x).transpose(0, 1), w)

    def _bmm_copied(self, case: Case, x: Any, w: Any) -> Any:
        windows = self._folded(case, x).movedim(0, case.rank).contiguous()
        return self._torch.bmm(windows.view(case.positions, case.batch, case.window), w)

    def _bmm_transposed(self, case: Case, x: Any, w: Any) -> Any:
        return self._torch.bmm(w.transpose(1, 2), self._flat_windows(case, x).permute(1, 2, 0))

    def _einsum(self, case: Case, x: Any, w: Any) -> Any:
        return self._torch.einsum("bpd,pdo->bpo", self._flat_windows(case, x), w)

    def _bmm_channels_first(self, case: Case, x: Any, w: Any) -> Any:
        order = (*range(2, case.rank + 2), 0, 1, *range(case.rank + 2, 2 * case.rank + 2))
        windows = self._padded(case, x, last=False)
        for axis in range(case.rank):
            windows = windows.unfold(axis + 2, case.kernel_size[axis], case.strides[axis])
        return self._torch.bmm(windows.permute(order).reshape(case.positions, case.batch, case.window), w)

    def _bmm_unfold(self, case: Case, x: Any, w: Any) -> Any:
        x = self._padded(case, x, last=False)
        columns = self._torch.nn.functional.unfold(x, case.kernel_size, stride=case.strides)
        return self._torch.bmm(columns.permute(2, 0, 1), w)

    def _conv(self, case: Case, x: Any, w: Any) -> Any:
        functional, row = self._torch.nn.functional, (1,) * (x.ndim - 2 - case.rank)
        function = (functional.conv1d, functional.conv2d, functional.conv3d)[x.ndim - 3]
        even = all(before == after for before, after in case.pads)
        x, pads = (x, [before for before, _ in case.pads]) if even else (self._padded(case, x, last=False), [0])
        padding = (*([0] * len(row)), *(pads if even else [0] * case.rank))
        strides, dilation = (*row, *case.strides), (*row, *case.dilation)
        return function(x, w, stride=strides, padding=padding, dilation=dilation, groups=case.groups)

    def _taps_of_groups(self, case: Case, x: Any, w: Any) -> Any:
        groups, x = _Groups(case), self._padded(case, x)
        if case.channels == case.groups == case.filters:  # plain products
            kernel = w.view(case.positions, case.taps, -1).unbind(1)
            pixels = [x[place].reshape(case.batch, case.positions, -1) for place in groups.places]
            total = pixels[0] * kernel[0]
            for some, tap in zip(pixels[1:], kernel[1:], strict=True):
                total = self._torch.addcmul(total, some, tap)
            return total.view(case.output_shape)
        pairs = groups.pairs(groups.kernel(w))
        total = sum(self._torch.einsum(groups.forward, groups.pixels(x[place]), tap) for place, tap in pairs)
        return total.reshape(case.output_shape)

    def _einsum_of_groups(self, case: Case, x: Any, w: Any) -> Any:
        sizes = (case.positions, case.taps, case.groups, -1)
        windows = self._flat_windows(case, x).view(case.batch, *sizes)
        kernel = w.view(*sizes[:2], case.channels // case.groups, case.groups, -1)
        return self._torch.einsum("bptgc,ptcgo->bpgo", windows, kernel).reshape(case.batch, case.positions, -1)

    def _windows_matmul(self, case: Case, x: Any, w: Any) -> Any:
        return self._flat_windows(case, x) @ w.view(case.window, case.filters)


class TorchByHand(Torch):
    """Training steps without autograd, of unshared convolution and of filters from the data: what someone writes who
    has measured, and keeps the arrays.
    """

    name = "torch by hand"

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations of a training step, none for other work, or in groups."""
        if case.family == "filter":
            return TorchFilters(self._torch).by_hand(case)
        if case.work != STEP or case.family != "unshared" or case.groups > 1:
            return {}
        found = {
            "bmm, taps": partial(self._by_hand, reused=False),
            "bmm, taps, arrays reused": partial(self._by_hand, reused=True),
        }
        return found | ({"bmm, F.fold": self._by_fold} if case.rank == 2 else {})

    def _by_hand(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray, *, reused: bool) -> tuple[Call, Fetch]:
        """Products of the windows, copied once for both passes,
        and each tap's gradients added to the pixels that it met.
        """
        torch = self._torch
        tx, tw, tdy = torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(POSITIONS_FIRST.lay(case, dy))
        taps = list(itertools.product(*map(range, case.kernel_size)))
        places = [(slice(None), *tap_slices(case, tap)) for tap in taps]
        padded_shape = (case.batch, *case.padded, case.channels)
        held = [tx.new_empty(padded_shape), *(torch.empty_like(t) for t in (tdy, tw))] if reused else None
        windows_shape = (case.positions, case.batch, case.window)
        held_windows = [tx.new_empty(windows_shape) for _ in range(2)] if reused else None

        def call() -> Any:
            with torch.inference_mode():
                dx, y, dw = held or (tx.new_empty(padded_shape), None, None)
                unfolded = self._folded(case, tx).movedim(0, case.rank)
                if held_windows:
                    windows, dwindows = held_windows
                    windows.view(unfolded.shape).copy_(unfolded)
                else:
                    windows, dwindows = unfolded.contiguous().view(windows_shape), None
                y = torch.bmm(windows, tw, out=y)
                dw = torch.bmm(windows.transpose(1, 2), tdy, out=dw)
                dwindows = torch.bmm(tdy, tw.transpose(1, 2), out=dwindows)
                by_tap = dwindows.view(*case.out, case.batch, len(taps), case.channels).movedim(case.rank, 0)
                dx.zero_()
                for number, place in enumerate(places):
                    dx[place] += by_tap[..., number, :]
                return y, dx[inner(case)], dw

        return call, partial(self._fetch_step, case, (POSITIONS_FIRST, PLAIN, PLAIN))

    def _by_fold(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[Call, Fetch]:
        """Products of the columns of F.unfold, whose adjoint is F.fold."""
        torch, functional = self._torch, self._torch.nn.functional
        layouts = (POSITIONS_FIRST, CHANNELS_FIRST, FIRST_PATCHES)
        tdy, tx, tw = (torch.from_numpy(layout.lay(case, a)) for layout, a in zip(layouts, (dy, x, w), strict=True))

        def call() -> Any:
            with torch.inference_mode():
                given = self._padded(case, tx, last=False)
                windows = functional.unfold(given, case.kernel_size, stride=case.strides).permute(2, 0, 1).contiguous()
                y, dw = torch.bmm(windows, tw), torch.bmm(windows.transpose(1, 2), tdy)
                columns = torch.bmm(tdy, tw.transpose(1, 2)).permute(1, 2, 0)
                dx = functional.fold(columns, case.padded, case.kernel_size, stride=case.strides)
                return y, dx[(slice(None), *inner(case))], dw

        return call, partial(self._fetch_step, case, layouts)


class Jax:
    """XLA's convolutions, and the windows written out for its matrix product.

    All of it jitted, gradients by its vjp.
    """

    name = "jax"

    def __init__(self, threads: int):  # XLA has read the environment
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        self._jax = importlib.import_module("jax")
        self._jax.config.update("jax_enable_x64", True)
        self.version = self._jax.__version__

    def formulations(self, case: Case) -> dict[str, Builder]:
        """Return the formulations for the family of the case and its work; none for filters from the data."""
        if case.family == "filter":
            return {}
        if case.family == "shared":
            found = {"conv_general_dilated": Formulation(PLAIN, PLAIN, PLAIN, self._conv)}
        elif case.groups > 1:
            found = {"a product per tap": Formulation(PLAIN, PLAIN, PLAIN, self._taps_of_groups)}
        else:
            found = {
                "conv_general_dilated_local": Formulation(PLAIN, FIRST_PATCHES, PLAIN, self._conv_local),
                "windows, einsum": Formulation(PLAIN, PLAIN, FLAT_PIXELS, self._einsum),
            }
        build = self._step if case.work == STEP else self._forward
        return {label: partial(build, formulation) for label, formulation in found.items()}

    def _forward(self, formulation: Formulation, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        jax = self._jax
        jx, jw = jax.numpy.asarray(x), jax.numpy.asarray(formulation.w.lay(case, w))
        compiled = jax.jit(partial(formulation.function, case))
        return lambda: compiled(jx, jw).block_until_ready(), lambda y: (formulation.y.back(case, np.asarray(y)),)

    def _step(
        self, formulation: Formulation, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray
    ) -> tuple[Call, Fetch]:
        jax = self._jax
        arrays = [jax.numpy.asarray(a) for a in (x, formulation.w.lay(case, w), formulation.y.lay(case, dy))]

        @jax.jit
        def step(x: Any, w: Any, dy: Any) -> Any:
            y, pull = jax.vjp(partial(formulation.function, case), x, w)
            return y, *pull(dy)

        layouts = (formulation.y, formulation.x, formulation.w)

        def fetch(results: tuple) -> tuple[np.ndarray, ...]:
            return tuple(layout.back(case, np.asarray(r)) for layout, r in zip(layouts, results, strict=True))

        return lambda: jax.block_until_ready(step(*arrays)), fetch

    @staticmethod
    def _dimensions(case: Case) -> tuple[str, str, str]:
        spatial = "DHW"[-case.rank :]
        return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"

    def _conv(self, case: Case, x: Any, w: Any) -> Any:
        return self._jax.lax.conv_general_dilated(
            x,
            w,
            case.strides,
            case.pads,
            rhs_dilation=case.dilation,
            dimension_numbers=self._dimensions(case),
            feature_group_count=case.groups,
        )

    def _conv_local(self, case: Case, x: Any, w: Any) -> Any:
        w = w.reshape(*case.out, case.window, case.filters)
        return self._jax.lax.conv_general_dilated_local(
            x, w, case.strides, case.pads, case.kernel_size, dimension_numbers=self._dimensions(case)
        )

    def _padded(self, case: Case, x: Any) -> Any:
        return self._jax.numpy.pad(x, ((0, 0), *case.pads, (0, 0)))

    def _taps_of_groups(self, case: Case, x: Any, w: Any) -> Any:
        groups, x = _Groups(case), self._padded(case, x)
        pairs = groups.pairs(groups.kernel(w))
        total = sum(self._jax.numpy.einsum(groups.forward, groups.pixels(x[place]), tap) for place, tap in pairs)
        return total.reshape(case.output_shape)

    def _einsum(self, case: Case, x: Any, w: Any) -> Any:
        x = self._padded(case, x)
        taps = list(itertools.product(*map(range, case.kernel_size)))
        pieces = [x[(slice(None), *tap_slices(case, tap))] for tap in taps]
        windows = self._jax.numpy.concatenate(pieces, axis=-1)
        return self._jax.numpy.einsum("bpd,pdo->bpo", windows.reshape(case.batch, case.positions, case.window), w)


LIBRARIES = {library.name: library for library in (NumPy, Torch, TorchByHand, Jax)}


def installed(names: list[str]) -> list[str]:
    """Return those of the named libraries that can be imported here; 'torch' also names 'torch by hand'."""
    found = [name for name in names if importlib.util.find_spec(name)]
    return [library for library in LIBRARIES if library.split()[0] in found]


def tolerance(case: Case, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return how far two right results may lie apart, for every value of each: eps * N * the sum of its N products'
    sizes.

    A sum of N products, added up in any order, is within N * eps/2 times that of the exact one, to first order; two
    such sums are within twice that of each other. A forward value sums a window; one of the gradient for the input the
    windows' filters that meet it; one of the gradient for the kernel the images, and shared the positions too.
    """
    if case.work == ATTENTION:
        return (_tolerance_of_attention(case, arrays),)
    kind = NumPy(1)
    formulations = list(kind.formulations(case).values())
    call, fetch = formulations[0](case, *map(np.abs, arrays))
    return tuple(
        np.ascontiguousarray(bound).reshape(shape) * (np.finfo(case.dtype).eps * n)
        for bound, shape, n in zip(fetch(call()), result_shapes(case), terms(case), strict=False)
    )


def _tolerance_of_attention(case: Case, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """One bound for all values: an error of the scores is a relative one of every weight; sums are as above."""
    keys, queries, values = (np.abs(array).max() for array in arrays)
    of_group = case.channels // case.groups
    scores = of_group * of_group**0.5 * keys * queries
    return np.float64(np.finfo(case.dtype).eps * (2 * scores + 2 * case.taps + 8) * values)


def terms(case: Case) -> tuple[int, ...]:
    """Products that one value is the sum of: of the forward result, of the gradient for the input, for the kernel."""
    if case.family == "filter":
        of_group = case.channels // case.groups
        return (of_group,) if case.work == CORRELATION else (case.taps, case.taps, of_group)
    images = case.batch * (case.positions if case.family == "shared" else 1)
    return case.window, case.taps * case.filters // case.groups, images


def spec_of(case: Case) -> Any:
    """The geometry as localconv's engine takes it."""
    from localconv.core.spec import conv_spec, filter_spec, local_spec

    unshared = case.family == "unshared"
    make = partial(local_spec, case.rank, case.kernel_size) if unshared else partial(conv_spec, case.rank)
    if case.family == "filter":
        make = partial(filter_spec, case.rank, case.kernel_size)
    data_format = "channels_first" if case.channels_first else "channels_last"
    return make(case.strides, case.padding, data_format, case.dilation, case.groups)


def result_shapes(case: Case) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of what a case computes: the forward result, and for a training step the gradients."""
    if case.work == CORRELATION:
        return (case.kernel_shape,)
    return (case.output_shape, case.input_shape, case.kernel_shape)[: case.passes if case.work == STEP else 1]


def random_arrays(case: Case) -> tuple[np.ndarray, ...]:
    """Return an input, a kernel and for a training step the forward result's gradient; the same ones in every run.

    For a correlation an input and queries, for attention keys, queries and values.
    """
    generator = np.random.default_rng(math.prod(case.input_shape))
    shapes = {
        FORWARD: (case.input_shape, case.kernel_shape),
        STEP: (case.input_shape, case.kernel_shape, case.output_shape),
        CORRELATION: (case.input_shape, case.output_shape),
        ATTENTION: (case.input_shape,) * 3,
    }[case.work]
    return tuple(generator.standard_normal(shape, dtype=np.dtype(case.dtype)) for shape in shapes)
