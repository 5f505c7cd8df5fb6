/* One convolution as the kernels see it: sizes, where elements lie, and what an output position reads.
 *
 * Three spatial axes (depth, height, width); a 1D convolution has 1 x 1 x L. Nothing is checked here: geometry.py has
 * done it.
 */
#ifndef LOCALCONV_GEOMETRY_H
#define LOCALCONV_GEOMETRY_H

#include "platform.h"

/* Where an array of images lies: elements from one image, one channel, one pixel along each axis to the next. */
typedef struct lc_layout {
    ptrdiff_t image, channel, pixel[3];
} lc_layout;

typedef struct lc_geometry {
    ptrdiff_t batch, channels, filters, groups;
    ptrdiff_t input[3], output[3], kernel[3], strides[3], dilation[3],
        pad_before[3]; /* pad_before: pixels of padding in front of an axis */
    int channels_first;
    int by_group;           /* a kernel has one filter for each group, that all its channels go through */
    ptrdiff_t kernel_batch; /* images that have kernels of their own: 1 or batch */
    int inside;             /* windows at the border are moved until they lie inside (lc_window_origin) */
    /* derived by lc_derive */
    ptrdiff_t taps, positions, group_channels, group_filters;
    ptrdiff_t window;  /* products of one output value, rows of its kernel: taps * group_channels, or taps by_group */
    int along_taps;    /* runs go along the width's taps, else along the channels; of the parts of conv_forward.h the
                          longer */
    int channel_lanes; /* depthwise, and pixels' channels neighbours: a tile's lanes are channels, each with its filter
                        */
    lc_layout x, y;    /* of the input, and of the output, whose channels are the filters */
} lc_geometry;

/* Pixels of these sizes, the channels inside or in front. */
LC_INLINE lc_layout lc_layout_of(const ptrdiff_t size[3], ptrdiff_t channels, int channels_first) {
    lc_layout layout;
    layout.pixel[2] = channels_first ? 1 : channels;
    layout.pixel[1] = layout.pixel[2] * size[2];
    layout.pixel[0] = layout.pixel[1] * size[1];
    layout.channel = channels_first ? layout.pixel[0] * size[0] : 1;
    layout.image = channels * size[0] * size[1] * size[2];
    return layout;
}

/* The same with `images` images side by side in every element. */
LC_INLINE lc_layout lc_interleaved(lc_layout layout, ptrdiff_t images) {
    layout.image = 1;
    layout.channel *= images;
    for (int axis = 0; axis < 3; ++axis) layout.pixel[axis] *= images;
    return layout;
}

LC_INLINE ptrdiff_t lc_offset(const lc_layout *layout, const ptrdiff_t pixel[3]) {
    return pixel[0] * layout->pixel[0] + pixel[1] * layout->pixel[1] + pixel[2] * layout->pixel[2];
}

LC_INLINE void lc_derive(lc_geometry *g) {
    g->taps = g->kernel[0] * g->kernel[1] * g->kernel[2];
    g->positions = g->output[0] * g->output[1] * g->output[2];
    g->group_channels = g->channels / g->groups;
    g->group_filters = g->filters / g->groups;
    g->window = g->by_group ? g->taps : g->taps * g->group_channels;
    g->along_taps = g->channels_first || g->group_channels == 1;
    g->channel_lanes =
        !g->by_group && g->groups > 1 && g->group_channels == 1 && g->group_filters == 1 && !g->channels_first;
    g->x = lc_layout_of(g->input, g->channels, g->channels_first);
    g->y = lc_layout_of(g->output, g->filters, g->channels_first);
}

/* Products that it sums, padding counted. */
LC_INLINE double lc_products(const lc_geometry *g) {
    return (double)g->batch * (double)g->positions * (double)g->filters * (double)g->window;
}

/* The effective kernel size along an axis: pixels from a window's first tap to its last one. */
LC_INLINE ptrdiff_t lc_effective_size(const lc_geometry *g, int axis) {
    return (g->kernel[axis] - 1) * g->dilation[axis] + 1;
}

