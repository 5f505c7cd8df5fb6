/* Locally connected forward: every output position has its own kernel. (Body: included once per instance.)
 *
 * A task is a block of output positions (and a part of the filters). Its input box, the smallest box that holds every window
 * of the block, is interleaved into [element of the box][image], so that one position is a small matrix product with both
 * operands contiguous. Then, position by position in the kernel's own order, register tiles run over the window. The strategies
 * (plan.h) differ in which operand is broadcast; STREAM and DOT read the input where it is.
 */

/* Output positions lo .. hi-1 of a task, the input box that their windows meet, and the task's panels of filters. */
typedef struct {
    ptrdiff_t lo[3], hi[3], in_lo[3], extent[3];
    ptrdiff_t elements; /* of one image in the box */
    lc_layout at;       /* of the operand that tiles read: the box, or the caller's array */
    ptrdiff_t first_panel, last_panel, first_filter, last_filter;
} LC_NAME(block);

/* A panel's group, its filters first .. first+count-1. */
typedef struct {
    ptrdiff_t group, first, count;
} LC_NAME(panel);

/* One output position of one chunk of images. */
typedef struct {
    ptrdiff_t position, window; /* its index; its window's origin in the operand that tiles read */
    ptrdiff_t images;           /* of the chunk */
    const LC_REAL *input;       /* that operand, at the chunk's first image */
    const LC_REAL *bias;        /* contiguous over the filters; NULL without */
    LC_REAL *out;               /* filter 0 of the chunk's first image, in the output or in the stage */
    ptrdiff_t out_image, out_filter;
    ptrdiff_t tiles, share; /* of images; kernel bytes of the next position that each tile of each panel fetches */
} LC_NAME(place);

LC_INLINE LC_NAME(panel) LC_NAME(find_panel)(const lc_geometry *g, const lc_local_plan *p, ptrdiff_t index) {
    LC_NAME(panel) panel = {0, 0, lc_min(p->panel_filters, g->group_filters)};
    if (index == 0) return panel; /* few filters: the only panel, without a division for every position */
    const ptrdiff_t per_group = lc_ceil_div(g->group_filters, p->panel_filters), inside = index % per_group * p->panel_filters;
    panel.group = index / per_group;
    panel.first = panel.group * g->group_filters + inside;
    panel.count = lc_min(p->panel_filters, g->group_filters - inside);
    return panel;
}

/* The box's layout with `images` beside each other: channels_last [d][h][w][c][image], channels_first [c][d][h][w][image]. */
LC_INLINE lc_layout LC_NAME(box_layout)(const lc_geometry *g, const ptrdiff_t extent[3], ptrdiff_t images) {
    lc_layout at;
    at.stride[2] = (g->channels_first ? 1 : g->channels) * images;
    at.stride[1] = at.stride[2] * extent[2];
    at.stride[0] = at.stride[1] * extent[1];
    at.channel = g->channels_first ? at.stride[0] * extent[0] : images;
    return at;
}

LC_NOINLINE void LC_NAME(find_block)(const lc_geometry *g, const lc_local_plan *p, ptrdiff_t task, LC_NAME(block) *b) {
    const ptrdiff_t part = task % p->filter_parts;
    const ptrdiff_t panels = lc_ceil_div(g->group_filters, p->panel_filters) * g->groups;
    ptrdiff_t index = task / p->filter_parts;
    b->elements = g->channels;
    for (int axis = 2; axis >= 0; --axis) {
        b->lo[axis] = index % p->blocks[axis] * p->block[axis];
        b->hi[axis] = lc_min(b->lo[axis] + p->block[axis], g->output[axis]);
        lc_input_box(g, axis, b->lo[axis], b->hi[axis], b->in_lo + axis, b->extent + axis);
        b->elements *= b->extent[axis];
        index /= p->blocks[axis];
    }
    b->first_panel = lc_share(panels, p->filter_parts, part);
    b->last_panel = lc_share(panels, p->filter_parts, part + 1);
    const LC_NAME(panel) last = LC_NAME(find_panel)(g, p, b->last_panel - 1);
    b->first_filter = LC_NAME(find_panel)(g, p, b->first_panel).first;
    b->last_filter = last.first + last.count;
    if (lc_local_interleaved(p)) {
        b->at = LC_NAME(box_layout)(g, b->extent, p->batch_tile);
    } else {
        b->at = lc_input_layout(g);
        b->in_lo[0] = b->in_lo[1] = b->in_lo[2] = 0;
    }
}

