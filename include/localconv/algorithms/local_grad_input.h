/* Gradient of a locally connected convolution for the input.
 *
 * A task owns a block of *input* pixels and goes through all positions whose windows touch it, in the positions' order,
 * with the taps clipped to the block as padding clips them elsewhere. So no two tasks write one pixel, every kernel
 * value is read once, and an input value's sum has the same order whatever the blocks. Rows are window elements:
 *
 *   local_input_direct   lanes along the filters, one image at a time; LANES window elements are reduced together. Of
 * few filters, rows share a vector. Lanewise there is nothing to reduce.
 *
 *   local_input_buffered    lanes = images, summed over the filters, in a box [element][image], which goes out at the
 * end
 */
#ifndef LOCALCONV_LOCAL_GRAD_INPUT_H
#define LOCALCONV_LOCAL_GRAD_INPUT_H

typedef struct lc_local_input_plan {
    int buffered;
    ptrdiff_t box_at, stage_at, kernel_at; /* in a thread's workspace; in front lie the strips */
} lc_local_input_plan;
LC_PLAN_FITS(lc_local_input_plan);

static inline int lc_finish_local_grad_input(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const lc_choices *choices = &job->choices;
    const ptrdiff_t itemsize = job->kernels->itemsize;
    lc_local_input_plan *p = LC_PLAN(lc_local_input_plan, job);
    p->buffered = job->algorithm == LC_local_input_buffered;
    if (!lc_vectors_fit(job) || !lc_block_fits(job, g->input)) return LC_REFUSED;
    if (choices->batch_tile != (p->buffered ? lc_tile_lanes(job) : 1)) return LC_REFUSED;
    if (choices->batch_chunk < 1 || choices->segment < 1) return LC_REFUSED;

    const ptrdiff_t images = lc_round_up(choices->batch_chunk, choices->batch_tile);
    ptrdiff_t box = p->buffered ? images * g->channels : 0;
    for (int axis = 0; axis < 3; ++axis) box *= choices->block[axis];
    const ptrdiff_t stage = p->buffered || g->channels_first ? images * choices->segment * g->filters : 0;
    p->box_at = job->list_bytes = lc_align(lc_strip_limit(g) * (ptrdiff_t)sizeof(lc_strip));
    job->box_bytes = box * itemsize;
    p->stage_at = p->box_at + lc_align(job->box_bytes);
    p->kernel_at = p->stage_at + lc_align(stage * itemsize);
    /* Of a stored kernel, the rows of one register tile are widened at a time; of a bank's, a position's are summed. */
    const ptrdiff_t widened = p->buffered && job->storage != LC_native ? job->kernels->rows[choices->vectors] : 0;
    const ptrdiff_t made = lc_is_summed(job) ? g->window * g->filters : widened * g->group_filters;
    job->thread_bytes = p->kernel_at + lc_align(made * itemsize);
    job->tasks[0] = lc_count_blocks(g->input, choices->block);
    return LC_OK;
}

/* Rows of a kernel as it is stored: where the first begins, bytes from one to the next, how many, and the columns'
 * scales. */
typedef struct lc_kernel_rows {
    const char *at;
    ptrdiff_t stride, count;
    const float *scales;
} lc_kernel_rows;

/* Whether kernel rows follow each other, several of them in a vector: of 1, 2, 4, 8 filters and one group. */
LC_INLINE int lc_rows_share(const lc_geometry *g, const lc_strip_layout *strip_layout, ptrdiff_t lanes) {
    const ptrdiff_t filters = g->filters;
    return g->groups == 1 && strip_layout->row_step == 1 && filters < lanes && (filters & (filters - 1)) == 0;
}

/* How far ahead, in bytes, a kernel whose rows share vectors is asked for. */
enum { LC_SHARED_AHEAD = 4096 };

#endif
