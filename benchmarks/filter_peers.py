"""Filters that come with the data, as people write them without this library.

What is common: windows of all pixels laid out (`unfold`) and multiplied by einsum, or by `*` and sum; and a loop over
the taps, each a product of a shifted view of the image with that tap's filters, added up in place. All of it with the
channels last and with the channels first, and with filters whose taps are planes where a loop wants them so.

`F.scaled_dot_product_attention` has no place among the sums themselves: its weights are a softmax, never any number.
It competes in the work that is one, ATTENTION.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from layouts import CHANNELS_FIRST, PLAIN, Layout, inner, padded, tap_slices
from shapes import ATTENTION, CORRELATION, FORWARD, STEP, Case

Call = Callable[[], Any]
Fetch = Callable[[Any], tuple[np.ndarray, ...]]


def _planes(case: Case, filters: np.ndarray) -> np.ndarray:
    """(batch, *out, groups * taps) to (taps, batch, *out, groups): what a loop over taps reads is contiguous."""
    return np.ascontiguousarray(np.moveaxis(filters.reshape(*filters.shape[:-1], case.groups, case.taps), -1, 0))


def _no_planes(case: Case, filters: np.ndarray) -> np.ndarray:
    return np.moveaxis(filters, 0, -1)


PLANES = Layout(_planes, _no_planes)


def _places(case: Case) -> list[tuple]:
    """Of every tap the slices of a padded image, channels last."""
    return [(slice(None), *tap_slices(case, tap)) for tap in itertools.product(*map(range, case.kernel_size))]


class NumPyFilters:
    """A loop over taps."""

    def formulations(self, case: Case) -> dict[str, Callable]:
        """Return the formulation for the work of the case."""
        found = {FORWARD: self._forward, CORRELATION: self._correlation, STEP: self._step, ATTENTION: self._attention}
        return {"a product per tap": found[case.work]}

    @staticmethod
    def _grouped(case: Case, array: np.ndarray) -> np.ndarray:
        """(..., groups, channels of a group), or of filters (..., groups, taps)."""
        return array.reshape(*array.shape[:-1], case.groups, -1)

    def _sum(self, case: Case, given: np.ndarray, filters: np.ndarray) -> np.ndarray:
        total = np.zeros((*filters.shape[:-1], case.channels // case.groups), given.dtype)
        for number, place in enumerate(_places(case)):
            total += given[place] * filters[..., number, None]
        return total

    def _products(self, case: Case, given: np.ndarray, queries: np.ndarray) -> np.ndarray:
        result = np.empty((*queries.shape[:-1], case.taps), given.dtype)
        for number, place in enumerate(_places(case)):
            np.einsum("...c,...c->...", given[place], queries, out=result[..., number])
        return result

    def _forward(self, case: Case, x: np.ndarray, w: np.ndarray) -> tuple[Call, Fetch]:
        filters = self._grouped(case, w)
        return lambda: self._sum(case, self._grouped(case, padded(case, x)), filters), lambda y: (y,)

    def _correlation(self, case: Case, x: np.ndarray, queries: np.ndarray) -> tuple[Call, Fetch]:
        queries = self._grouped(case, queries)
        return lambda: self._products(case, self._grouped(case, padded(case, x)), queries), lambda w: (w,)

    def _step(self, case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[Call, Fetch]:
        filters, gradient = self._grouped(case, w), self._grouped(case, dy)

        def call() -> tuple[np.ndarray, ...]:
            given = self._grouped(case, padded(case, x))
            dx = np.zeros_like(given)
            for number, place in enumerate(_places(case)):
                dx[place] += gradient * filters[..., number, None]
            return self._sum(case, given, filters), dx[inner(case)], self._products(case, given, gradient)

        return call, lambda results: results

    def _attention(self, case: Case, keys: np.ndarray, queries: np.ndarray, values: np.ndarray) -> tuple[Call, Fetch]:
        """Windows inside the image, by the indices of their pixels."""
        where = inside_pixels(case)
        keys, queries, values = (
            a.reshape(case.batch, case.positions, case.groups, -1) for a in (keys, queries, values)
        )
        scale = 1 / math.sqrt(case.channels // case.groups)

        def call() -> np.ndarray:
            scores = np.einsum("bptgc,bpgc->bpgt", keys[:, where], queries * scale)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            return np.einsum("bptgc,bpgt->bpgc", values[:, where], weights)

        return call, lambda y: (y,)


def inside_pixels(case: Case) -> np.ndarray:
    """(positions, taps): the flat places of the pixels of every window that is moved until it lies inside."""
    axes = []
    for n, k, d in zip(case.spatial, case.kernel_size, case.dilation, strict=True):
        position = np.arange(n)
        phase, index = position % d, position // d
        start = np.clip(index - k // 2, 0, -(-(n - phase) // d) - k)
        axes.append(phase[:, None] + (start[:, None] + np.arange(k)) * d)
    flat = np.zeros((1, 1), np.int64)
    for n, pixels in zip(case.spatial, axes, strict=True):  # C order of positions, and of taps
        flat = (flat[:, None, :, None] * n + pixels[None, :, None, :]).reshape(
            len(flat) * len(pixels), flat.shape[1] * pixels.shape[1]
        )
    return flat


class TorchFilters:
    """PyTorch's formulations, which autograd differentiates; and training steps without it."""

    def __init__(self, torch: Any):
        self._torch = torch

    def formulations(self, case: Case) -> dict[str, Callable]:
        """Return the formulations for the work of the case."""
        if case.work == ATTENTION:
            return self._attentions(case)
        if case.work == CORRELATION:
            build, found = self._inference, self._correlations(case)
        else:
            build, found = (self._autograd if case.work == STEP else self._inference), self._sums(case)
        return {label: partial(build, *parts) for label, parts in found.items()}

    def by_hand(self, case: Case) -> dict[str, Callable]:
        """Return training steps whose gradients are written out, into arrays that are kept."""
        if case.work != STEP:
            return {}
        found = {
            "taps, channels last": partial(self._step_of_taps, False),
            "taps, channels first": partial(self._step_of_taps, True),
        }
        return found | ({"F.unfold, F.fold": self._step_of_columns} if case.rank == 2 else {})

    def _sums(self, case: Case) -> dict[str, tuple]:
        """By label the layouts of input, filters and result, and the function of a case, an input and filters."""
        last, first = (PLAIN, PLAIN, PLAIN), (CHANNELS_FIRST, CHANNELS_FIRST, CHANNELS_FIRST)
        found = {
            "addcmul_ a tap, channels last": (*last, partial(self._tap_sum, False)),
            "addcmul_ a tap, filters as planes": (PLAIN, PLANES, PLAIN, partial(self._tap_sum, False)),
            "addcmul_ a tap, channels first": (*first, partial(self._tap_sum, True)),
            "unfold * w, sum, channels last": (*last, partial(self._window_sum, False)),
            "unfold * w, sum, channels first": (*first, partial(self._window_sum, True)),
            "unfold, einsum, channels last": (*last, self._window_einsum),
        }
        if case.rank == 2:
            found["F.unfold, einsum"] = (*first, self._column_einsum)
            found["F.unfold * w, sum"] = (*first, self._column_sum)
        return found

    def _correlations(self, case: Case) -> dict[str, tuple]:
        last, first = (PLAIN, PLAIN, PLAIN), (CHANNELS_FIRST, CHANNELS_FIRST, CHANNELS_FIRST)
        found = {
            "a product per tap, channels last": (PLAIN, PLAIN, PLANES, partial(self._tap_products, False)),
            "a product per tap, channels first": (*first, partial(self._tap_products, True)),
            "vecdot per tap, channels last": (PLAIN, PLAIN, PLANES, partial(self._tap_vecdots, False)),
            "unfold * y, sum, channels last": (*last, partial(self._window_products, False)),
            "unfold * y, sum, channels first": (*first, partial(self._window_products, True)),
            "unfold, einsum, channels last": (*last, self._window_dots),
        }
        if case.rank == 2:
            found["F.unfold, einsum"] = (*first, self._column_dots)
        return found

    def _inference(
        self, for_x: Layout, for_w: Layout, for_y: Layout, function: Callable, case: Case, *arrays: np.ndarray
    ) -> tuple[Call, Fetch]:
        torch = self._torch
        tensors = [torch.from_numpy(layout.lay(case, a)) for layout, a in zip((for_x, for_w), arrays, strict=True)]

        def call() -> Any:
            with torch.inference_mode():
                return function(case, *tensors)

        return call, lambda result: (for_y.back(case, result.numpy()),)

    def _autograd(
        self, for_x: Layout, for_w: Layout, for_y: Layout, function: Callable, case: Case, *arrays: np.ndarray
    ) -> tuple[Call, Fetch]:
        torch, layouts = self._torch, (for_x, for_w, for_y)
        x, w, dy = (torch.from_numpy(layout.lay(case, a)) for layout, a in zip(layouts, arrays, strict=True))
        x.requires_grad_()
        w.requires_grad_()

        def call() -> Any:
            y = function(case, x, w)
            return y, *torch.autograd.grad(y, (x, w), dy.view(y.shape))

        def fetch(results: tuple) -> tuple[np.ndarray, ...]:
            pairs = zip((for_y, for_x, for_w), results, strict=True)
            return tuple(layout.back(case, result.detach().numpy()) for layout, result in pairs)

        return call, fetch

    def _padded(self, case: Case, x: Any, first: bool) -> Any:
        if case.padded == case.spatial:
            return x
        pads = [n for pair in reversed(case.pads) for n in pair]
        return self._torch.nn.functional.pad(x, pads if first else [0, 0, *pads])

    def _pixels(self, case: Case, x: Any, first: bool) -> list[Any]:
        """Of every tap its pixels, a view: (batch, *out, groups, channels of a group), or groups and channels first."""
        x = self._padded(case, x, first).unflatten(1 if first else -1, (case.groups, -1))
        return [x[(place[0], slice(None), slice(None), *place[1:]) if first else place] for place in _places(case)]

    def _taps(self, case: Case, w: Any, first: bool) -> Any:
        """Of every tap its filters, with an axis of one for the channels."""
        if first:
            return w.unflatten(1, (case.groups, case.taps)).unsqueeze(2).unbind(3)
        if w.ndim == case.rank + 3:  # planes
            return w.unsqueeze(-1).unbind(0)
        return w.unflatten(-1, (case.groups, case.taps)).unsqueeze(-1).unbind(-2)

    def _grouped(self, case: Case, y: Any, first: bool) -> Any:
        return y.unflatten(1 if first else -1, (case.groups, -1))

    @staticmethod
    def _together(y: Any, first: bool) -> Any:
        return y.flatten(1, 2) if first else y.flatten(-2)

    def _tap_sum(self, first: bool, case: Case, x: Any, w: Any) -> Any:
        pixels, filters = self._pixels(case, x, first), self._taps(case, w, first)
        total = pixels[0] * filters[0]
        for some, tap in zip(pixels[1:], filters[1:], strict=True):
            total.addcmul_(some, tap)
        return self._together(total, first)

    def _result_of_products(self, case: Case, queries: Any, first: bool) -> tuple[Any, Any]:
        """A new array for products, and of every tap its view in it: planes, or groups * taps first."""
        if first:
            result = queries.new_empty((case.batch, case.groups * case.taps, *case.out))
            return result, result.unflatten(1, (case.groups, case.taps)).unbind(2)
        result = queries.new_empty((case.taps, case.batch, *case.out, case.groups))
        return result, result.unbind(0)

    def _tap_products(self, first: bool, case: Case, x: Any, queries: Any) -> Any:
        torch, axis = self._torch, 2 if first else -1
        queries = self._grouped(case, queries, first)
        result, taps = self._result_of_products(case, queries, first)
        product = torch.empty_like(queries)
        for some, tap in zip(self._pixels(case, x, first), taps, strict=True):
            torch.sum(torch.mul(some, queries, out=product), axis, out=tap)
        return result

    def _tap_vecdots(self, first: bool, case: Case, x: Any, queries: Any) -> Any:
        queries = self._grouped(case, queries, first)
        result, taps = self._result_of_products(case, queries, first)
        for some, tap in zip(self._pixels(case, x, first), taps, strict=True):
            self._torch.linalg.vecdot(some, queries, dim=2 if first else -1, out=tap)
        return result

    def _windows(self, case: Case, x: Any, first: bool) -> Any:
        """Windows in place: (batch, *out, groups, channels of a group, *kernel_size), or groups and channels first."""
        windows = self._padded(case, x, first)
        for axis, (k, s, d) in enumerate(zip(case.kernel_size, case.strides, case.dilation, strict=True)):
            windows = windows.unfold(axis + (2 if first else 1), (k - 1) * d + 1, s)[..., ::d]
        return windows.unflatten(1 if first else case.rank + 1, (case.groups, -1))

    def _window_sum(self, first: bool, case: Case, x: Any, w: Any) -> Any:
        windows, taps = self._windows(case, x, first), tuple(range(-case.rank, 0))
        if first:
            w = w.unflatten(1, (case.groups, 1, *case.kernel_size)).movedim(tuple(range(3, 3 + case.rank)), taps)
        else:
            w = w.unflatten(-1, (case.groups, 1, *case.kernel_size))
        return self._together((windows * w).sum(taps), first)

    def _window_products(self, first: bool, case: Case, x: Any, queries: Any) -> Any:
        windows = self._windows(case, x, first)
        queries = self._grouped(case, queries, first)[(..., *[None] * case.rank)]
        products = (windows * queries).sum(2 if first else case.rank + 2)
        if first:
            products = products.movedim(tuple(range(-case.rank, 0)), tuple(range(2, 2 + case.rank)))
            return products.flatten(1, 1 + case.rank)
        return products.flatten(-case.rank - 1)

    def _window_einsum(self, case: Case, x: Any, w: Any) -> Any:
        windows = self._windows(case, x, False).flatten(-case.rank)
        filters = w.unflatten(-1, (case.groups, case.taps))
        return self._torch.einsum("...ct,...t->...c", windows, filters).flatten(-2)

    def _window_dots(self, case: Case, x: Any, queries: Any) -> Any:
        windows = self._windows(case, x, False).flatten(-case.rank)
        return self._torch.einsum("...ct,...c->...t", windows, self._grouped(case, queries, False)).flatten(-2)

    def _columns(self, case: Case, x: Any) -> Any:
        """F.unfold's, (batch, groups, channels of a group, taps, positions)."""
        functional = self._torch.nn.functional
        x = self._padded(case, x, True)
        columns = functional.unfold(x, case.kernel_size, case.dilation, stride=case.strides)
        return columns.unflatten(1, (case.groups, -1, case.taps))

    def _filter_columns(self, case: Case, w: Any) -> Any:
        return w.view(case.batch, case.groups, case.taps, case.positions)

    def _column_einsum(self, case: Case, x: Any, w: Any) -> Any:
        columns, filters = self._columns(case, x), self._filter_columns(case, w)
        return self._torch.einsum("bgctp,bgtp->bgcp", columns, filters).reshape(case.batch, case.channels, *case.out)

    def _column_sum(self, case: Case, x: Any, w: Any) -> Any:
        columns, filters = self._columns(case, x), self._filter_columns(case, w)
        return (columns * filters[:, :, None]).sum(3).view(case.batch, case.channels, *case.out)

    def _column_dots(self, case: Case, x: Any, queries: Any) -> Any:
        queries = queries.view(case.batch, case.groups, -1, case.positions)
        products = self._torch.einsum("bgctp,bgcp->bgtp", self._columns(case, x), queries)
        return products.reshape(case.batch, case.groups * case.taps, *case.out)

    def _step_of_taps(self, first: bool, case: Case, *arrays: np.ndarray) -> tuple[Call, Fetch]:
        """Of every tap all three products."""
        torch = self._torch
        layouts = (CHANNELS_FIRST,) * 3 if first else (PLAIN, PLANES, PLAIN)
        x, w, dy = (torch.from_numpy(layout.lay(case, a)) for layout, a in zip(layouts, arrays, strict=True))
        filters, gradient = self._taps(case, w, first), self._grouped(case, dy, first)
        y, product = torch.empty_like(gradient), torch.empty_like(gradient)
        dw, dw_taps = self._result_of_products(case, gradient, first)
        padded_shape = (case.batch, case.channels, *case.padded) if first else (case.batch, *case.padded, case.channels)
        dx = x.new_empty(padded_shape)
        views = self._pixels_of(case, dx, first)
        where = inner(case)
        kept = dx[(slice(None), *where)] if first else dx[where]

        def call() -> Any:
            with torch.inference_mode():
                y.zero_()
                dx.zero_()
                taps = zip(self._pixels(case, x, first), filters, views, dw_taps, strict=True)
                for some, tap, view, dw_tap in taps:
                    y.addcmul_(some, tap)
                    view.addcmul_(gradient, tap)
                    torch.sum(torch.mul(some, gradient, out=product), 2 if first else -1, out=dw_tap)
                return self._together(y, first), kept, dw

        return call, partial(self._fetch_step, case, (layouts[2], layouts[0], layouts[1]))

    def _pixels_of(self, case: Case, given: Any, first: bool) -> list[Any]:
        """As `_pixels`, of an image that has its zeros."""
        given = self._grouped(case, given, first)
        return [given[(place[0], slice(None), slice(None), *place[1:]) if first else place] for place in _places(case)]

    def _step_of_columns(self, case: Case, *arrays: np.ndarray) -> tuple[Call, Fetch]:
        """F.unfold once for both passes; its adjoint is F.fold."""
        torch, functional = self._torch, self._torch.nn.functional
        x, w, dy = (torch.from_numpy(CHANNELS_FIRST.lay(case, a)) for a in arrays)
        filters = self._filter_columns(case, w)[:, :, None]
        gradient = dy.view(case.batch, case.groups, -1, 1, case.positions)
        shape = (case.batch, case.channels * case.taps, case.positions)

        def call() -> Any:
            with torch.inference_mode():
                columns = self._columns(case, x)
                y, dw = (columns * filters).sum(3), (columns * gradient).sum(2)
                products = torch.mul(gradient, filters, out=columns).view(shape)
                dx = functional.fold(products, case.padded, case.kernel_size, case.dilation, stride=case.strides)
                kept = dx[(slice(None), *inner(case))]
                return y.view(case.batch, case.channels, *case.out), kept, dw.view(w.shape)

        return call, partial(self._fetch_step, case, (CHANNELS_FIRST,) * 3)

    @staticmethod
    def _fetch_step(case: Case, layouts: tuple[Layout, ...], results: tuple) -> tuple[np.ndarray, ...]:
        return tuple(layout.back(case, r.numpy()) for layout, r in zip(layouts, results, strict=True))

    def _attentions(self, case: Case) -> dict[str, Callable]:
        return {
            "scaled_dot_product_attention, windows": partial(self._attention, self._of_windows),
            "scaled_dot_product_attention, dense and masked": partial(self._attention, self._of_all),
        }

    def _attention(self, function: Callable, case: Case, *arrays: np.ndarray) -> tuple[Call, Fetch]:
        torch = self._torch
        keys, queries, values = (
            torch.from_numpy(a).view(case.batch, case.positions, case.groups, -1).transpose(1, 2) for a in arrays
        )
        where = torch.from_numpy(inside_pixels(case))
        mask = torch.zeros((case.positions, case.positions), dtype=torch.bool).scatter_(1, where, True)

        def call() -> Any:
            with torch.inference_mode():
                return function(queries, keys, values, where, mask)

        return call, lambda y: (y.transpose(1, 2).numpy(),)

    def _of_windows(self, queries: Any, keys: Any, values: Any, where: Any, mask: Any) -> Any:
        """A query's keys and values are its window's."""
        attend = self._torch.nn.functional.scaled_dot_product_attention
        return attend(queries.unsqueeze(3), keys[:, :, where], values[:, :, where]).squeeze(3)

    def _of_all(self, queries: Any, keys: Any, values: Any, where: Any, mask: Any) -> Any:
        """A query meets every key, and a mask leaves its window."""
        return self._torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
