/* Locally connected forward: every output position has its own kernel.
 *
 * A task is a block of output positions and a part of the filters. Its input box, the smallest box that holds every
 * window of the block, is interleaved into [element of the box][image], so that one position is a small matrix product
 * with both operands contiguous. Then, position by position in the kernel's own order, register tiles run over the
 * window, perhaps a piece of it after the other, all tiles summing one before the next: then a piece of the kernel and
 * of the pixels comes from the first-level cache but for its first tile. The algorithms differ in which operand is
 * broadcast, and in where the input is read:
 *
 *   local_dot      one filter, lanes along the window: no broadcast at all
 *   local_stream   rows = images, read in place;  lanes = filters
 *   local_rows     rows = images, interleaved;    lanes = filters
 *   local_images   rows = filters;                lanes = images, interleaved
 */
#ifndef LOCALCONV_LOCAL_FORWARD_H
#define LOCALCONV_LOCAL_FORWARD_H

typedef struct lc_local_plan {
    int images_in_lanes, interleaved;
    int staged;                      /* results wait in a layout of the tiles' own for the caller's array */
    int made;                        /* a kernel is widened, or summed, in the workspace, position by position */
    ptrdiff_t panel_filters, panels; /* filters of one register tile */
    ptrdiff_t piece;                 /* steps of a window that all tiles sum before the next ones */
    ptrdiff_t box_at, stage_at, bias_at, kernel_at; /* in a thread's workspace, in bytes; in front lie the runs */
} lc_local_plan;
LC_PLAN_FITS(lc_local_plan);

/* One filter, and windows whose elements a vector can load. */
LC_INLINE int lc_dot_fits(const lc_geometry *g) { return g->filters == 1 && lc_run_step(g, &g->x) == 1; }

static inline int lc_finish_local_forward(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const lc_choices *choices = &job->choices;
    const ptrdiff_t itemsize = job->kernels->itemsize, width = lc_tile_lanes(job);
    lc_local_plan *p = LC_PLAN(lc_local_plan, job);
    p->images_in_lanes = job->algorithm == LC_local_images;
    p->interleaved = p->images_in_lanes || job->algorithm == LC_local_rows;
    /* Tiles of many images meet a kernel value many times, and few could widen it on its way; those with
     * channel lanes cannot. */
    p->made = lc_is_summed(job) || ((p->interleaved || g->channel_lanes) && job->storage != LC_native);
    p->staged = p->images_in_lanes || (g->channels_first && g->filters > 1);
    if (!lc_vectors_fit(job) || !lc_block_fits(job, g->output) || choices->batch_tile < 1) return LC_REFUSED;
    const ptrdiff_t rows = lc_rows(job, choices->vectors);
    if (job->algorithm == LC_local_dot) {
        if (!lc_dot_fits(g) || choices->batch_tile > LC_DOT_ROWS) return LC_REFUSED;
        p->panel_filters = 1;
    } else if (p->images_in_lanes) {
        if (choices->batch_tile != width) return LC_REFUSED;
        p->panel_filters = lc_even(g->group_filters, rows);
    } else {
        if (choices->batch_tile > rows) return LC_REFUSED;
        p->panel_filters = width;
    }
    p->panels = lc_count_panels(g, p->panel_filters);
    if (choices->filter_parts < 1 || choices->filter_parts > p->panels) return LC_REFUSED;
    if (choices->batch_chunk < 1) return LC_REFUSED;
    if (choices->piece < 0 || (choices->piece > 0 && (job->algorithm == LC_local_dot || g->channel_lanes)))
        return LC_REFUSED;
    p->piece = choices->piece > 0 ? lc_min(choices->piece, g->window) : g->window;

    const ptrdiff_t images = lc_round_up(choices->batch_chunk, choices->batch_tile);
    const ptrdiff_t stage = p->staged ? images * choices->block[2] * g->filters : 0;
    ptrdiff_t box = p->interleaved ? images * g->channels : 0;
    for (int axis = 0; axis < 3; ++axis) box *= lc_box_extent(g, axis, choices->block[axis]);
    p->box_at = job->list_bytes = lc_align(lc_run_limit(g, p->piece) * (ptrdiff_t)sizeof(lc_run));
    job->box_bytes = box * itemsize;
    p->stage_at = p->box_at + lc_align(job->box_bytes);
    p->bias_at = p->stage_at + lc_align(stage * itemsize);
    p->kernel_at = p->bias_at + lc_align(g->filters * itemsize);
    const ptrdiff_t part = lc_min(g->filters, lc_ceil_div(p->panels, choices->filter_parts) * p->panel_filters);
    job->thread_bytes = p->kernel_at + lc_align(p->made ? g->window * part * itemsize : 0);
    job->tasks[0] = lc_count_blocks(g->output, choices->block) * choices->filter_parts;
    return LC_OK;
}