/* Interleaves images first .. first+count-1 of the box into tiles of batch_tile images, one tile behind the other. */
LC_NOINLINE void LC_NAME(interleave)(const lc_call *c, const lc_local_plan *p, const LC_NAME(block) *b, ptrdiff_t first,
                                     ptrdiff_t count, LC_REAL *target) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t outer = g->channels_first ? g->channels : 1;
    const ptrdiff_t length = b->extent[2] * (g->channels_first ? 1 : g->channels);
    for (ptrdiff_t image = 0; image < count; image += p->batch_tile)
        for (ptrdiff_t channel = 0; channel < outer; ++channel)
            for (ptrdiff_t i = b->in_lo[0]; i < b->in_lo[0] + b->extent[0]; ++i)
                for (ptrdiff_t j = b->in_lo[1]; j < b->in_lo[1] + b->extent[1]; ++j) {
                    const ptrdiff_t source = (first + image) * g->input_batch + channel * g->input_channel +
                                             i * g->input_stride[0] + j * g->input_stride[1] + b->in_lo[2] * g->input_stride[2];
                    LC_NAME(transpose_copy)((const LC_REAL *)c->input + source, g->input_batch, lc_min(p->batch_tile, count - image),
                                            length, target, p->batch_tile, p->strategy == LC_LOCAL_LANES);
                    target += length * p->batch_tile;
                }
}

/* The sums of R images against one filter, the lanes along the window's contiguous runs. */
LC_INLINE void LC_NAME(dot_body)(const lc_tile *t, const int R) {
    LC_VEC acc[LC_DOT_ROWS];
    LC_MASK tail = LC_NAME(first)(0);
    const ptrdiff_t row_stride = t->row_stride;
    ptrdiff_t masked = 0;
    LC_UNROLL for (int r = 0; r < R; ++r) acc[r] = LC_NAME(zero)();
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const LC_REAL *x = (const LC_REAL *)t->rows + (t->rows_base + t->runs[k].rows);
        const LC_REAL *w = (const LC_REAL *)t->lanes + (t->lanes_base + t->runs[k].lanes);
        ptrdiff_t n = t->runs[k].n;
        for (; n >= LC_LANES; n -= LC_LANES, x += LC_LANES, w += LC_LANES) {
            const LC_VEC lane = LC_NAME(load)(w);
            LC_UNROLL for (int r = 0; r < R; ++r) acc[r] = LC_NAME(fma)(LC_NAME(load)(x + r * row_stride), lane, acc[r]);
        }
        if (n == 0) continue;
        if (n != masked) tail = LC_NAME(first)(masked = n); /* windows inside the input have one tail, all runs alike */
        const LC_VEC lane = LC_NAME(load_first)(w, tail);
        LC_UNROLL for (int r = 0; r < R; ++r) {
            acc[r] = LC_NAME(fma)(LC_NAME(load_first)(x + r * row_stride, tail), lane, acc[r]);
        }
    }
    LC_UNROLL for (int r = 0; r < R; ++r) {
        LC_REAL sum = LC_NAME(sum)(acc[r]);
        if (t->bias_axis != LC_BIAS_NONE) sum += *(const LC_REAL *)t->bias;
        ((LC_REAL *)t->out)[r * t->out_stride] = t->relu && sum < 0 ? 0 : sum;
    }
}

LC_NOINLINE void LC_NAME(run_dot)(const lc_tile *t, ptrdiff_t rows) {
    switch (rows) {
        case 1: LC_NAME(dot_body)(t, 1); break;
        case 2: LC_NAME(dot_body)(t, 2); break;
        case 3: LC_NAME(dot_body)(t, 3); break;
        case LC_DOT_ROWS: LC_NAME(dot_body)(t, LC_DOT_ROWS); break;
    }
}

/* The next position's kernel is fetched while this one is computed, each tile its share. Past the end the address is not
 * dereferenced, only prefetched, which is harmless. */
LC_INLINE const char *LC_NAME(next_kernel)(const lc_call *c, const LC_NAME(place) *at) {
    const lc_geometry *g = c->geometry;
    return (const char *)((const LC_REAL *)c->kernel + lc_min(at->position + 1, g->positions - 1) * g->depth * g->filters);
}

