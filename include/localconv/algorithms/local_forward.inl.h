/* The bodies of local_forward.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Interleaves images first .. first+count-1 of the box, one tile of images behind the other. */
LC_NOINLINE void fill_local_box(const lc_job *job, const lc_call *c, const lc_local_block *b, ptrdiff_t first,
                                ptrdiff_t count, LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile = job->choices.batch_tile;
    const LC_REAL *source = (const LC_REAL *)c->input + lc_offset(&g->x, b->corner) + first * g->x.image;
    const lc_copy copy = lc_copy_box(b->extent, g->channels, &g->x, &b->layout);
    const int pad = job->algorithm == LC_local_images;
    for (ptrdiff_t image = 0; image < count; image += tile)
        interleave(source + image * g->x.image, box + image * b->image, lc_min(tile, count - image), g->x.image, copy,
                   pad);
}

/* The sums of R images against one filter, the lanes along the window's contiguous runs. */
LC_INLINE void dot_body(const lc_tile *t, const int R, const int storage) {
    const ptrdiff_t size = stored_size(storage);
    LC_VEC acc[LC_DOT_ROWS];
    LC_MASK tail = v_first(0);
    const ptrdiff_t row_stride = t->row_stride;
    ptrdiff_t masked = 0;
    const LC_VEC scale = has_scales(storage) ? v_splat((const LC_REAL *)t->scales) : v_zero();
    LC_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = v_zero();
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const LC_REAL *x = (const LC_REAL *)t->row_data + (t->row_base + t->runs[k].row);
        const char *w = (const char *)t->vector + (t->vector_base + t->runs[k].vector) * size;
        ptrdiff_t n = t->runs[k].n;
        for (; n >= LC_LANES; n -= LC_LANES, x += LC_LANES, w += LC_LANES * size) {
            const LC_VEC lane = scaled(load_stored(w, storage), scale, storage);
            LC_UNROLL
            for (int r = 0; r < R; ++r) {
                acc[r] = v_fma(v_load(x + r * row_stride), lane, acc[r]);
            }
        }
        if (n == 0) continue;
        if (n != masked) tail = v_first(masked = n); /* windows inside the input have one tail, all runs alike */
        const LC_VEC lane = scaled(load_stored_first(w, n, tail, storage), scale, storage);
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            acc[r] = v_fma(v_load_first(x + r * row_stride, tail), lane, acc[r]);
        }
    }
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_REAL sum = v_sum(acc[r]);
        if (t->bias_axis != LC_BIAS_NONE) sum += *(const LC_REAL *)t->bias;
        ((LC_REAL *)t->out)[r * t->out_stride] = t->relu && sum < 0 ? 0 : sum;
    }
}

LC_NOINLINE void run_dot(const lc_tile *t, ptrdiff_t rows, int storage) {
    switch (storage * 8 + rows) {
#define LC_DOT_CASE(storage, rows) \
    case storage * 8 + rows: dot_body(t, rows, storage); break;
#define LC_DOT_CASES(storage) \
    LC_DOT_CASE(storage, 1) LC_DOT_CASE(storage, 2) LC_DOT_CASE(storage, 3) LC_DOT_CASE(storage, LC_DOT_ROWS)
#define LC_ROW(name, size, numpy, scaled, more) LC_DOT_CASES(LC_##name)
        LC_DOT_CASES(LC_native)
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
#undef LC_DOT_CASES
#undef LC_DOT_CASE
        default: lc_impossible("dot products of more rows than are compiled");
    }
}

/* The kernel of a position as its tiles read it. */
LC_INLINE const char *kernel_at(const lc_job *job, const lc_call *c, const lc_local_block *b, ptrdiff_t index,
                                char *workspace) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const char *stored = lc_kernel_of(job, c, index);
    LC_REAL *made = (LC_REAL *)(workspace + p->kernel_at);
    if (!p->made) return stored;
    if (lc_is_summed(job))
        sum_filters(job, c, index, b->first_filter, g->filters, g->window, b->kernel_step, made, b->kernel_step);
    else
        widen(job->storage, stored + b->first_filter * lc_kernel_size(job), g->filters, g->window, b->kernel_step,
              lc_scales_from(c, index * g->filters + b->first_filter), made, b->kernel_step);
    return (const char *)made;
}

