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
}

/* The taps lo .. hi-1 of an axis that meet the input when the window of output index o is laid on it; lo == hi: none do. */
typedef struct lc_range {
    ptrdiff_t lo, hi;
} lc_range;

LC_INLINE lc_range lc_taps_inside(const lc_geometry *g, int axis, ptrdiff_t o) {
    const ptrdiff_t origin = o * g->strides[axis] - g->before[axis], step = g->dilation[axis], room = g->input[axis] - origin;
    lc_range r = {0, g->kernel[axis]};
    if (origin >= 0 && (g->kernel[axis] - 1) * step < room) return r; /* the usual case, without a division */
    r.lo = origin < 0 ? lc_min(lc_ceil_div(-origin, step), g->kernel[axis]) : 0;
    r.hi = room > 0 ? lc_min(lc_ceil_div(room, step), g->kernel[axis]) : 0;
    r.hi = lc_max(r.lo, r.hi);
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

/* Which kernels ran: written by the task that has number 0, from inside its own instance. */
typedef struct lc_ran {
    const char *isa, *dtype;
} lc_ran;

/* One call: the arrays and what happens to a finished sum. */
typedef struct lc_call {
    const lc_geometry *geometry;
    const void *input, *kernel, *bias; /* bias may be NULL */
    void *output;
    ptrdiff_t bias_position, bias_filter; /* elements from one position's, one filter's bias to the next */
    int relu;
    lc_ran *ran;
} lc_call;

#endif