/* Rows = images, lanes = filters; or DOT: lanes along the window. */
LC_NOINLINE void LC_NAME(position_by_images)(const lc_call *c, const lc_local_plan *p, const LC_NAME(block) *b,
                                             const LC_NAME(place) *at, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    t->prefetch = LC_NAME(next_kernel)(c, at);
    t->lanes_base = at->position * g->depth * g->filters;
    t->out_stride = at->out_image;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const LC_NAME(panel) panel = LC_NAME(find_panel)(g, p, i);
        t->lanes = (const LC_REAL *)c->kernel + panel.first;
        t->lane_count = panel.count;
        t->rows_base = at->window + panel.group * g->group_channels * b->at.channel;
        t->bias = at->bias ? at->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < at->tiles; ++tile, t->prefetch += at->share) {
            const ptrdiff_t image = tile * p->batch_tile, rows = lc_min(p->batch_tile, at->images - image);
            t->rows = at->input + image * (p->strategy == LC_LOCAL_ROWS ? b->elements : g->input_batch);
            t->out = at->out + image * at->out_image + panel.first * at->out_filter;
            if (p->strategy == LC_LOCAL_DOT)
                LC_NAME(run_dot)(t, rows);
            else
                LC_NAME(run_tile)(t, (int)rows, LC_NAME(vectors_for)(panel.count));
        }
    }
}

/* Rows = filters, lanes = images. */
LC_NOINLINE void LC_NAME(position_by_filters)(const lc_call *c, const lc_local_plan *p, const LC_NAME(block) *b,
                                              const LC_NAME(place) *at, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    t->prefetch = LC_NAME(next_kernel)(c, at);
    t->rows_base = at->position * g->depth * g->filters;
    t->out_stride = at->out_filter;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const LC_NAME(panel) panel = LC_NAME(find_panel)(g, p, i);
        t->rows = (const LC_REAL *)c->kernel + panel.first;
        t->lanes_base = at->window + panel.group * g->group_channels * b->at.channel;
        t->bias = at->bias ? at->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < at->tiles; ++tile, t->prefetch += at->share) {
            const ptrdiff_t image = tile * p->batch_tile;
            t->lanes = at->input + image * b->elements;
            t->lane_count = lc_min(p->batch_tile, at->images - image);
            t->out = at->out + image * at->out_image + panel.first * at->out_filter;
            LC_NAME(run_tile)(t, (int)panel.count, LC_NAME(vectors_for)(t->lane_count));
        }
    }
}

/* Copies a staged line of `width` positions, the first of them `position`, to the output.
 * LANES stages [tile][position or filter][image], the others [image][position][filter]. */
LC_NOINLINE void LC_NAME(flush_line)(const lc_call *c, const lc_local_plan *p, const LC_NAME(block) *b, const LC_REAL *stage,
                                     ptrdiff_t position, ptrdiff_t width, ptrdiff_t first, ptrdiff_t images) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t image_size = g->positions * g->filters, filters = b->last_filter - b->first_filter;
    LC_REAL *out = (LC_REAL *)c->output + first * image_size;
    if (p->strategy != LC_LOCAL_LANES) {
        for (ptrdiff_t i = 0; i < images; ++i)
            LC_NAME(transpose_copy)(stage + i * width * g->filters + b->first_filter, g->filters, width, filters,
                                    out + i * image_size + b->first_filter * g->positions + position, g->positions, 0);
        return;
    }
    const ptrdiff_t inner = g->channels_first ? width : g->filters; /* contiguous in the output */
    const ptrdiff_t from = g->channels_first ? b->first_filter : 0, to = g->channels_first ? b->last_filter : width;
    const ptrdiff_t skip = g->channels_first ? 0 : b->first_filter, length = g->channels_first ? width : filters;
    const int joined = !g->channels_first && filters == g->filters; /* whole positions follow each other without a gap */
    for (ptrdiff_t i = 0; i < images; i += p->batch_tile)
        for (ptrdiff_t k = from; k < to; k = joined ? to : k + 1)
            LC_NAME(transpose_copy)(stage + (i * width * g->filters + (k * inner + skip) * p->batch_tile), p->batch_tile,
                                    joined ? width * inner : length, lc_min(p->batch_tile, images - i),
                                    out + i * image_size + (g->channels_first ? k * g->positions + position
                                                                              : (position + k) * g->filters + skip),
                                    image_size, 0);
}

