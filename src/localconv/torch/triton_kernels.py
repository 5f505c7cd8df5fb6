"""Triton kernels for tensors on a GPU: the functions of `fallback`, without gathered windows.

Every program owns what it writes, so nothing is added by two of them. A program of the locally connected convolution
stands at one position (or pixel) and streams that position's weights once; images are the rows of a matrix product,
from sixteen on, and else of products that are summed. Sizes are masked: any of them will do. float16, bfloat16 and
float32 are summed in float32, float64 in float64; float32 products are TF32 where PyTorch allows that.

Tensors have three spatial axes here, of which the first ones may have the size 1.

Imported when they are asked for (`use_triton`): Triton is not always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..core.windows import Axis
from . import fallback
from .arguments import (
    broadcastable_bias,
    check_bias,
    check_dtypes,
    check_filter_dtypes,
    check_filter_sizes,
    check_gradient,
    check_int8,
    check_queries,
    check_sizes,
    is_channels_last,
)
from .window import Window

# Whether Triton interprets kernels, on the processor: for tests.
INTERPRETED = bool(triton.knobs.runtime.interpret)
# Images from which a matrix product has as many rows as its hardware.
DOT_ROWS = 16

# ------------------------------------------------------------------------------------------------------------- kernels


WIDENED = tl.constexpr(INTERPRETED)


@triton.jit
def _factor(a):  # type: ignore[no-untyped-def]
    """A factor of a matrix product: the interpreter takes the bits of bfloat16 for integers there."""
    if WIDENED:
        return a.to(tl.float32)
    return a


@triton.jit
def _tap(tap, KH, KW):  # type: ignore[no-untyped-def]
    """The tap's place in the window."""
    return tap // (KH * KW), tap // KW % KH, tap % KW


