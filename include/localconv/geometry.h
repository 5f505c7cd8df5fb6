/* One convolution as the kernels see it: sizes, strides in elements, and the runs that an output position reads.
 *
 * Three spatial axes (depth, height, width); a 1D convolution has 1 x 1 x L. Nothing is checked here: geometry.py has done it.
 */
#ifndef LOCALCONV_GEOMETRY_H
#define LOCALCONV_GEOMETRY_H

#include "platform.h"

typedef struct lc_geometry {
    ptrdiff_t batch, channels, filters, groups;
    ptrdiff_t input[3], output[3], kernel[3], strides[3], dilation[3], before[3]; /* before: padding in front of an axis */
    int channels_first;
    /* derived by lc_derive */
    ptrdiff_t taps, positions, group_channels, group_filters;
    ptrdiff_t depth;                                       /* rows of one group's kernel at one position: taps * group_channels */
    ptrdiff_t input_batch, input_channel, input_stride[3]; /* elements from one image, channel, pixel to the next */
    int along_taps;                                        /* runs go along the width's taps, else along the channels */
    /* where results go, in elements: from the first to the next image, channel, pixel, and the first one itself */
    ptrdiff_t output_batch, output_channel, output_stride[3], output_origin;
} lc_geometry;

LC_INLINE void lc_derive(lc_geometry *g) {
    g->taps = g->kernel[0] * g->kernel[1] * g->kernel[2];
    g->positions = g->output[0] * g->output[1] * g->output[2];
    g->group_channels = g->channels / g->groups;
    g->group_filters = g->filters / g->groups;
    g->depth = g->taps * g->group_channels;
    g->input_stride[2] = g->channels_first ? 1 : g->channels;
    g->input_stride[1] = g->input_stride[2] * g->input[2];
    g->input_stride[0] = g->input_stride[1] * g->input[1];
    g->input_channel = g->channels_first ? g->input[0] * g->input[1] * g->input[2] : 1;
    g->input_batch = g->channels * g->input[0] * g->input[1] * g->input[2];
    g->along_taps = g->channels_first || g->group_channels == 1;
    g->output_stride[2] = g->channels_first ? 1 : g->filters;
    g->output_stride[1] = g->output_stride[2] * g->output[2];
    g->output_stride[0] = g->output_stride[1] * g->output[1];
    g->output_channel = g->channels_first ? g->positions : 1;
    g->output_batch = g->filters * g->positions;
    g->output_origin = 0;
}

typedef struct lc_range {
    ptrdiff_t lo, hi;
} lc_range;

/* The taps lo .. hi-1 of an axis that meet the input pixels from .. to-1 when the window of output index o is laid on it; lo == hi:
 * none do. */
LC_INLINE lc_range lc_taps_within(const lc_geometry *g, int axis, ptrdiff_t o, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t origin = o * g->strides[axis] - g->before[axis] - from, step = g->dilation[axis], room = to - from - origin;
    lc_range r = {0, g->kernel[axis]};
    if (origin >= 0 && (g->kernel[axis] - 1) * step < room) return r; /* the usual case, without a division */
    r.lo = origin < 0 ? lc_min(lc_ceil_div(-origin, step), g->kernel[axis]) : 0;
    r.hi = room > 0 ? lc_min(lc_ceil_div(room, step), g->kernel[axis]) : 0;
    r.hi = lc_max(r.lo, r.hi);
    return r;
}

/* The taps that meet the input at all. */
LC_INLINE lc_range lc_taps_inside(const lc_geometry *g, int axis, ptrdiff_t o) {
    return lc_taps_within(g, axis, o, 0, g->input[axis]);
}

/* The input pixels, in_lo and from there `extent`, that the windows of the output positions lo .. hi-1 meet. */
LC_INLINE void lc_input_box(const lc_geometry *g, int axis, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t *in_lo, ptrdiff_t *extent) {
    const ptrdiff_t window = (g->kernel[axis] - 1) * g->dilation[axis] + 1;
    *in_lo = lc_max(0, lo * g->strides[axis] - g->before[axis]);
    *extent = lc_max(0, lc_min(g->input[axis], (hi - 1) * g->strides[axis] - g->before[axis] + window) - *in_lo);
}

/* The output positions lo .. hi-1 whose windows may meet the input pixels from .. to-1. */
LC_INLINE lc_range lc_positions_at(const lc_geometry *g, int axis, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t reach = (g->kernel[axis] - 1) * g->dilation[axis], first = from + g->before[axis] - reach;
    lc_range r;
    r.lo = first > 0 ? lc_min(lc_ceil_div(first, g->strides[axis]), g->output[axis]) : 0;
    r.hi = lc_max(r.lo, lc_min((to - 1 + g->before[axis]) / g->strides[axis] + 1, g->output[axis]));
    return r;
}

/* A run: n steps through the broadcast operand (rows) and the vector operand (lanes) of a register tile, from these offsets. */
typedef struct lc_run {
    ptrdiff_t rows, lanes, n;
} lc_run;

/* How an input operand is laid out: in place in the caller's array, or interleaved into a workspace. All in elements. */
typedef struct lc_layout {
    ptrdiff_t stride[3], channel;
} lc_layout;

LC_INLINE lc_layout lc_input_layout(const lc_geometry *g) {
    lc_layout at;
    for (int axis = 0; axis < 3; ++axis) at.stride[axis] = g->input_stride[axis];
    at.channel = g->input_channel;
    return at;
}

/* Elements from one step of a run to the next in the input operand. */
LC_INLINE ptrdiff_t lc_run_step(const lc_geometry *g, const lc_layout *at) {
    return g->along_taps ? g->dilation[2] * at->stride[2] : at->channel;
}

