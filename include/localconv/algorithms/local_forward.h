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
    int widened;                     /* a stored kernel is widened in the workspace, position by position */
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
    /* Tiles of many images meet a kernel value many times, and few could widen it on its way; lanewise ones cannot. */
    p->widened = (p->interleaved || g->lanewise) && job->store != LC_plain;
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
    if (choices->piece < 0 || (choices->piece > 0 && (job->algorithm == LC_local_dot || g->lanewise)))
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
    job->thread_bytes = p->kernel_at + lc_align(p->widened ? g->window * part * itemsize : 0);
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
    b->kernel_first = p->widened ? b->first_filter : 0;
    b->kernel_step = p->widened ? b->last_filter - b->first_filter : g->filters;
    b->kernel_size = p->widened ? job->kernels->itemsize : lc_kernel_size(job);
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
    if (p->widened) return lc_next_kernel(job, c, index);
    return lc_kernel_of(job, c, index) + p->piece * job->geometry.filters * lc_kernel_size(job);
}

/* How many of the runs at `runs`, `count` are left, make the next piece of a window. */
LC_INLINE ptrdiff_t lc_runs_of_piece(const lc_run *runs, ptrdiff_t count, ptrdiff_t piece) {
    ptrdiff_t steps = 0, n = 0;
    while (n < count && steps < piece) steps += runs[n++].n;
    return n;
}

#else

/* Interleaves images first .. first+count-1 of the box, one tile of images behind the other. */
LC_NOINLINE void LC_NAME(fill_local_box)(const lc_job *job, const lc_call *c, const lc_local_block *b, ptrdiff_t first,
                                         ptrdiff_t count, LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile = job->choices.batch_tile;
    const LC_REAL *source = (const LC_REAL *)c->input + lc_offset(&g->x, b->corner) + first * g->x.image;
    const lc_copy copy = lc_copy_box(b->extent, g->channels, &g->x, &b->layout);
    const int pad = job->algorithm == LC_local_images;
    for (ptrdiff_t image = 0; image < count; image += tile)
        LC_NAME(interleave)(source + image * g->x.image, box + image * b->image, lc_min(tile, count - image),
                            g->x.image, copy, pad);
}

/* The sums of R images against one filter, the lanes along the window's contiguous runs. */
LC_INLINE void LC_NAME(dot_body)(const lc_tile *t, const int R, const int store) {
    const ptrdiff_t size = LC_NAME(stored_size)(store);
    LC_VEC acc[LC_DOT_ROWS];
    LC_MASK tail = LC_NAME(first)(0);
    const ptrdiff_t row_stride = t->row_stride;
    ptrdiff_t masked = 0;
    const LC_VEC scale = store == LC_i8 ? LC_NAME(splat)((const LC_REAL *)t->scales) : LC_NAME(zero)();
    LC_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = LC_NAME(zero)();
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const LC_REAL *x = (const LC_REAL *)t->broadcast + (t->broadcast_base + t->runs[k].broadcast);
        const char *w = (const char *)t->vector + (t->vector_base + t->runs[k].vector) * size;
        ptrdiff_t n = t->runs[k].n;
        for (; n >= LC_LANES; n -= LC_LANES, x += LC_LANES, w += LC_LANES * size) {
            const LC_VEC lane = LC_NAME(scaled)(LC_NAME(load_stored)(w, store), scale, store);
            LC_UNROLL
            for (int r = 0; r < R; ++r) {
                acc[r] = LC_NAME(fma)(LC_NAME(load)(x + r * row_stride), lane, acc[r]);
            }
        }
        if (n == 0) continue;
        if (n != masked) tail = LC_NAME(first)(masked = n); /* windows inside the input have one tail, all runs alike */
        const LC_VEC lane = LC_NAME(scaled)(LC_NAME(load_stored_first)(w, n, tail, store), scale, store);
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            acc[r] = LC_NAME(fma)(LC_NAME(load_first)(x + r * row_stride, tail), lane, acc[r]);
        }
    }
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_REAL sum = LC_NAME(sum)(acc[r]);
        if (t->bias_axis != LC_BIAS_NONE) sum += *(const LC_REAL *)t->bias;
        ((LC_REAL *)t->out)[r * t->out_stride] = t->relu && sum < 0 ? 0 : sum;
    }
}