/* The first pixel of a window that lies inside: every dilation-th pixel from o % dilation on is of its phase, and `o`
 * is in the middle where that leaves the window among them. */
static inline ptrdiff_t lc_moved_origin(const lc_geometry *g, int axis, ptrdiff_t o) {
    const ptrdiff_t d = g->dilation[axis], k = g->kernel[axis], phase = o % d;
    const ptrdiff_t pixels = lc_ceil_div(g->input[axis] - phase, d);
    return phase + lc_min(lc_max(o / d - k / 2, 0), pixels - k) * d;
}

/* The input pixel under the first tap of the window of output index `o`; outside the input it is padding. */
LC_INLINE ptrdiff_t lc_window_origin(const lc_geometry *g, int axis, ptrdiff_t o) {
    if (g->inside) return lc_moved_origin(g, axis, o);
    return o * g->strides[axis] - g->pad_before[axis];
}

/* The element of a window's origin in an operand that begins at the pixel `corner`; NULL: with the input. */
LC_INLINE ptrdiff_t lc_window_at(const lc_geometry *g, const lc_layout *layout, const ptrdiff_t index[3],
                                 const ptrdiff_t corner[3]) {
    ptrdiff_t origin[3];
    for (int axis = 0; axis < 3; ++axis)
        origin[axis] = lc_window_origin(g, axis, index[axis]) - (corner ? corner[axis] : 0);
    return lc_offset(layout, origin);
}

/* ---------------------------------------------------------------------------------- windows and pixels */

typedef struct lc_range {
    ptrdiff_t lo, hi;
} lc_range;

LC_INLINE int lc_same_range(lc_range a, lc_range b) { return a.lo == b.lo && a.hi == b.hi; }

/* The taps lo .. hi-1 of an axis that meet the input pixels from .. to-1 when the window of output index o is laid on
 * it; lo == hi: none do. */