/* One piece; rows = images, lanes = filters; or local_dot: lanes along the window. */
LC_NOINLINE void position_by_images(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                    const lc_local_position *here, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile_images = job->choices.batch_tile, width = LC_CONST_PLAN(lc_local_plan, job)->panel_filters;
    const int storage = LC_CONST_PLAN(lc_local_plan, job)->made ? LC_native : job->storage;
    t->out_stride = here->out_image;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const lc_panel panel = lc_find_panel(g, width, i);
        t->vector = here->kernel + (panel.first - b->kernel_first) * b->kernel_size;
        t->scales = lc_scales_from(c, here->index * g->filters + panel.first);
        t->lane_count = panel.count;
        t->row_base = here->window + panel.group * g->group_channels * b->layout.channel;
        t->bias = here->bias ? (const LC_REAL *)here->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < here->tiles; ++tile, t->prefetch += here->share) {
            const ptrdiff_t image = tile * tile_images, rows = lc_min(tile_images, here->images - image);
            t->row_data = (const LC_REAL *)here->input + image * b->image;
            t->out = (LC_REAL *)here->out + image * here->out_image + panel.first * here->out_filter;
            if (job->algorithm == LC_local_dot)
                run_dot(t, rows, storage);
            else if (storage == LC_native)
                run_tile(t, (int)rows, vectors_for(panel.count));
            else
                run_stored_tile(t, (int)rows, vectors_for(panel.count), storage);
        }
    }
}

/* One piece; rows = filters, lanes = images. */
LC_NOINLINE void position_by_filters(const lc_job *job, const lc_call *c, const lc_local_block *b,
                                     const lc_local_position *here, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile_images = job->choices.batch_tile, width = LC_CONST_PLAN(lc_local_plan, job)->panel_filters;
    t->out_stride = here->out_filter;
    for (ptrdiff_t i = b->first_panel; i < b->last_panel; ++i) {
        const lc_panel panel = lc_find_panel(g, width, i);
        t->row_data = (const LC_REAL *)here->kernel + (panel.first - b->kernel_first);
        t->vector_base = here->window + panel.group * g->group_channels * b->layout.channel;
        t->bias = here->bias ? (const LC_REAL *)here->bias + panel.first : NULL;
        for (ptrdiff_t tile = 0; tile < here->tiles; ++tile, t->prefetch += here->share) {
            const ptrdiff_t image = tile * tile_images;
            t->vector = (const LC_REAL *)here->input + image * b->image;
            t->lane_count = lc_min(tile_images, here->images - image);
            t->out = (LC_REAL *)here->out + image * here->out_image + panel.first * here->out_filter;
            run_tile(t, (int)panel.count, vectors_for(t->lane_count));
        }
    }
}

/* One piece of a position's window, all tiles. */
LC_INLINE void sum_piece(const lc_job *job, const lc_call *c, const lc_local_block *b, const lc_local_position *here,
                         lc_tile *t) {
    const int by_filters = LC_CONST_PLAN(lc_local_plan, job)->images_in_lanes;
    (by_filters ? position_by_filters : position_by_images)(job, c, b, here, t);
}

/* One piece after the other. What is added to the sums, and cut off, is after the last one. */
LC_NOINLINE void sum_pieces(const lc_job *job, const lc_call *c, const lc_local_block *b, const lc_local_position *here,
                            const lc_run *runs, lc_tile *t) {
    const int bias_axis = t->bias_axis, relu = t->relu;
    ptrdiff_t count = here->run_count;
    t->runs = runs;
    t->init_from_out = 0;
    do {
        t->run_count = lc_runs_of_piece(t->runs, count, LC_CONST_PLAN(lc_local_plan, job)->piece);
        count -= t->run_count;
        t->bias_axis = count > 0 ? LC_BIAS_NONE : bias_axis;
        t->relu = count > 0 ? 0 : relu;
        sum_piece(job, c, b, here, t);
        t->runs += t->run_count;
        t->init_from_out = 1;
    } while (count > 0);
}

