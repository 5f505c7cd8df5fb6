/* Filters that come with the data, with results in the lanes: for few channels, which would leave lanes empty, and for
 * channels_first, whose lines are in the lanes already. Stride 1 along the width, windows that are not moved.
 *
 *   forward, gradient for the input   rows are channels of a group; a tap's vector of filters serves all of them
 *   gradient for the filters          rows are the taps of a line of the window; a vector of gradients serves them all
 *
 * A task has one group. It brings planes of its sources together, with zeros around them, and for a vector of results
 * the filters as planes, one for each tap, unless they lie so: where a tap meets padding, both are zeros there. The
 * gradient for the input reads at each tap the filters of other positions: those of a whole line are brought together.
 * The order of summation is filter_channels.h's.
 */
#ifndef LOCALCONV_FILTER_POSITIONS_H
#define LOCALCONV_FILTER_POSITIONS_H

#include "filter_channels.h"

typedef struct lc_filter_positions {
    ptrdiff_t sources_at, filters_at, widened_at, stage_at; /* bytes into a thread's workspace; before them: runs */
    ptrdiff_t size[3]; /* of the result; of the gradient for the filters: positions */
    ptrdiff_t width;   /* of a line of sources and of filters, zeros included */
    ptrdiff_t lines;   /* of sources, at most */
    int gradient, correlates;
} lc_filter_positions;
LC_PLAN_FITS(lc_filter_positions);

static inline int lc_finish_filter_positions(lc_job *job) {
    lc_filter_positions *p = LC_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, *block = job->choices.block, lanes = lc_tile_lanes(job);
    p->gradient = job->algorithm == LC_filter_input_positions;
    p->correlates = job->algorithm == LC_filter_kernel_positions;
    memcpy(p->size, p->gradient ? g->input : g->output, sizeof p->size);
    if (!lc_block_fits(job, p->size) || !lc_vectors_fit(job) || g->inside || g->strides[2] != 1) return LC_REFUSED;
    p->width = lc_round_up(block[2], lanes) + lc_effective_size(g, 2) - 1;
    p->lines = lc_sources_limit(g, 0, p->gradient, block[0]) * lc_sources_limit(g, 1, p->gradient, block[1]);
    const ptrdiff_t filters = g->taps * (p->gradient ? p->width : lanes);
    const ptrdiff_t widened = job->storage == LC_native ? 0 : p->gradient ? g->kernel[2] * p->width : g->taps * lanes;
    p->sources_at = lc_align(g->kernel[0] * g->kernel[1] * (ptrdiff_t)sizeof(lc_filter_run));
    p->filters_at = p->sources_at + lc_align(g->group_channels * p->lines * p->width * itemsize);
    p->widened_at = p->filters_at + lc_align(filters * itemsize);
    p->stage_at = p->widened_at + lc_align(widened * itemsize);
    job->list_bytes = p->sources_at;
    job->thread_bytes = p->stage_at + lc_align(g->group_channels * lanes * itemsize);
    job->box_bytes = job->thread_bytes - p->sources_at;
    job->tasks[0] = (p->correlates ? g->kernel_batch : g->batch) * lc_count_blocks(p->size, block) * g->groups;
    return LC_OK;
}

#endif