/* A task: output positions lo .. hi-1, the input box that their windows meet, and panels of filters. */
typedef struct lc_local_block {
    ptrdiff_t lo[3], hi[3], corner[3], extent[3];
    ptrdiff_t image;  /* elements of one image in the box, or in the caller's array */
    lc_layout layout; /* of the operand that tiles read: the box, or the caller's array */
    ptrdiff_t first_panel, last_panel, first_filter, last_filter;
    ptrdiff_t kernel_first, kernel_step, kernel_size; /* of the kernel that tiles read: the filter at its start,
                                                         elements from one row to the next, bytes of an element */
} lc_local_block;

static inline void lc_find_local_block(const lc_job *job, ptrdiff_t task, lc_local_block *b) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const ptrdiff_t parts = job->choices.filter_parts, part = task % parts;
    lc_find_block(g->output, job->choices.block, task / parts, b->lo, b->hi);
    for (int axis = 0; axis < 3; ++axis)
        lc_input_box(g, axis, b->lo[axis], b->hi[axis], b->corner + axis, b->extent + axis);
    b->first_panel = lc_share(p->panels, parts, part);
    b->last_panel = lc_share(p->panels, parts, part + 1);
    const lc_panel last = lc_find_panel(g, p->panel_filters, b->last_panel - 1);
    b->first_filter = lc_find_panel(g, p->panel_filters, b->first_panel).first;
    b->last_filter = last.first + last.count;
    b->kernel_first = p->made ? b->first_filter : 0;
    b->kernel_step = p->made ? b->last_filter - b->first_filter : g->filters;
    b->kernel_size = p->made ? job->kernels->itemsize : lc_kernel_size(job);
    if (p->interleaved) {
        b->layout = lc_layout_of(b->extent, g->channels, g->channels_first);
        b->image = b->layout.image;
        b->layout = lc_interleaved(b->layout, job->choices.batch_tile);
    } else {
        b->layout = g->x;
        b->image = g->x.image;
        b->corner[0] = b->corner[1] = b->corner[2] = 0;
    }
}

/* The layout of a staged line of `width` positions: with images in the lanes [tile][position or filter][image], else
 * [image][position][filter]. image: from one image of a tile to the next, or from one image to the next. */
LC_INLINE lc_layout lc_stage_layout(const lc_job *job, ptrdiff_t width) {
    const ptrdiff_t size[3] = {1, 1, width};
    const int images_in_lanes = LC_CONST_PLAN(lc_local_plan, job)->images_in_lanes;
    const lc_layout layout = lc_layout_of(size, job->geometry.filters, images_in_lanes && job->geometry.channels_first);
    return images_in_lanes ? lc_interleaved(layout, job->choices.batch_tile) : layout;
}

/* One output position of one chunk of images. */
typedef struct lc_local_position {
    ptrdiff_t index, window; /* its number; its window's origin in the operand that tiles read */
    ptrdiff_t images;        /* of the chunk */
    const void *input;       /* that operand, at the chunk's first image */
    const char *kernel;      /* the kernel that tiles read */
    const void *bias;        /* contiguous over the filters; NULL without */
    ptrdiff_t run_count;     /* of its window */
    void *out;               /* filter 0 of the chunk's first image, in the result or in the stage */
    ptrdiff_t out_image, out_filter;
    ptrdiff_t tiles, share; /* of images; bytes of a later kernel that each tile of each panel fetches */
} lc_local_position;

/* The next position's kernel is fetched while this one is computed, each tile its share. Past the end the address is
 * not dereferenced, only prefetched, which is harmless. */
LC_INLINE const char *lc_next_kernel(const lc_job *job, const lc_call *c, ptrdiff_t index) {
    return lc_kernel_of(job, c, lc_min(index + 1, job->geometry.positions - 1));
}

/* Where windows go by pieces, the kernel of the next piece, unless it lies in the workspace. */
LC_INLINE const char *lc_later_kernel(const lc_job *job, const lc_call *c, ptrdiff_t index) {
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    if (p->made) return lc_next_kernel(job, c, index);
    return lc_kernel_of(job, c, index) + p->piece * job->geometry.filters * lc_kernel_size(job);
}

/* How many of the runs at `runs`, `count` are left, make the next piece of a window. */
LC_INLINE ptrdiff_t lc_runs_of_piece(const lc_run *runs, ptrdiff_t count, ptrdiff_t piece) {
    ptrdiff_t steps = 0, n = 0;
    while (n < count && steps < piece) steps += runs[n++].n;
    return n;
}

#endif