LC_INLINE lc_range lc_taps_within(const lc_geometry *g, int axis, ptrdiff_t o, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t origin = lc_window_origin(g, axis, o) - from, step = g->dilation[axis], room = to - from - origin;
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

/* The input pixels that the windows of the output positions lo .. hi-1 meet: the first one, and how many. */
LC_INLINE void lc_input_box(const lc_geometry *g, int axis, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t *from,
                            ptrdiff_t *extent) {
    *from = lc_max(0, lc_window_origin(g, axis, lo));
    *extent = lc_max(0, lc_min(g->input[axis], lc_window_origin(g, axis, hi - 1) + lc_effective_size(g, axis)) - *from);
}

/* At most so many input pixels meet the windows of n neighbouring output positions. */
LC_INLINE ptrdiff_t lc_box_extent(const lc_geometry *g, int axis, ptrdiff_t n) {
    return lc_min((n - 1) * g->strides[axis] + lc_effective_size(g, axis), g->input[axis]);
}

/* The output positions lo .. hi-1 whose windows may meet the input pixels from .. to-1. */
LC_INLINE lc_range lc_positions_meeting(const lc_geometry *g, int axis, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t first = from + g->pad_before[axis] - (lc_effective_size(g, axis) - 1);
    lc_range r;
    r.lo = first > 0 ? lc_min(lc_ceil_div(first, g->strides[axis]), g->output[axis]) : 0;
    r.hi = lc_max(r.lo, lc_min((to - 1 + g->pad_before[axis]) / g->strides[axis] + 1, g->output[axis]));
    return r;
}

/* ------------------------------------------------------------------------------------- runs and strips */

/* A run: n steps of a sum through the row operand and the vector operand of a register tile, from these offsets. */
typedef struct lc_run {
    ptrdiff_t row, vector, n;
} lc_run;

/* Whether the width has more taps than a pixel has channels, where these are not neighbours. */
LC_INLINE int lc_more_taps(const lc_geometry *g) {
    return g->group_channels == 1 || (g->channels_first && g->kernel[2] > g->group_channels);
}

/* Elements from one step of a run to the next in the input operand. */
LC_INLINE ptrdiff_t lc_run_step(const lc_geometry *g, const lc_layout *layout) {
    return g->along_taps ? g->dilation[2] * layout->pixel[2] : layout->channel;
}

/* An upper bound on the runs of one window that is cut after every `piece` steps. */
LC_INLINE ptrdiff_t lc_run_limit(const lc_geometry *g, ptrdiff_t piece) {
    return (g->along_taps ? g->group_channels * g->kernel[0] * g->kernel[1] : g->taps) + (g->window - 1) / piece;
}

/* The runs of a window whose taps are clipped to `clip`, their input offsets counted from the window's (unclipped)
 * origin. kernel_step: elements from one kernel row to the next. input_in_lanes: the input is the vector operand, the
 * kernel the row operand. piece: after every so many steps, in all, a new run begins. */
static inline ptrdiff_t lc_build_runs(const lc_geometry *g, const lc_layout *layout, const lc_range clip[3],
                                      ptrdiff_t kernel_step, int input_in_lanes, ptrdiff_t piece, lc_run *runs) {
    ptrdiff_t step[3], count = 0, room = piece;
    for (int axis = 0; axis < 3; ++axis) step[axis] = g->dilation[axis] * layout->pixel[axis];
    const ptrdiff_t width = clip[2].hi - clip[2].lo, input_step = lc_run_step(g, layout);
    const int whole_row = !g->along_taps && step[2] == g->group_channels * layout->channel;
    const ptrdiff_t outer = g->along_taps ? g->group_channels : 1;
    const ptrdiff_t inner = g->along_taps || whole_row ? lc_min(width, 1) : width;
    for (ptrdiff_t c = 0; c < outer; ++c)
        for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
            for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
                for (ptrdiff_t l = 0; l < inner; ++l) {
                    const ptrdiff_t k = clip[2].lo + l, tap = (i * g->kernel[1] + j) * g->kernel[2] + k;
                    ptrdiff_t row = g->along_taps ? c * g->taps + tap : tap * g->group_channels;
                    ptrdiff_t input = c * layout->channel + i * step[0] + j * step[1] + k * step[2];
                    ptrdiff_t left = g->along_taps ? width : whole_row ? width * g->group_channels : g->group_channels;
                    while (left > 0) {
                        lc_run *run = runs + count++;
                        run->row = input_in_lanes ? row * kernel_step : input;
                        run->vector = input_in_lanes ? input : row * kernel_step;
                        run->n = lc_min(left, room);
                        left -= run->n, row += run->n, input += run->n * input_step;
                        room = room == run->n ? piece : room - run->n;
                    }
                }
    return count;
}

/* A strip: n elements of a window at constant steps in the input and in the kernel, from these offsets; the height of a
 * gradient's register tiles. `row` counts kernel rows. */
typedef struct lc_strip {
    ptrdiff_t input, row, n;
} lc_strip;

/* How the strips of a geometry go: along the width's taps or along the channels, and their steps. rows_by_channel:
 * channels are the outer ones in the kernel's rows. */
typedef struct lc_strip_layout {
    int along_taps, rows_by_channel;
    ptrdiff_t input_step, row_step;
} lc_strip_layout;

LC_INLINE lc_strip_layout lc_strip_layout_of(const lc_geometry *g, const lc_layout *layout, int rows_by_channel) {
    lc_strip_layout s;
    s.along_taps = lc_more_taps(g);
    s.rows_by_channel = rows_by_channel;
    s.input_step = s.along_taps ? g->dilation[2] * layout->pixel[2] : layout->channel;
    s.row_step = s.along_taps == rows_by_channel ? 1 : s.along_taps ? g->group_channels : g->taps;
    return s;
}

/* An upper bound on the strips of one window. */
LC_INLINE ptrdiff_t lc_strip_limit(const lc_geometry *g) {
    return lc_max(g->taps, g->group_channels * g->kernel[0] * g->kernel[1]);
}

/* The strips of a window whose taps are clipped to `clip`, their input offsets counted from the window's (unclipped)
 * origin. */
static inline ptrdiff_t lc_build_strips(const lc_geometry *g, const lc_layout *layout, const lc_strip_layout *s,
                                        const lc_range clip[3], lc_strip *strips) {
    ptrdiff_t step[3], count = 0;
    for (int axis = 0; axis < 3; ++axis) step[axis] = g->dilation[axis] * layout->pixel[axis];
    const ptrdiff_t width = clip[2].hi - clip[2].lo, row_tap = s->rows_by_channel ? 1 : g->group_channels;
    const ptrdiff_t row_channel = s->rows_by_channel ? g->taps : 1;
    /* neighbouring taps continue each other, in the input and in the kernel */
    const int joined =
        s->along_taps || (step[2] == g->group_channels * s->input_step && row_tap == g->group_channels * s->row_step);
    const ptrdiff_t outer = s->along_taps ? g->group_channels : 1, inner = joined ? lc_min(width, 1) : width;
    for (ptrdiff_t c = 0; c < outer; ++c)
        for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
            for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
                for (ptrdiff_t l = 0; l < inner; ++l) {
                    const ptrdiff_t k = clip[2].lo + l, tap = (i * g->kernel[1] + j) * g->kernel[2] + k;
                    lc_strip *strip = strips + count++;
                    strip->input = c * layout->channel + i * step[0] + j * step[1] + k * step[2];
                    strip->row = c * row_channel + tap * row_tap;
                    strip->n = s->along_taps ? width : joined ? width * g->group_channels : g->group_channels;
                }
    return count;
}

/* ----------------------------------------------------------------------------------- panels and blocks */

/* A panel: up to `width` filters of one group, first .. first+count-1, that a register tile takes at once. Lanewise:
 * of as many groups, `group` being that of the first lane. */
typedef struct lc_panel {
    ptrdiff_t group, first, count;
} lc_panel;

/* The panels of all groups. */
LC_INLINE ptrdiff_t lc_count_panels(const lc_geometry *g, ptrdiff_t width) {
    return g->channel_lanes ? lc_ceil_div(g->filters, width) : lc_ceil_div(g->group_filters, width) * g->groups;
}

LC_INLINE lc_panel lc_find_panel(const lc_geometry *g, ptrdiff_t width, ptrdiff_t index) {
    lc_panel panel = {0, 0, lc_min(width, g->channel_lanes ? g->filters : g->group_filters)};
    if (index == 0) return panel; /* few filters: the only panel, without a division for every position */
    if (g->channel_lanes) {
        panel.group = panel.first = index * width;
        panel.count = lc_min(width, g->filters - panel.first);
        return panel;
    }
    const ptrdiff_t per_group = lc_ceil_div(g->group_filters, width), inside = index % per_group * width;
    panel.group = index / per_group;
    panel.first = panel.group * g->group_filters + inside;
    panel.count = lc_min(width, g->group_filters - inside);
    return panel;
}

/* The block of task `index` when `size` is cut into blocks: lo .. hi-1 along every axis. Returns what is left of the
 * index. */
LC_INLINE ptrdiff_t lc_find_block(const ptrdiff_t size[3], const ptrdiff_t block[3], ptrdiff_t index, ptrdiff_t lo[3],
                                  ptrdiff_t hi[3]) {
    for (int axis = 2; axis >= 0; --axis) {
        lo[axis] = 0, hi[axis] = size[axis];
        if (block[axis] >= size[axis]) continue; /* without a division */
        const ptrdiff_t blocks = lc_ceil_div(size[axis], block[axis]);
        lo[axis] = index % blocks * block[axis];
        hi[axis] = lc_min(lo[axis] + block[axis], size[axis]);
        index /= blocks;
    }
    return index;
}

LC_INLINE ptrdiff_t lc_count_blocks(const ptrdiff_t size[3], const ptrdiff_t block[3]) {
    ptrdiff_t count = 1;
    for (int axis = 0; axis < 3; ++axis) count *= lc_ceil_div(size[axis], block[axis]);
    return count;
}

#endif