LC_NOINLINE void LC_NAME(run_dot)(const lc_tile *t, ptrdiff_t rows, int store) {
    switch (store * 8 + rows) {
#define LC_DOT_CASE(store, rows) \
    case store * 8 + rows: LC_NAME(dot_body)(t, rows, store); break;
#define LC_DOT_CASES(store) \
    LC_DOT_CASE(store, 1) LC_DOT_CASE(store, 2) LC_DOT_CASE(store, 3) LC_DOT_CASE(store, LC_DOT_ROWS)
        LC_DOT_CASES(LC_plain)
#if LC_WIDENS
        LC_DOT_CASES(LC_f16)
        LC_DOT_CASES(LC_bf16)
        LC_DOT_CASES(LC_i8)
#endif
#undef LC_DOT_CASES
#undef LC_DOT_CASE
        default: lc_impossible("dot products of more rows than are compiled");
    }
}

/* The kernel of a position as its tiles read it. */
LC_INLINE const char *LC_NAME(kernel_at)(const lc_job *job, const lc_call *c, const lc_local_block *b, ptrdiff_t index,
                                         char *workspace) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const char *stored = lc_kernel_of(job, c, index);
    if (!p->widened) return stored;
    LC_NAME(widen)(job->store, stored + b->first_filter * lc_kernel_size(job), g->filters, g->window, b->kernel_step,
                   lc_scales_from(c, index * g->filters + b->first_filter), (LC_REAL *)(workspace + p->kernel_at),
                   b->kernel_step);
    return workspace + p->kernel_at;
}

/* One piece; rows = images, lanes = filters; or local_dot: lanes along the window. */
LC_NOINLINE void LC_NAME(position_by_images)(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                             const lc_local_position *here, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile_images = job->choices.batch_tile, width = LC_CONST_PLAN(lc_local_plan, job)->panel_filters;
    const int store = LC_CONST_PLAN(lc_local_plan, job)->widened ? LC_plain : job->store;
    t->out_stride = here->out_image;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const lc_panel panel = lc_find_panel(g, width, i);
        t->vector = here->kernel + (panel.first - b->kernel_first) * b->kernel_size;
        t->scales = lc_scales_from(c, here->index * g->filters + panel.first);
        t->lane_count = panel.count;
        t->broadcast_base = here->window + panel.group * g->group_channels * b->layout.channel;
        t->bias = here->bias ? (const LC_REAL *)here->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < here->tiles; ++tile, t->prefetch += here->share) {
            const ptrdiff_t image = tile * tile_images, rows = lc_min(tile_images, here->images - image);
            t->broadcast = (const LC_REAL *)here->input + image * b->image;
            t->out = (LC_REAL *)here->out + image * here->out_image + panel.first * here->out_filter;
            if (job->algorithm == LC_local_dot)
                LC_NAME(run_dot)(t, rows, store);
            else if (store == LC_plain)
                LC_NAME(run_tile)(t, (int)rows, LC_NAME(vectors_for)(panel.count));
            else
                LC_NAME(run_stored_tile)(t, (int)rows, LC_NAME(vectors_for)(panel.count), store);
        }
    }
}

