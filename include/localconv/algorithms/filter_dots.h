/* Filters that come with the data: their gradient, which is the correlation of windows with an output's gradient.
 *
 * A tap's value is the dot product of a pixel's channels, those of a group, with the position's: channels are in the
 * lanes, and as many taps as a vector has lanes are summed side by side, so that their lanes are added together at the
 * end, by halving. A position's vectors are loaded once for these taps. Filters that serve all images are summed over
 * them in their order. Taps outside the input get 0.
 *
 * channels_first: a task brings pixels and positions together with the channels inside, and stages what it computes.
 * channels_last: it brings the pixels of windows of many lines together.
 */
#ifndef LOCALCONV_FILTER_DOTS_H
#define LOCALCONV_FILTER_DOTS_H

#include "filter_windows.h"

typedef struct lc_filter_dots {
    ptrdiff_t taps_at, pixels_at, positions_at,
        stage_at; /* bytes into a thread's workspace; first the offsets of taps */
    int brings_pixels, brings;
} lc_filter_dots;
LC_PLAN_FITS(lc_filter_dots);

/* Windows of more lines than this are read from a box, whose lines lie a cache line farther apart than they are long:
 * the lines of an image are often so far apart that they fall into the same sets of a first-level cache. */
enum { LC_DOTS_LINES = 4 };

/* The layout of a box of pixels, channels inside. */
LC_INLINE lc_layout lc_dots_box(const lc_geometry *g, const ptrdiff_t extent[3], ptrdiff_t itemsize) {
    lc_layout box = lc_layout_of(extent, g->channels, 0);
    if (box.pixel[1] * itemsize > LC_ALIGNMENT) box.pixel[1] += LC_ALIGNMENT / itemsize;
    box.pixel[0] = box.pixel[1] * extent[1];
    return box;
}

static inline int lc_finish_filter_dots(lc_job *job) {
    lc_filter_dots *p = LC_PLAN(lc_filter_dots, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, *block = job->choices.block;
    ptrdiff_t extent[3], positions = 1;
    if (!lc_block_fits(job, g->output)) return LC_REFUSED;
    for (int axis = 0; axis < 3; ++axis) {
        extent[axis] = lc_sources_limit(g, axis, 0, block[axis]);
        positions *= block[axis];
    }
    p->brings = g->channels_first;
    p->brings_pixels = p->brings || g->kernel[1] > LC_DOTS_LINES;
    p->taps_at = lc_align(g->taps * (ptrdiff_t)sizeof(ptrdiff_t));
    p->pixels_at = p->taps_at * 2;
    p->positions_at =
        p->pixels_at +
        (p->brings_pixels ? lc_align(lc_dots_box(g, extent, itemsize).pixel[0] * extent[0] * itemsize) : 0);
    p->stage_at = p->positions_at + (p->brings ? lc_align(positions * g->channels * itemsize) : 0);
    job->list_bytes = p->pixels_at;
    job->thread_bytes = p->stage_at + (p->brings ? lc_align(positions * g->groups * g->taps * itemsize) : 0);
    job->box_bytes = job->thread_bytes - p->pixels_at;
    job->tasks[0] = g->kernel_batch * lc_count_blocks(g->output, block);
    return LC_OK;
}

#endif