@triton.jit
def _pixel(p, t, n, taps, stride, dilation, before, INSIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Along one axis: the pixel that tap t meets at position p; below 0 or from n on, it is padding."""
    if INSIDE:  # windows are moved as far as it takes, in steps of the dilation
        phase = p % dilation
        last = (n - phase + dilation - 1) // dilation - taps
        start = tl.minimum(tl.maximum(p // dilation - taps // 2, 0), last)
        return phase + (start + t) * dilation
    return p * stride + t * dilation - before


@triton.jit
def _meeting(q, k, n, outputs, taps, stride, dilation, before, INSIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Along one axis: the candidate number k of the positions whose windows hold pixel q, its tap there, and whether
    it holds it.
    """
    if INSIDE:  # of those at the border several have one window: 2 * taps - 1 candidates
        phase = q % dilation
        count = (n - phase + dilation - 1) // dilation
        index = q // dilation + k - (taps - 1)
        start = tl.minimum(tl.maximum(index - taps // 2, 0), count - taps)
        tap = q // dilation - start
        return index * dilation + phase, tap, (index >= 0) & (index < count) & (tap >= 0) & (tap < taps)
    spread = q + before - k * dilation
    p = spread // stride
    return p, k, (spread >= 0) & (spread % stride == 0) & (p < outputs)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x,
    w,
    y,
    images,
    positions,
    depth,
    inner,
    outer,
    groups,
    ID,
    IH,
    IW,
    OH,
    OW,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BF: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One position, some filters of a group, some images."""
    p, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(outer, BF)
    group, n = tl.program_id(1) // blocks, tl.program_id(2) * BN + tl.arange(0, BN)
    f = tl.program_id(1) % blocks * BF + tl.arange(0, BF)
    acc = tl.zeros((BN, BF), WIDE)
    for first in range(0, depth, BD):
        d = first + tl.arange(0, BD)
        kd, kh, kw = _tap(d // inner, KH, KW)
        pd = _pixel(p // (OH * OW), kd, ID, 1, SD, DD, PD, False)
        ph = _pixel(p // OW % OH, kh, IH, 1, SH, DH, PH, False)
        pw = _pixel(p % OW, kw, IW, 1, SW, DW, PW, False)
        seen = (d < depth) & (pd >= 0) & (pd < ID) & (ph >= 0) & (ph < IH) & (pw >= 0) & (pw < IW)
        pixel = ((n[:, None].to(tl.int64) * ID + pd[None]) * IH + ph[None]) * IW + pw[None]
        at = x + pixel * (inner * groups) + group * inner + d[None] % inner
        a = tl.load(at, mask=seen[None] & (n[:, None] < images), other=0.0)
        rows = w + (p * depth + d[:, None]) * (outer * groups) + group * outer + f[None]
        b = tl.load(rows, mask=seen[:, None] & (f[None] < outer), other=0.0)
        if PRECISION == "sum":
            acc += tl.sum(a[:, :, None].to(WIDE) * b[None].to(WIDE), 1)
        else:
            acc += tl.dot(_factor(a), _factor(b), input_precision=PRECISION)
    at = y + (n[:, None].to(tl.int64) * positions + p) * (outer * groups) + group * outer + f[None]
    tl.store(at, acc.to(y.dtype.element_ty), mask=(n[:, None] < images) & (f[None] < outer))


@triton.jit
def _grad_input(  # type: ignore[no-untyped-def]
    w,
    g,
    y,
    images,
    positions,
    depth,
    inner,
    outer,
    groups,
    ID,
    IH,
    IW,
    OD,
    OH,
    OW,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BF: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One pixel, some channels of a group, some images: the sum over the positions whose windows hold it."""
    q, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(inner, BD)
    group, n = tl.program_id(1) // blocks, tl.program_id(2) * BN + tl.arange(0, BN)
    c = tl.program_id(1) % blocks * BD + tl.arange(0, BD)
    acc = tl.zeros((BN, BD), WIDE)
    for tap in range(depth // inner):
        kd, kh, kw = _tap(tap, KH, KW)
        pd, _, holds_d = _meeting(q // (IH * IW), kd, ID, OD, 1, SD, DD, PD, False)
        ph, _, holds_h = _meeting(q // IW % IH, kh, IH, OH, 1, SH, DH, PH, False)
        pw, _, holds_w = _meeting(q % IW, kw, IW, OW, 1, SW, DW, PW, False)
        if holds_d & holds_h & holds_w:
            p = (pd * OH + ph) * OW + pw
            for first in range(0, outer, BF):
                f = first + tl.arange(0, BF)
                at = g + (n[:, None].to(tl.int64) * positions + p) * (outer * groups) + group * outer + f[None]
                a = tl.load(at, mask=(n[:, None] < images) & (f[None] < outer), other=0.0)
                rows = w + (p * depth + tap * inner + c[None]) * (outer * groups) + group * outer + f[:, None]
                b = tl.load(rows, mask=(c[None] < inner) & (f[:, None] < outer), other=0.0)
                if PRECISION == "sum":
                    acc += tl.sum(a[:, :, None].to(WIDE) * b[None].to(WIDE), 1)
                else:
                    acc += tl.dot(_factor(a), _factor(b), input_precision=PRECISION)
    at = y + (n[:, None].to(tl.int64) * (ID * IH * IW) + q) * (inner * groups) + group * inner + c[None]
    tl.store(at, acc.to(y.dtype.element_ty), mask=(n[:, None] < images) & (c[None] < inner))


@triton.jit
def _grad_weight(  # type: ignore[no-untyped-def]
    x,
    g,
    y,
    images,
    positions,
    depth,
    inner,
    outer,
    groups,
    ID,
    IH,
    IW,
    OH,
    OW,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BF: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One position, some rows of its weight, some filters of a group: the sum over the images."""
    p, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(outer, BF)
    group, d = tl.program_id(1) // blocks, tl.program_id(2) * BD + tl.arange(0, BD)
    f = tl.program_id(1) % blocks * BF + tl.arange(0, BF)
    kd, kh, kw = _tap(d // inner, KH, KW)
    pd = _pixel(p // (OH * OW), kd, ID, 1, SD, DD, PD, False)
    ph = _pixel(p // OW % OH, kh, IH, 1, SH, DH, PH, False)
    pw = _pixel(p % OW, kw, IW, 1, SW, DW, PW, False)
    seen = (d < depth) & (pd >= 0) & (pd < ID) & (ph >= 0) & (ph < IH) & (pw >= 0) & (pw < IW)
    acc = tl.zeros((BD, BF), WIDE)
    for first in range(0, images, BN):
        n = first + tl.arange(0, BN)
        pixel = ((n[None].to(tl.int64) * ID + pd[:, None]) * IH + ph[:, None]) * IW + pw[:, None]
        at = x + pixel * (inner * groups) + group * inner + d[:, None] % inner
        a = tl.load(at, mask=seen[:, None] & (n[None] < images), other=0.0)
        at = g + (n[:, None].to(tl.int64) * positions + p) * (outer * groups) + group * outer + f[None]
        b = tl.load(at, mask=(n[:, None] < images) & (f[None] < outer), other=0.0)
        if PRECISION == "sum":
            acc += tl.sum(a[:, :, None].to(WIDE) * b[None].to(WIDE), 1)
        else:
            acc += tl.dot(_factor(a), _factor(b), input_precision=PRECISION)
    # 0 * inf of a gradient is NaN: rows in padding are set to 0, not left to their products.
    acc = tl.where(seen[:, None], acc, 0.0)
    at = y + (p * depth + d[:, None]) * (outer * groups) + group * outer + f[None]
    tl.store(at, acc.to(y.dtype.element_ty), mask=(d[:, None] < depth) & (f[None] < outer))


@triton.jit
def _filter(  # type: ignore[no-untyped-def]
    x,
    filters,
    y,
    positions,
    inner,
    taps,
    ID,
    IH,
    IW,
    OH,
    OW,
    KD,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    x_n,
    x_c,
    x_d,
    x_h,
    x_w,
    f_n,
    f_c,
    f_d,
    f_h,
    f_w,
    y_n,
    y_c,
    y_d,
    y_h,
    y_w,
    INSIDE: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some positions of an image, some channels of a group; x_n and so on: elements from one image to the next."""
    p, n = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP), tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(inner, BC)
    group, c = tl.program_id(2) // blocks, tl.program_id(2) % blocks * BC + tl.arange(0, BC)
    od, oh, ow = p // (OH * OW), p // OW % OH, p % OW
    acc = tl.zeros((BP, BC), WIDE)
    for tap in range(taps):
        kd, kh, kw = _tap(tap, KH, KW)
        d = _pixel(od, kd, ID, KD, SD, DD, PD, INSIDE)
        h = _pixel(oh, kh, IH, KH, SH, DH, PH, INSIDE)
        w = _pixel(ow, kw, IW, KW, SW, DW, PW, INSIDE)
        seen = (p < positions) & (d >= 0) & (d < ID) & (h >= 0) & (h < IH) & (w >= 0) & (w < IW)
        weight = tl.load(
            filters + n * f_n + (group * taps + tap) * f_c + od * f_d + oh * f_h + ow * f_w, mask=seen, other=0.0
        )
        at = x + n * x_n + (group * inner + c[None]) * x_c + (d * x_d + h * x_h + w * x_w)[:, None]
        a = tl.load(at, mask=seen[:, None] & (c[None] < inner), other=0.0)
        acc += a.to(WIDE) * weight.to(WIDE)[:, None]
    at = y + n * y_n + (group * inner + c[None]) * y_c + (od * y_d + oh * y_h + ow * y_w)[:, None]
    tl.store(at, acc.to(y.dtype.element_ty), mask=(p[:, None] < positions) & (c[None] < inner))


@triton.jit
def _filter_input(  # type: ignore[no-untyped-def]
    g,
    filters,
    y,
    pixels,
    inner,
    taps,
    ID,
    IH,
    IW,
    OD,
    OH,
    OW,
    KD,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    g_n,
    g_c,
    g_d,
    g_h,
    g_w,
    f_n,
    f_c,
    f_d,
    f_h,
    f_w,
    y_n,
    y_c,
    y_d,
    y_h,
    y_w,
    CD,
    CH,
    CW,
    INSIDE: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some pixels of an image, some channels of a group; CD, CH, CW: candidates along every axis."""
    q, n = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP), tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(inner, BC)
    group, c = tl.program_id(2) // blocks, tl.program_id(2) % blocks * BC + tl.arange(0, BC)
    qd, qh, qw = q // (IH * IW), q // IW % IH, q % IW
    acc = tl.zeros((BP, BC), WIDE)
    for candidate in range(CD * CH * CW):
        cd, ch, cw = _tap(candidate, CH, CW)
        d, kd, holds_d = _meeting(qd, cd, ID, OD, KD, SD, DD, PD, INSIDE)
        h, kh, holds_h = _meeting(qh, ch, IH, OH, KH, SH, DH, PH, INSIDE)
        w, kw, holds_w = _meeting(qw, cw, IW, OW, KW, SW, DW, PW, INSIDE)
        holds = (q < pixels) & holds_d & holds_h & holds_w
        tap = (kd * KH + kh) * KW + kw
        at = filters + n * f_n + (group * taps + tap) * f_c + d * f_d + h * f_h + w * f_w
        weight = tl.load(at, mask=holds, other=0.0)
        at = g + n * g_n + (group * inner + c[None]) * g_c + (d * g_d + h * g_h + w * g_w)[:, None]
        a = tl.load(at, mask=holds[:, None] & (c[None] < inner), other=0.0)
        acc += a.to(WIDE) * weight.to(WIDE)[:, None]
    at = y + n * y_n + (group * inner + c[None]) * y_c + (qd * y_d + qh * y_h + qw * y_w)[:, None]
    tl.store(at, acc.to(y.dtype.element_ty), mask=(q[:, None] < pixels) & (c[None] < inner))


@triton.jit
def _filter_filters(  # type: ignore[no-untyped-def]
    x,
    g,
    y,
    images,
    positions,
    inner,
    taps,
    ID,
    IH,
    IW,
    OH,
    OW,
    KD,
    KH,
    KW,
    SD,
    SH,
    SW,
    DD,
    DH,
    DW,
    PD,
    PH,
    PW,
    x_n,
    x_c,
    x_d,
    x_h,
    x_w,
    g_n,
    g_c,
    g_d,
    g_h,
    g_w,
    y_n,
    y_c,
    y_d,
    y_h,
    y_w,
    INSIDE: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some positions, one tap of a group; images: over how many a result is summed, 1 or all."""
    p, first = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP), tl.program_id(1).to(tl.int64)
    group, tap = tl.program_id(2) // taps, tl.program_id(2) % taps
    od, oh, ow = p // (OH * OW), p // OW % OH, p % OW
    kd, kh, kw = _tap(tap, KH, KW)
    d = _pixel(od, kd, ID, KD, SD, DD, PD, INSIDE)
    h = _pixel(oh, kh, IH, KH, SH, DH, PH, INSIDE)
    w = _pixel(ow, kw, IW, KW, SW, DW, PW, INSIDE)
    seen = (p < positions) & (d >= 0) & (d < ID) & (h >= 0) & (h < IH) & (w >= 0) & (w < IW)
    acc = tl.zeros((BP,), WIDE)
    for more in range(images):
        n = first + more
        for start in range(0, inner, BC):
            c = start + tl.arange(0, BC)
            mask = seen[:, None] & (c[None] < inner)
            at = x + n * x_n + (group * inner + c[None]) * x_c + (d * x_d + h * x_h + w * x_w)[:, None]
            a = tl.load(at, mask=mask, other=0.0)
            at = g + n * g_n + (group * inner + c[None]) * g_c + (od * g_d + oh * g_h + ow * g_w)[:, None]
            b = tl.load(at, mask=mask, other=0.0)
            acc += tl.sum(a.to(WIDE) * b.to(WIDE), 1)
    at = y + first * y_n + (group * taps + tap) * y_c + od * y_d + oh * y_h + ow * y_w
    tl.store(at, acc.to(y.dtype.element_ty), mask=p < positions)


# --------------------------------------------------------------------------------------------------- functions of these


def _three(values: Sequence[Any], fill: int) -> tuple[Any, ...]:
    """One number for each of three axes."""
    return (*(fill,) * (3 - len(values)), *values)


def _sizes(window: Window, size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Input and output along three axes, and all of the window: kernel, strides, dilation, padding in front."""
    axes: Sequence[Axis] = window.convolution(size, 1).axes
    spatial, output = _three(size[2:], 1), _three([axis.outputs for axis in axes], 1)
    before = [axis.before for axis in axes]
    window_of = (_three(window.kernel_size, 1), _three(window.stride, 1), _three(window.dilation, 1), _three(before, 0))
    return spatial, output, tuple(n for part in window_of for n in part)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Elements from one image to the next, one channel, and one of each of three spatial axes."""
    return *tensor.stride()[:2], *_three(tensor.stride()[2:], 0)


def _power(n: int, most: int, least: int = 1) -> int:
    return max(least, min(most, triton.next_power_of_2(max(1, n))))


def _wide(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _products(dtype: torch.dtype, rows: int) -> str:
    """How products are made: "sum" of single ones, or the precision of a matrix product of so many rows."""
    if dtype == torch.float64 or rows < DOT_ROWS:
        return "sum"
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def _blocks(dtype: torch.dtype, images: int, summed: int, columns: int) -> dict[str, Any]:
    """Images, summed and columns of a program's matrices, as the kernels call them by turns, and how they multiply."""
    precision = _products(dtype, images)
    if precision == "sum":  # all products at once in registers
        sizes = _power(images, 8), _power(summed, 16), _power(columns, 32)
    else:
        sizes = _power(images, 64, 16), _power(summed, 32, 16), _power(columns, 64, 16)
    return dict(zip(("images", "summed", "columns"), sizes, strict=True)) | {"precision": precision}


def _last(tensor: Tensor) -> Tensor:
    """(N, C, ...) with its memory in the order (N, ..., C), which the locally connected kernels take."""
    return tensor.movedim(1, -1).contiguous()


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `fallback.forward`."""
    check_dtypes(input=x, weight=weight, bias=bias)
    size = check_sizes(window, x.shape, weight.shape)
    if bias is not None:
        check_bias(bias.shape, size)
    spatial, output, of_window = _sizes(window, x.shape)
    image, rows, groups = _last(x), weight.contiguous(), window.groups
    positions, depth, filters = weight.shape
    result = x.new_empty((size[0], *size[2:], filters))
    blocks = _blocks(x.dtype, size[0], depth, filters // groups)
    bn, bd, bf = blocks["images"], blocks["summed"], blocks["columns"]
    grid = positions, groups * triton.cdiv(filters // groups, bf), triton.cdiv(size[0], bn)
    if result.numel():
        sizes = size[0], positions, depth, x.shape[1] // groups, filters // groups, groups, *spatial, *output[1:]
        _forward[grid](
            image,
            rows,
            result,
            *sizes,
            *of_window[1:],
            BN=bn,
            BD=bd,
            BF=bf,
            WIDE=_wide(x.dtype),
            PRECISION=blocks["precision"],
        )
    result = result.movedim(-1, 1)
    return result if bias is None else result + broadcastable_bias(bias, window.rank)


def grad_input(size: Sequence[Any], weight: Tensor, gradient: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `fallback.grad_input`."""
    check_dtypes(gradient=gradient, weight=weight, bias=bias)
    check_gradient(gradient.shape, check_sizes(window, size, weight.shape))
    if bias is not None:
        check_bias(bias.shape, size)
    spatial, output, of_window = _sizes(window, size)
    given, rows, groups = _last(gradient), weight.contiguous(), window.groups
    positions, depth, filters = weight.shape
    inner = size[1] // groups
    result = gradient.new_empty((size[0], *size[2:], size[1]))
    blocks = _blocks(gradient.dtype, size[0], filters // groups, inner)
    bn, bd, bf = blocks["images"], blocks["columns"], blocks["summed"]
    grid = prod(spatial), groups * triton.cdiv(inner, bd), triton.cdiv(size[0], bn)
    if result.numel():
        sizes = size[0], positions, depth, inner, filters // groups, groups, *spatial, *output
        _grad_input[grid](
            rows,
            given,
            result,
            *sizes,
            *of_window[1:],
            BN=bn,
            BD=bd,
            BF=bf,
            WIDE=_wide(gradient.dtype),
            PRECISION=blocks["precision"],
        )
    result = result.movedim(-1, 1)
    return result if bias is None else result + broadcastable_bias(bias, window.rank)


def grad_weight(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `fallback.grad_weight`."""
    check_dtypes(gradient=gradient, input=x)
    check_gradient(gradient.shape, check_sizes(window, x.shape, size))
    spatial, output, of_window = _sizes(window, x.shape)
    image, given, groups = _last(x), _last(gradient), window.groups
    positions, depth, filters = size
    result = gradient.new_empty(tuple(size))
    blocks = _blocks(gradient.dtype, min(depth, filters // groups), x.shape[0], filters // groups)
    bn, bf = blocks["summed"], blocks["columns"]
    bd = _power(depth, 64, 16) if blocks["precision"] != "sum" else _power(depth, 8)
    grid = positions, groups * triton.cdiv(filters // groups, bf), triton.cdiv(depth, bd)
    sizes = x.shape[0], positions, depth, x.shape[1] // groups, filters // groups, groups, *spatial, *output[1:]
    _grad_weight[grid](
        image,
        given,
        result,
        *sizes,
        *of_window[1:],
        BN=bn,
        BD=bd,
        BF=bf,
        WIDE=_wide(gradient.dtype),
        PRECISION=blocks["precision"],
    )
    return result


def filter_forward(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    """As `fallback.filter_forward`."""
    check_filter_dtypes(filters, input=x)
    size = check_filter_sizes(window, x.shape, filters.shape)
    result = _made(x, size, is_channels_last(x, filters))
    spatial, output, of_window = _sizes(window, x.shape)
    inner, blocks = x.shape[1] // window.groups, _filter_blocks(prod(output), x.shape[1] // window.groups)
    grid = triton.cdiv(prod(output), blocks["BP"]), size[0], window.groups * triton.cdiv(inner, blocks["BC"])
    if result.numel():
        _filter[grid](
            x,
            filters,
            result,
            prod(output),
            inner,
            window.taps,
            *spatial,
            *output[1:],
            *of_window,
            *_strides(x),
            *_strides_of_filters(filters),
            *_strides(result),
            INSIDE=window.inside,
            WIDE=_wide(x.dtype),
            **blocks,
        )
    return result


def filter_grad_input(size: Sequence[Any], filters: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """As `fallback.filter_grad_input`."""
    check_filter_dtypes(filters, grad_output=gradient)
    check_queries(gradient.shape, check_filter_sizes(window, size, filters.shape))
    result = _made(gradient, size, is_channels_last(filters, gradient))
    spatial, output, of_window = _sizes(window, size)
    inner, blocks = size[1] // window.groups, _filter_blocks(prod(spatial), size[1] // window.groups)
    grid = triton.cdiv(prod(spatial), blocks["BP"]), size[0], window.groups * triton.cdiv(inner, blocks["BC"])
    candidates = [2 * k - 1 if window.inside else k for k in of_window[:3]]
    if result.numel():
        _filter_input[grid](
            gradient,
            filters,
            result,
            prod(spatial),
            inner,
            window.taps,
            *spatial,
            *output,
            *of_window,
            *_strides(gradient),
            *_strides_of_filters(filters),
            *_strides(result),
            *candidates,
            INSIDE=window.inside,
            WIDE=_wide(gradient.dtype),
            **blocks,
        )
    return result


def filter_grad_kernel(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `fallback.filter_grad_kernel`."""
    check_filter_dtypes(None, input=x, queries=gradient)
    check_queries(gradient.shape, check_filter_sizes(window, x.shape, size))
    result = _made(gradient, size, is_channels_last(x, gradient))
    spatial, output, of_window = _sizes(window, x.shape)
    inner, blocks = x.shape[1] // window.groups, _filter_blocks(prod(output), x.shape[1] // window.groups)
    grid = triton.cdiv(prod(output), blocks["BP"]), size[0], window.groups * window.taps
    if result.numel():
        _filter_filters[grid](
            x,
            gradient,
            result,
            x.shape[0] if size[0] == 1 else 1,
            prod(output),
            inner,
            window.taps,
            *spatial,
            *output[1:],
            *of_window,
            *_strides(x),
            *_strides(gradient),
            *_strides(result),
            INSIDE=window.inside,
            WIDE=_wide(gradient.dtype),
            **blocks,
        )
    return result


def _made(like: Tensor, size: Sequence[Any], channels_last: bool) -> Tensor:
    """A new tensor (N, C, ...), with the strides that the fakes of the operators promise."""
    n, channels, *spatial = size
    if channels_last:
        return like.new_empty((n, *spatial, channels)).movedim(-1, 1)
    return like.new_empty((n, channels, *spatial))


def _filter_blocks(positions: int, channels: int) -> dict[str, int]:
    channels = _power(channels, 32)
    return {"BP": _power(positions, 2048 // channels), "BC": channels}


def _strides_of_filters(filters: Tensor) -> tuple[int, ...]:
    """Those of one image's filters for all images stand still."""
    first, *others = _strides(filters)
    return 0 if filters.shape[0] == 1 else first, *others


def grad_input_int8(
    size: Sequence[Any], values: Tensor, scales: Tensor, gradient: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """As `fallback.grad_input_int8`."""
    check_int8(values, scales, gradient=gradient, bias=bias)
    wide = None if bias is None else bias.float()
    return grad_input(size, fallback.dequantized(values, scales), gradient.float(), wide, window).to(gradient.dtype)


def forward_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `fallback.forward_int8`: a float32 weight is made for the time of the call."""
    check_int8(values, scales, input=x, bias=bias)
    wide = None if bias is None else bias.float()
    return forward(x.float(), fallback.dequantized(values, scales), wide, window).to(x.dtype)
