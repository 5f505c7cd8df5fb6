/* Gradient of a locally connected convolution for the kernel.
 *
 * One position's gradient is the matrix product (window elements x images) (images x filters). Rows of a register tile
 * are window elements, lanes filters, and the sum runs over the batch: every value is written once, from the registers.
 * A line that is not in a cache has to come there before it is written, which a store alone asks for too late: so tiles
 * ask for the lines of rows that follow.
 */
#ifndef LOCALCONV_LOCAL_GRAD_KERNEL_H
#define LOCALCONV_LOCAL_GRAD_KERNEL_H

typedef struct lc_local_kernel_plan {
    int buffered, packed; /* packed: output gradients are brought together, too */
    ptrdiff_t panel_filters, panels;
    ptrdiff_t box_at, stage_at; /* in a thread's workspace; in front lie the strips */
} lc_local_kernel_plan;
LC_PLAN_FITS(lc_local_kernel_plan);

static inline int lc_finish_local_grad_kernel(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const lc_choices *choices = &job->choices;
    const ptrdiff_t itemsize = job->kernels->itemsize;
    lc_local_kernel_plan *p = LC_PLAN(lc_local_kernel_plan, job);
    if (!lc_vectors_fit(job) || !lc_block_fits(job, g->output)) return LC_REFUSED;
    p->buffered = job->algorithm == LC_local_kernel_buffered;
    p->packed = p->buffered || g->channels_first;
    p->panel_filters = lc_tile_lanes(job);
    p->panels = lc_count_panels(g, p->panel_filters);
    if (choices->filter_parts < 1 || choices->filter_parts > p->panels) return LC_REFUSED;
    if (choices->batch_chunk < 1 || choices->segment < 1 || choices->rows_ahead < 0) return LC_REFUSED;

    ptrdiff_t elements = g->channels;
    for (int axis = 0; axis < 3; ++axis) elements *= lc_box_extent(g, axis, choices->block[axis]);
    const ptrdiff_t box = p->buffered ? lc_padded_stride(elements, itemsize) : 0;
    const ptrdiff_t stage = p->packed ? lc_padded_stride(choices->segment * g->filters, itemsize) : 0;
    p->box_at = job->list_bytes = lc_align(lc_strip_limit(g) * (ptrdiff_t)sizeof(lc_strip));
    job->box_bytes = choices->batch_chunk * box * itemsize;
    p->stage_at = p->box_at + lc_align(job->box_bytes);
    job->thread_bytes = p->stage_at + lc_align(choices->batch_chunk * stage * itemsize);
    job->tasks[0] = lc_count_blocks(g->output, choices->block) * choices->filter_parts;
    return LC_OK;
}

/* Rows of the result for which one of `images` steps of a tile asks: so many that they are all of a tile's, but no more
 * than there are in the lines of one step. */
LC_INLINE ptrdiff_t lc_rows_asked_for(const lc_job *job, ptrdiff_t images) {
    const ptrdiff_t all = lc_ceil_div(lc_rows(job, job->choices.vectors), images);
    return lc_max(1, lc_min(all, lc_tile_lanes(job) / job->geometry.filters));
}

#endif
