/* Filters that come with the data, with results in the lanes: for few channels, which would leave lanes empty, and for
 * channels_first, whose lines are in the lanes already. Stride 1 along the width, windows that are not moved.
 *
 *   forward, gradient for the input   rows are channels of a group; a tap's vector of filters serves all of them
 *   gradient for the filters          rows are the taps of a line of the window; a vector of gradients serves them all
 *
 * A task has one group. It brings planes of its sources together, with zeros around them, and goes through its
 * positions by strips of neighbouring lines: it brings their filters together as planes, one for each tap, each filter
 * once, and adds up what these positions give. Where a tap meets padding, both are zeros. Where not all taps of a strip
 * fit, it brings some rows of them at a time; to a line of pixels gradients come from several strips: both are summed
 * where the results lie. The order of summation is filter_channels.h's: taps in C order, and of gradients the
 * positions, which meet a pixel with their last taps first.
 */
#ifndef LOCALCONV_FILTER_POSITIONS_H
#define LOCALCONV_FILTER_POSITIONS_H

#include "filter_channels.h"

typedef struct lc_filter_positions {
    ptrdiff_t sources_at, filters_at, widened_at, sums_at; /* bytes into a thread's workspace; before them: runs */
    ptrdiff_t size[3];             /* of the result; of the gradient for the filters: positions */
    ptrdiff_t width, filter_width; /* of a line of sources and one of filters, zeros included */
    ptrdiff_t strip, plane;        /* lines of positions of a strip; elements from one tap's filters to the next */
    ptrdiff_t tap_rows;            /* rows of taps whose filters are brought together */
    ptrdiff_t lines;               /* of sources, at most */
    int gradient, correlates;
} lc_filter_positions;
LC_PLAN_FITS(lc_filter_positions);

/* Neighbouring elements of a plane that are brought together, about, and bytes of all: where the taps of a position lie
 * in planes, each plane is another page of memory, and far from the one before. */
enum { LC_STRIP_ELEMENTS = 512, LC_STRIP_BYTES = 128 << 10 };

static inline int lc_finish_filter_positions(lc_job *job) {
    lc_filter_positions *p = LC_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, *block = job->choices.block, lanes = lc_tile_lanes(job);
    const ptrdiff_t columns = lc_round_up(block[2], lanes), results = block[0] * block[1] * columns;
    p->gradient = job->algorithm == LC_filter_input_positions;
    p->correlates = job->algorithm == LC_filter_kernel_positions;
    memcpy(p->size, p->gradient ? g->input : g->output, sizeof p->size);
    if (!lc_block_fits(job, p->size) || !lc_vectors_fit(job) || g->inside || g->strides[2] != 1) return LC_REFUSED;
    p->width = columns + lc_effective_size(g, 2) - 1;
    p->lines = lc_sources_limit(g, 0, p->gradient, block[0]) * lc_sources_limit(g, 1, p->gradient, block[1]);
    p->filter_width = p->gradient ? p->width : columns;
    p->strip = g->channels_first ? lc_max(1, lc_min(block[1], LC_STRIP_ELEMENTS / block[2])) : 1;
    p->plane = p->strip * p->filter_width;
    const ptrdiff_t rows = LC_STRIP_BYTES / (g->kernel[2] * p->plane * itemsize);
    p->tap_rows =
        g->channels_first ? lc_max(1, lc_min(g->kernel[0] * g->kernel[1], rows)) : g->kernel[0] * g->kernel[1];
    const ptrdiff_t sums = p->correlates ? g->group_channels * lanes : g->group_channels * results;
    const ptrdiff_t widened = job->storage == LC_native || g->channels_first ? 0 : g->taps * p->filter_width;
    p->sources_at = lc_align(g->kernel[0] * g->kernel[1] * (ptrdiff_t)sizeof(lc_filter_run));
    p->filters_at = p->sources_at + lc_align(g->group_channels * p->lines * p->width * itemsize);
    p->widened_at = p->filters_at + lc_align(p->tap_rows * g->kernel[2] * p->plane * itemsize);
    p->sums_at = p->widened_at + lc_align(widened * itemsize);
    job->list_bytes = p->sources_at;
    job->thread_bytes = p->sums_at + lc_align(sums * itemsize);
    job->box_bytes = job->thread_bytes - p->sources_at;
    job->tasks[0] = (p->correlates ? g->kernel_batch : g->batch) * lc_count_blocks(p->size, block) * g->groups;
    return LC_OK;
}

#endif