/* An upper bound on the runs of one window. */
LC_INLINE ptrdiff_t lc_run_limit(const lc_geometry *g) {
    return g->along_taps ? g->group_channels * g->kernel[0] * g->kernel[1] : g->taps;
}

/* The runs of a window whose taps are clipped to `clip`, their input offsets counted from the window's (unclipped) origin.
 * kernel_step: elements from one kernel row to the next. input_in_lanes: the input is the vector operand, the kernel broadcast. */
static inline ptrdiff_t lc_build_runs(const lc_geometry *g, const lc_layout *at, const lc_range clip[3], ptrdiff_t kernel_step,
                                      int input_in_lanes, lc_run *runs) {
    ptrdiff_t step[3], count = 0;
    for (int axis = 0; axis < 3; ++axis) step[axis] = g->dilation[axis] * at->stride[axis];
    const ptrdiff_t width = clip[2].hi - clip[2].lo;
    const int whole_row = !g->along_taps && step[2] == g->group_channels * at->channel;
    const ptrdiff_t outer = g->along_taps ? g->group_channels : 1;
    const ptrdiff_t inner = g->along_taps || whole_row ? lc_min(width, 1) : width;
    for (ptrdiff_t c = 0; c < outer; ++c)
        for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
            for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
                for (ptrdiff_t l = 0; l < inner; ++l) {
                    const ptrdiff_t k = clip[2].lo + l, tap = (i * g->kernel[1] + j) * g->kernel[2] + k;
                    const ptrdiff_t row = g->along_taps ? c * g->taps + tap : tap * g->group_channels;
                    const ptrdiff_t input = c * at->channel + i * step[0] + j * step[1] + k * step[2];
                    lc_run *run = runs + count++;
                    run->rows = input_in_lanes ? row * kernel_step : input;
                    run->lanes = input_in_lanes ? input : row * kernel_step;
                    run->n = g->along_taps ? width : whole_row ? width * g->group_channels : g->group_channels;
                }
    return count;
}

/* A strip: n elements of a window at constant steps in the input and in the kernel, from these offsets; the height of a gradient's
 * register tiles. `row` counts kernel rows. */
typedef struct lc_strip {
    ptrdiff_t input, row, n;
} lc_strip;

/* How the strips of a geometry go: along the width's taps or along the channels, and their steps. rows_by_channel: channels are the
 * outer ones in the kernel's rows. */
typedef struct lc_strips {
    int along_taps, rows_by_channel;
    ptrdiff_t input_step, row_step;
} lc_strips;

LC_INLINE lc_strips lc_strips_of(const lc_geometry *g, const lc_layout *at, int rows_by_channel) {
    lc_strips s;
    s.along_taps = g->group_channels == 1 || (g->channels_first && g->kernel[2] > g->group_channels);
    s.rows_by_channel = rows_by_channel;
    s.input_step = s.along_taps ? g->dilation[2] * at->stride[2] : at->channel;
    s.row_step = s.along_taps == rows_by_channel ? 1 : s.along_taps ? g->group_channels : g->taps;
    return s;
}

/* An upper bound on the strips of one window. */
LC_INLINE ptrdiff_t lc_strip_limit(const lc_geometry *g) { return lc_max(g->taps, g->group_channels * g->kernel[0] * g->kernel[1]); }

/* The strips of a window whose taps are clipped to `clip`, their input offsets counted from the window's (unclipped) origin. */
static inline ptrdiff_t lc_build_strips(const lc_geometry *g, const lc_layout *at, const lc_strips *s, const lc_range clip[3],
                                        lc_strip *strips) {
    const ptrdiff_t step[3] = {g->dilation[0] * at->stride[0], g->dilation[1] * at->stride[1], g->dilation[2] * at->stride[2]};
    const ptrdiff_t width = clip[2].hi - clip[2].lo, row_tap = s->rows_by_channel ? 1 : g->group_channels;
    const ptrdiff_t row_channel = s->rows_by_channel ? g->taps : 1;
    /* neighbouring taps continue each other, in the input and in the kernel */
    const int joined = s->along_taps || (step[2] == g->group_channels * s->input_step && row_tap == g->group_channels * s->row_step);
    const ptrdiff_t outer = s->along_taps ? g->group_channels : 1, inner = joined ? lc_min(width, 1) : width;
    ptrdiff_t count = 0;
    for (ptrdiff_t c = 0; c < outer; ++c)
        for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
            for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
                for (ptrdiff_t l = 0; l < inner; ++l) {
                    const ptrdiff_t k = clip[2].lo + l, tap = (i * g->kernel[1] + j) * g->kernel[2] + k;
                    lc_strip *strip = strips + count++;
                    strip->input = c * at->channel + i * step[0] + j * step[1] + k * step[2];
                    strip->row = c * row_channel + tap * row_tap;
                    strip->n = s->along_taps ? width : joined ? width * g->group_channels : g->group_channels;
                }
    return count;
}

/* Which kernels ran: written by the task that has number 0, from inside its own instance. */
typedef struct lc_ran {
    const char *isa, *dtype;
} lc_ran;

/* One call: the arrays and what happens to a finished sum. Of input, kernel and gradient (that of the forward output), the forward
 * operations take the first two and leave out the last; each gradient leaves out what it makes. */
typedef struct lc_call {
    const lc_geometry *geometry;
    const void *input, *kernel, *gradient, *bias; /* bias may be NULL */
    void *output;
    int accumulate; /* add to what the output holds (kernel gradients) */
    ptrdiff_t bias_position, bias_filter; /* elements from one position's, one filter's bias to the next */
    int relu;
    lc_ran *ran;
} lc_call;

#endif