/* Copies a staged line, whose first position is `index`, to the result. */
LC_NOINLINE void flush_line(const lc_job *job, const lc_call *c, const lc_local_block *b, const LC_REAL *stage,
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
        move(stage + i * width * g->filters, out + i * g->y.image, copy);
    }
}

/* This position's bias, contiguous over the filters. */
LC_INLINE const LC_REAL *bias_of(const lc_geometry *g, const lc_call *c, ptrdiff_t index, LC_REAL *gathered) {
    const LC_REAL *bias = (const LC_REAL *)c->bias;
    if (!bias || c->bias_filter == 1) return bias ? bias + index * c->bias_position : NULL;
    for (ptrdiff_t f = 0; f < g->filters; ++f) gathered[f] = bias[index * c->bias_position + f * c->bias_filter];
    return gathered;
}

/* The output positions of one line of a block, for the images of one chunk. */
LC_NOINLINE void local_line(const lc_job *job, const lc_call *c, const lc_local_block *b, const ptrdiff_t line[2],
                            ptrdiff_t first, lc_local_position *here, lc_range clip[3], char *workspace, lc_tile *t) {
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
        here->kernel = kernel_at(job, c, b, here->index, workspace);
        here->bias = bias_of(g, c, here->index, (LC_REAL *)(workspace + p->bias_at));
        here->out = out + k * out_position;
        if (p->piece == g->window) {
            t->prefetch = lc_next_kernel(job, c, here->index);
            sum_piece(job, c, b, here, t);
        } else {
            t->prefetch = lc_later_kernel(job, c, here->index);
            sum_pieces(job, c, b, here, (const lc_run *)workspace, t);
        }
    }
    if (p->staged) flush_line(job, c, b, stage, start, width, first, here->images);
}

LC_NOINLINE void local_task(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_local_plan *p = LC_CONST_PLAN(lc_local_plan, job);
    const ptrdiff_t chunk = job->choices.batch_chunk, tile = job->choices.batch_tile;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_local_block b;
    lc_local_position here;
    lc_tile t;
    lc_range clip[3] = {{-1, -1}, {-1, -1}, {-1, -1}}; /* no window's */
    lc_find_local_block(job, task, &b);
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    t.runs = (const lc_run *)workspace;
    t.relu = c->relu;
    t.prefetch_far = lc_next_is_far(job);
    t.channel_lanes = g->channel_lanes;
    t.bias_axis = !c->bias ? LC_BIAS_NONE : p->images_in_lanes ? LC_BIAS_ROWS : LC_BIAS_LANES;
    t.row_stride = p->interleaved ? 1 : g->x.image;
    t.row_step = p->images_in_lanes ? b.kernel_step : lc_run_step(g, &b.layout);
    t.vector_step = p->images_in_lanes ? lc_run_step(g, &b.layout) : b.kernel_step;
    for (ptrdiff_t first = 0; first < g->batch; first += chunk) {
        here.images = lc_min(chunk, g->batch - first);
        here.tiles = lc_ceil_div(here.images, tile);
        here.share = p->piece * g->filters * lc_kernel_size(job) / (here.tiles * (b.last_panel - b.first_panel));
        if (lc_is_summed(job)) here.share = 0; /* the filters are read again and again */
        t.prefetch_step = here.share / p->piece;
        here.input = p->interleaved ? box : (const LC_REAL *)c->input + first * g->x.image;
        if (p->interleaved) fill_local_box(job, c, &b, first, here.images, box);
        for (ptrdiff_t i = b.lo[0]; i < b.hi[0]; ++i)
            for (ptrdiff_t j = b.lo[1]; j < b.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                local_line(job, c, &b, line, first, &here, clip, workspace, &t);
            }
    }
}