/* This position's bias, contiguous over the filters. */
LC_INLINE const LC_REAL *LC_NAME(bias_at)(const lc_call *c, ptrdiff_t position, LC_REAL *gathered) {
    const LC_REAL *bias = (const LC_REAL *)c->bias;
    if (!bias || c->bias_filter == 1) return bias ? bias + position * c->bias_position : NULL;
    for (ptrdiff_t f = 0; f < c->geometry->filters; ++f) gathered[f] = bias[position * c->bias_position + f * c->bias_filter];
    return gathered;
}

/* The output positions of one line of a block, for the images of one chunk. */
LC_NOINLINE void LC_NAME(local_line)(const lc_call *c, const lc_local_plan *p, const LC_NAME(block) *b, const ptrdiff_t line[2],
                                     ptrdiff_t first, LC_NAME(place) *at, lc_range clip[3], char *workspace, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int lanes = p->strategy == LC_LOCAL_LANES, staged = lc_local_staged(g, p);
    const ptrdiff_t width = b->hi[2] - b->lo[2], origin = (line[0] * g->output[1] + line[1]) * g->output[2] + b->lo[2];
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at), *out = (LC_REAL *)c->output + first * g->positions * g->filters;
    at->out_filter = !lanes ? 1 : p->batch_tile * (g->channels_first ? width : 1);
    at->out_image = staged ? width * g->filters : g->positions * g->filters;
    for (ptrdiff_t k = 0; k < width; ++k) {
        const ptrdiff_t index[3] = {line[0], line[1], b->lo[2] + k};
        lc_range now[3];
        at->window = 0;
        for (int axis = 0; axis < 3; ++axis) {
            at->window += (index[axis] * g->strides[axis] - g->before[axis] - b->in_lo[axis]) * b->at.stride[axis];
            now[axis] = lc_taps_inside(g, axis, index[axis]);
        }
        if (memcmp(now, clip, sizeof now) != 0) { /* windows inside the input share their runs; at a border each has its own */
            memcpy(clip, now, sizeof now);
            t->run_count = lc_build_runs(g, &b->at, clip, g->filters, lanes, (lc_run *)workspace);
        }
        at->position = origin + k;
        at->bias = LC_NAME(bias_at)(c, at->position, (LC_REAL *)(workspace + p->bias_at));
        at->out = !staged ? out + at->position * g->filters
                          : stage + k * (!lanes ? g->filters : g->channels_first ? p->batch_tile : g->filters * p->batch_tile);
        (lanes ? LC_NAME(position_by_filters) : LC_NAME(position_by_images))(c, p, b, at, t);
    }
    if (staged) LC_NAME(flush_line)(c, p, b, stage, origin, width, first, at->images);
}

LC_NOINLINE void LC_NAME(local_task)(const lc_call *c, const lc_local_plan *p, ptrdiff_t task, char *workspace) {
    const lc_geometry *g = c->geometry;
    const int lanes = p->strategy == LC_LOCAL_LANES, interleaved = lc_local_interleaved(p);
    LC_NAME(block) b;
    LC_NAME(place) at;
    lc_tile t;
    lc_range clip[3] = {{-1, -1}, {-1, -1}, {-1, -1}};
    LC_NAME(find_block)(g, p, task, &b);
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.runs = (const lc_run *)workspace;
    t.relu = c->relu;
    t.bias_axis = !c->bias ? LC_BIAS_NONE : lanes ? LC_BIAS_ROWS : LC_BIAS_LANES;
    t.row_stride = interleaved ? 1 : g->input_batch;
    t.row_step = lanes ? g->filters : lc_run_step(g, &b.at);
    t.lane_step = lanes ? lc_run_step(g, &b.at) : g->filters;
    for (ptrdiff_t first = 0; first < g->batch; first += p->batch_chunk) {
        LC_REAL *box = (LC_REAL *)(workspace + p->input_at);
        at.images = lc_min(p->batch_chunk, g->batch - first);
        at.tiles = lc_ceil_div(at.images, p->batch_tile);
        at.share = g->depth * g->filters * (ptrdiff_t)sizeof(LC_REAL) / (at.tiles * (b.last_panel - b.first_panel));
        t.prefetch_step = at.share / g->depth;
        at.input = interleaved ? box : (const LC_REAL *)c->input + first * g->input_batch;
        if (interleaved) LC_NAME(interleave)(c, p, &b, first, at.images, box);
        for (ptrdiff_t i = b.lo[0]; i < b.hi[0]; ++i)
            for (ptrdiff_t j = b.lo[1]; j < b.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                LC_NAME(local_line)(c, p, &b, line, first, &at, clip, workspace, &t);
            }
    }
}