/* One piece; rows = filters, lanes = images. */
LC_NOINLINE void LC_NAME(position_by_filters)(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                              const lc_local_position *here, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile_images = job->choices.batch_tile, width = LC_CONST_PLAN(lc_local_plan, job)->panel_filters;
    t->out_stride = here->out_filter;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const lc_panel panel = lc_find_panel(g, width, i);
        t->broadcast = (const LC_REAL *)here->kernel + (panel.first - b->kernel_first);
        t->vector_base = here->window + panel.group * g->group_channels * b->layout.channel;
        t->bias = here->bias ? (const LC_REAL *)here->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < here->tiles; ++tile, t->prefetch += here->share) {
            const ptrdiff_t image = tile * tile_images;
            t->vector = (const LC_REAL *)here->input + image * b->image;
            t->lane_count = lc_min(tile_images, here->images - image);
            t->out = (LC_REAL *)here->out + image * here->out_image + panel.first * here->out_filter;
            LC_NAME(run_tile)(t, (int)panel.count, LC_NAME(vectors_for)(t->lane_count));
        }
    }
}

/* One piece of a position's window, all tiles. */
LC_INLINE void LC_NAME(sum_piece)(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                  const lc_local_position *here, lc_tile *t) {
    const int by_filters = LC_CONST_PLAN(lc_local_plan, job)->images_in_lanes;
    (by_filters ? LC_NAME(position_by_filters) : LC_NAME(position_by_images))(job, c, b, here, t);
}

/* One piece after the other. What is added to the sums, and cut off, is after the last one. */
LC_NOINLINE void LC_NAME(sum_pieces)(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                     const lc_local_position *here, const lc_run *runs, lc_tile *t) {
    const int bias_axis = t->bias_axis, relu = t->relu;
    ptrdiff_t count = here->run_count;
    t->runs = runs;
    t->continues = 0;
    do {
        t->run_count = lc_runs_of_piece(t->runs, count, LC_CONST_PLAN(lc_local_plan, job)->piece);
        count -= t->run_count;
        t->bias_axis = count > 0 ? LC_BIAS_NONE : bias_axis;
        t->relu = count > 0 ? 0 : relu;
        LC_NAME(sum_piece)(job, c, b, here, t);
        t->runs += t->run_count;
        t->continues = 1;
    } while (count > 0);
}

/* Copies a staged line, whose first position is `index`, to the result. */
LC_NOINLINE void LC_NAME(flush_line)(const lc_job *job, const lc_call *c, const lc_local_block *b, const LC_REAL *stage,
                                     ptrdiff_t index, ptrdiff_t width, ptrdiff_t first, ptrdiff_t images) {
    const lc_geometry *g = &job->geometry;
    const lc_layout layout = lc_stage_layout(job, width);
    const ptrdiff_t extent[3] = {1, 1, width}, filters = b->last_filter - b->first_filter;
    const int images_in_lanes = LC_CONST_PLAN(lc_local_plan, job)->images_in_lanes;
    const ptrdiff_t together = images_in_lanes ? job->choices.batch_tile : images;
    LC_REAL *out = (LC_REAL *)c->result + first * g->y.image + index * g->y.pixel[2] + b->first_filter * g->y.channel;
    stage += b->first_filter * layout.channel;
    for (ptrdiff_t i = 0; i < images; i += together) {
        lc_copy copy = lc_copy_box(extent, filters, &layout, &g->y);
        lc_add_dim(&copy, lc_min(together, images - i), layout.image, g->y.image);
        LC_NAME(move)(stage + i * width * g->filters, out + i * g->y.image, copy);
    }
}

/* This position's bias, contiguous over the filters. */
LC_INLINE const LC_REAL *LC_NAME(bias_of)(const lc_geometry *g, const lc_call *c, ptrdiff_t index, LC_REAL *gathered) {
    const LC_REAL *bias = (const LC_REAL *)c->bias;
    if (!bias || c->bias_filter == 1) return bias ? bias + index * c->bias_position : NULL;
    for (ptrdiff_t f = 0; f < g->filters; ++f) gathered[f] = bias[index * c->bias_position + f * c->bias_filter];
    return gathered;
}

