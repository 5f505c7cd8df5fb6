/* Filters that come with the data: the forward result, and the gradient for the input, with channels in the lanes.
 *
 * A filter is one number for each tap, position and group, so it is broadcast to the channels of its group, which lie
 * in the lanes; rows are neighbouring results of one line. Where their windows overlap (stride 1), a vector of pixels
 * is loaded once for all rows whose windows hold it: in column j of the tile, row r has tap j - r, so that a step of
 * the sum loads V vectors for up to R * V multiply-adds. Rows whose windows lie otherwise (strides, windows that were
 * moved inside) load their own pixels. The gradient for the input is the same sum with the taps backwards
 * (filter_windows.h): who owns a pixel gathers all that flows to it, in the order of the positions.
 *
 * The order of summation is that of the pairs of an output value, whatever the tile: taps in C order, positions in C
 * order. Nothing that is outside the source is touched.
 *
 * channels_first: a task brings its pixels together with the channels inside, and stages a line of results. Filters
 * are read where they lie, unless they are stored in fewer bytes: then a task widens those that it needs. So it does,
 * for the forward result, where their taps lie in planes: sizes are often powers of two, and the taps of one position
 * would crowd each other out of one set of a cache.
 */
#ifndef LOCALCONV_FILTER_CHANNELS_H
#define LOCALCONV_FILTER_CHANNELS_H

#include "filter_windows.h"

/* Steps of a tile's sum, from these offsets: n pairs of a vector of pixels and a filter's tap. */
typedef struct lc_filter_run {
    ptrdiff_t pixel, tap, n, pixel_step, tap_step;
} lc_filter_run;

/* The arguments of a tile; *_row: elements from one row to the next. first, end: the columns that lie in the source.
 * adds: to what is in `out` (filter_positions alone). */
typedef struct lc_filter_tile {
    const lc_filter_run *runs;
    ptrdiff_t run_count;
    const void *pixels, *taps;
    void *out;
    ptrdiff_t pixel_row, tap_row, out_row, lane_count, first, end;
    int adds;
} lc_filter_tile;

/* Rows of the largest tile whose rows share pixels, and of that whose rows do not, if the registers have room. */
enum { LC_FILTER_ROWS = 8, LC_FILTER_WIDE_ROWS = 6, LC_FILTER_APART_ROWS = 4 };

/* Where filters lie: elements from one position along each axis, one tap, one group to the next. */
typedef struct lc_filter_layout {
    ptrdiff_t position[3], tap, group;
} lc_filter_layout;

LC_INLINE lc_filter_layout lc_filter_layout_of(const lc_geometry *g, const ptrdiff_t positions[3]) {
    lc_filter_layout f;
    f.position[2] = g->channels_first ? 1 : g->groups * g->taps;
    f.position[1] = f.position[2] * positions[2];
    f.position[0] = f.position[1] * positions[1];
    f.tap = g->channels_first ? f.position[0] * positions[0] : 1;
    f.group = f.tap * g->taps;
    return f;
}

/* Where the filters of a block lie that are brought together: planes, if there are some, do not all begin in the same
 * set of a cache. */
LC_INLINE lc_filter_layout lc_gathered_layout(const lc_geometry *g, const ptrdiff_t extent[3]) {
    lc_filter_layout f = lc_filter_layout_of(g, extent);
    if (!g->channels_first) return f;
    f.tap = lc_round_up(f.tap, 16) | 16;
    f.group = f.tap * g->taps;
    return f;
}

/* The filters of an image. */
LC_INLINE ptrdiff_t lc_filter_image(const lc_geometry *g, ptrdiff_t image) {
    return g->kernel_batch == 1 ? 0 : image * g->positions * g->groups * g->taps;
}

typedef struct lc_filter_channels {
    ptrdiff_t runs_at, pixels_at, filters_at, stage_at; /* bytes into a thread's workspace; before them: stretches */
    ptrdiff_t size[3];                                  /* of the result */
    int gradient, brings, gathers;
} lc_filter_channels;
LC_PLAN_FITS(lc_filter_channels);

/* Runs of one result, at most. */
LC_INLINE ptrdiff_t lc_filter_run_limit(const lc_geometry *g, int gradient) {
    ptrdiff_t limit = 1;
    for (int axis = 0; axis < 2; ++axis) limit *= g->inside && gradient ? 2 * g->kernel[axis] : g->kernel[axis];
    return limit * (g->inside && gradient ? LC_SEGMENTS : 1);
}

static inline int lc_finish_filter_channels(lc_job *job) {
    lc_filter_channels *p = LC_PLAN(lc_filter_channels, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, *block = job->choices.block;
    ptrdiff_t sources = 1, positions = 1;
    p->gradient = job->algorithm == LC_filter_input_channels;
    memcpy(p->size, p->gradient ? g->input : g->output, sizeof p->size);
    if (!lc_block_fits(job, p->size) || !lc_vectors_fit(job)) return LC_REFUSED;
    for (int axis = 0; axis < 3; ++axis) {
        sources *= lc_sources_limit(g, axis, p->gradient, block[axis]);
        positions *= p->gradient ? lc_sources_limit(g, axis, 1, block[axis]) : block[axis];
    }
    /* planes are a little longer than their positions */
    const ptrdiff_t filters = (positions + (g->channels_first ? 31 : 0)) * g->groups * g->taps;
    p->brings = g->channels_first && g->channels > 1;
    p->gathers = job->storage != LC_native || (g->channels_first && !p->gradient);
    p->runs_at = lc_align(block[2] * (ptrdiff_t)sizeof(lc_stretch));
    p->pixels_at = p->runs_at + lc_align(lc_filter_run_limit(g, p->gradient) * (ptrdiff_t)sizeof(lc_filter_run));
    p->filters_at = p->pixels_at + (p->brings ? lc_align(sources * g->channels * itemsize) : 0);
    p->stage_at = p->filters_at + (p->gathers ? lc_align(filters * itemsize) : 0);
    job->list_bytes = p->pixels_at;
    job->box_bytes = p->stage_at - p->pixels_at;
    job->thread_bytes = p->stage_at + (p->brings ? lc_align(block[2] * g->channels * itemsize) : 0);
    job->tasks[0] = g->batch * lc_count_blocks(p->size, block);
    return LC_OK;
}

#endif