/* The output positions of one line of a block, for the images of one chunk. */
LC_NOINLINE void LC_NAME(local_line)(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                     const ptrdiff_t line[2], ptrdiff_t first, lc_local_position *here,
                                     lc_range clip[3], char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const ptrdiff_t width = b->hi[2] - b->lo[2], start = (line[0] * g->output[1] + line[1]) * g->output[2] + b->lo[2];
    const lc_layout staged = lc_stage_layout(job, width);
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_REAL *out = p->staged ? stage : (LC_REAL *)c->result + first * g->y.image + start * g->y.pixel[2];
    const ptrdiff_t out_position = p->staged ? staged.pixel[2] : g->y.pixel[2];
    here->out_filter = p->staged ? staged.channel : 1;
    here->out_image = !p->staged ? g->y.image : width * g->filters;
    const ptrdiff_t origin[3] = {line[0], line[1], b->lo[2]}, step = g->strides[2] * b->layout.pixel[2];
    const ptrdiff_t window = lc_window_at(g, &b->layout, origin, b->corner);
    lc_range now[3] = {lc_taps_inside(g, 0, line[0]), lc_taps_inside(g, 1, line[1]), {0, 0}};
    for (ptrdiff_t k = 0; k < width; ++k) {
        now[2] = lc_taps_inside(g, 2, b->lo[2] + k);
        if ((k == 0 || !lc_same_range(now[2], clip[2])) && memcmp(now, clip, sizeof now) != 0) {
            /* windows inside the input share their runs; at a border each has its own */
            memcpy(clip, now, sizeof now);
            here->run_count = t->run_count =
                lc_build_runs(g, &b->layout, clip, b->kernel_step, p->images_in_lanes, p->piece, (lc_run *)workspace);
        }
        here->window = window + k * step;
        here->index = start + k;
        here->kernel = LC_NAME(kernel_at)(job, c, b, here->index, workspace);
        here->bias = LC_NAME(bias_of)(g, c, here->index, (LC_REAL *)(workspace + p->bias_at));
        here->out = out + k * out_position;
        if (p->piece == g->window) {
            t->prefetch = lc_next_kernel(job, c, here->index);
            LC_NAME(sum_piece)(job, c, b, here, t);
        } else {
            t->prefetch = lc_later_kernel(job, c, here->index);
            LC_NAME(sum_pieces)(job, c, b, here, (const lc_run *)workspace, t);
        }
    }
    if (p->staged) LC_NAME(flush_line)(job, c, b, stage, start, width, first, here->images);
}

LC_TASK(local_task) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const ptrdiff_t chunk = job->choices.batch_chunk, tile = job->choices.batch_tile;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_local_block b;
    lc_local_position here;
    lc_tile t;
    lc_range clip[3] = {{-1, -1}, {-1, -1}, {-1, -1}}; /* no window's */
    lc_find_local_block(job, task, &b);
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.runs = (const lc_run *)workspace;
    t.relu = c->relu;
    t.prefetch_far = lc_next_is_far(job);
    t.lanewise = g->lanewise;
    t.bias_axis = !c->bias ? LC_BIAS_NONE : p->images_in_lanes ? LC_BIAS_ROWS : LC_BIAS_LANES;
    t.row_stride = p->interleaved ? 1 : g->x.image;
    t.broadcast_step = p->images_in_lanes ? b.kernel_step : lc_run_step(g, &b.layout);
    t.vector_step = p->images_in_lanes ? lc_run_step(g, &b.layout) : b.kernel_step;
    for (ptrdiff_t first = 0; first < g->batch; first += chunk) {
        here.images = lc_min(chunk, g->batch - first);
        here.tiles = lc_ceil_div(here.images, tile);
        here.share = p->piece * g->filters * lc_kernel_size(job) / (here.tiles * (b.last_panel - b.first_panel));
        t.prefetch_step = here.share / p->piece;
        here.input = p->interleaved ? box : (const LC_REAL *)c->input + first * g->x.image;
        if (p->interleaved) LC_NAME(fill_local_box)(job, c, &b, first, here.images, box);
        for (ptrdiff_t i = b.lo[0]; i < b.hi[0]; ++i)
            for (ptrdiff_t j = b.lo[1]; j < b.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                LC_NAME(local_line)(job, c, &b, line, first, &here, clip, workspace, &t);
            }
    }
}

#endif
