/* The bodies of local_grad_input.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Adds the first lanes to `count` values, `out_step` apart. */
LC_INLINE void add_sums(LC_VEC sums, ptrdiff_t count, LC_REAL *out, ptrdiff_t out_step) {
    if (out_step == 1) {
        const LC_MASK there = v_first(count);
        v_store_first(out, there, v_add(v_load_first(out, there), sums));
        return;
    }
    LC_REAL sum[LC_LANES];
    v_store(sum, sums);
    for (ptrdiff_t r = 0; r < count; ++r) out[r * out_step] += sum[r];
}

/* Adds to `rows.count` <= LANES values, `out_step` apart, the dot products of as many kernel rows with `n` gradients.
 */
LC_INLINE void dot_rows(const lc_kernel_rows rows, const LC_REAL *gradient, ptrdiff_t n, LC_REAL *out,
                        ptrdiff_t out_step, int fetch, const int storage) {
    const ptrdiff_t size = stored_size(storage);
    const LC_REAL *scales = (const LC_REAL *)rows.scales;
    LC_VEC scale = v_zero();
    LC_VEC acc[LC_LANES];
    const char *row[LC_LANES];
    ptrdiff_t f = 0;
    LC_UNROLL
    for (int r = 0; r < LC_LANES; ++r) {
        acc[r] = v_zero();
        /* rows that are not there repeat the last one, and are not stored */
        row[r] = rows.at + lc_min(r, rows.count - 1) * rows.stride;
    }
    for (; f + LC_LANES <= n; f += LC_LANES) {
        const LC_VEC x = v_load(gradient + f);
        if (has_scales(storage)) scale = v_load(scales + f);
        LC_UNROLL
        for (int r = 0; r < LC_LANES; ++r) {
            const LC_VEC w = load_stored(row[r] + f * size, storage);
            acc[r] = v_fma(scaled(w, scale, storage), x, acc[r]);
        }
    }
    if (f < n) {
        const LC_MASK tail = v_first(n - f);
        const LC_VEC x = v_load_first(gradient + f, tail);
        if (has_scales(storage)) scale = v_load_first(scales + f, tail);
        LC_UNROLL
        for (int r = 0; r < LC_LANES; ++r) {
            const LC_VEC w = load_stored_first(row[r] + f * size, n - f, tail, storage);
            acc[r] = v_fma(scaled(w, scale, storage), x, acc[r]);
        }
    }
    if (fetch)
        for (ptrdiff_t r = 2 * LC_LANES; r < 2 * LC_LANES + rows.count; ++r)
            for (ptrdiff_t i = 0; i < n * size; i += 64) LC_PREFETCH_L1(rows.at + r * rows.stride + i);
    add_sums(v_sums(acc), rows.count, out, out_step);
}

/* Adds to n values, the lanes' own, the products of a kernel row and as many gradients. */
LC_INLINE void add_products(const char *row, const float *scales, const LC_REAL *gradient, ptrdiff_t n, LC_REAL *out,
                            const int storage) {
    const ptrdiff_t size = stored_size(storage);
    LC_VEC scale = v_zero();
    ptrdiff_t f = 0;
    for (; f + LC_LANES <= n; f += LC_LANES) {
        if (has_scales(storage)) scale = v_load((const LC_REAL *)scales + f);
        const LC_VEC w = scaled(load_stored(row + f * size, storage), scale, storage);
        v_store(out + f, v_fma(w, v_load(gradient + f), v_load(out + f)));
    }
    if (f == n) return;
    const LC_MASK tail = v_first(n - f);
    if (has_scales(storage)) scale = v_load_first((const LC_REAL *)scales + f, tail);
    const LC_VEC w = scaled(load_stored_first(row + f * size, n - f, tail, storage), scale, storage);
    const LC_VEC sum = v_fma(w, v_load_first(gradient + f, tail), v_load_first(out + f, tail));
    v_store_first(out + f, tail, sum);
}

/* One position, with channel lanes: `direct_body` for all groups at once. */
LC_INLINE void channel_lanes_direct_body(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                         const char *kernel, ptrdiff_t first, ptrdiff_t images, const LC_REAL *gradient,
                                         ptrdiff_t gradient_image, const int storage) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t bytes = g->filters * stored_size(storage);
    const char *next = lc_next_kernel(job, c, index);
    for (ptrdiff_t s = 0; s < w->strip_count; ++s)
        for (ptrdiff_t i = 0; i < w->strips[s].n; ++i) {
            const ptrdiff_t row = (w->strips[s].row + i * w->strip_layout.row_step) * bytes;
            LC_REAL *out = (LC_REAL *)c->result + first * g->x.image + w->window + w->strips[s].input;
            for (ptrdiff_t byte = 0; byte < bytes; byte += 64) LC_PREFETCH_L1(next + row + byte);
            for (ptrdiff_t image = 0; image < images; ++image)
                add_products(kernel + row, lc_scales_from(c, index * g->filters), gradient + image * gradient_image,
                             g->filters, out + image * g->x.image + i * w->strip_layout.input_step, storage);
        }
}

/* One position for images first .. first+images-1, one after the other; gradient: of the first, contiguous over the
 * filters. */
LC_INLINE void direct_body(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index, const char *kernel,
                           ptrdiff_t first, ptrdiff_t images, const LC_REAL *gradient, ptrdiff_t gradient_image,
                           const int storage) {
    const lc_geometry *g = &job->geometry;
    LC_REAL *inputs = (LC_REAL *)c->result + first * g->x.image + w->window;
    const ptrdiff_t size = stored_size(storage), stride = w->strip_layout.row_step * g->filters * size;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t s = 0; s < w->strip_count; ++s) {
            const lc_strip *strip = w->strips + s;
            const char *rows_at = kernel + (strip->row * g->filters + group * g->group_filters) * size;
            LC_REAL *out = inputs + strip->input + group * g->group_channels * w->layout.channel;
            for (ptrdiff_t row = 0; row < strip->n; row += LC_LANES) {
                const lc_kernel_rows rows = {rows_at + row * stride, stride, lc_min(LC_LANES, strip->n - row),
                                             lc_scales_from(c, index * g->filters + group * g->group_filters)};
                for (ptrdiff_t image = 0; image < images; ++image)
                    dot_rows(rows, gradient + image * gradient_image + group * g->group_filters, g->group_filters,
                             out + image * g->x.image + row * w->strip_layout.input_step, w->strip_layout.input_step,
                             image == 0, storage);
            }
        }
}

/* What dot products of kernel rows that share vectors multiply these with: F gradients, over and over; and F scales. */
typedef struct repeated {
    LC_VEC gradient, scale;
} repeated;

LC_INLINE LC_VEC repeat(const LC_REAL *values, const int F) {
    LC_REAL repeated[LC_LANES];
    for (int i = 0; i < LC_LANES; ++i) repeated[i] = values[i % F];
    return v_load(repeated);
}

/* Adds to n values, `out_step` apart, the dot products of as many kernel rows of F values. LANES / F rows are one
 * vector; sums of neighbours leave one sum of each row, in the rows' order. */
LC_INLINE void dot_shared_rows(const char *kernel, ptrdiff_t n, const repeated *by, LC_REAL *out, ptrdiff_t out_step,
                               const int F, const int storage) {
    const ptrdiff_t size = stored_size(storage);
    for (ptrdiff_t row = 0; row < n; row += LC_LANES) {
        const ptrdiff_t rows = lc_min(LC_LANES, n - row);
        LC_VEC v[8];
        LC_UNROLL
        for (int i = 0; i < F; ++i) {
            const char *at = kernel + (row * F + i * LC_LANES) * size;
            const ptrdiff_t there = lc_max(0, rows * F - i * LC_LANES);
            v[i] = there >= LC_LANES ? load_stored(at, storage) : load_stored_first(at, there, v_first(there), storage);
            v[i] = v_mul(scaled(v[i], by->scale, storage), by->gradient);
        }
        LC_UNROLL
        for (int i = 0; i < F / 2; ++i) v[i] = v_pairs(v[2 * i], v[2 * i + 1]);
        LC_UNROLL
        for (int i = 0; i < F / 4; ++i) v[i] = v_pairs(v[2 * i], v[2 * i + 1]);
        LC_UNROLL
        for (int i = 0; i < F / 8; ++i) v[i] = v_pairs(v[2 * i], v[2 * i + 1]);
        add_sums(v[0], rows, out + row * out_step, out_step);
    }
}

/* `direct_body` for F filters whose rows share vectors. */
LC_INLINE void shared_body(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index, const char *kernel,
                           ptrdiff_t first, ptrdiff_t images, const LC_REAL *gradient, ptrdiff_t gradient_image,
                           const int F, const int storage) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t size = stored_size(storage);
    const char *ahead = kernel + LC_SHARED_AHEAD;
    repeated by = {v_zero(), v_zero()};
    for (ptrdiff_t byte = 0; byte < g->window * F * size; byte += 64) LC_PREFETCH_L1(ahead + byte);
    if (has_scales(storage)) by.scale = repeat((const LC_REAL *)lc_scales_from(c, index * F), F);
    for (ptrdiff_t image = 0; image < images; ++image) {
        LC_REAL *inputs = (LC_REAL *)c->result + (first + image) * g->x.image + w->window;
        by.gradient = repeat(gradient + image * gradient_image, F);
        for (ptrdiff_t s = 0; s < w->strip_count; ++s)
            dot_shared_rows(kernel + w->strips[s].row * F * size, w->strips[s].n, &by, inputs + w->strips[s].input,
                            w->strip_layout.input_step, F, storage);
    }
}

LC_NOINLINE void input_gradient_shared(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                       const char *kernel, ptrdiff_t first, ptrdiff_t images, const LC_REAL *gradient,
                                       ptrdiff_t gradient_image) {
    switch (job->storage * 16 + job->geometry.filters) {
#define LC_SHARED_CASE(F, storage)                                                                  \
    case storage * 16 + F:                                                                          \
        if (F >= LC_LANES) break;                                                                   \
        shared_body(job, c, w, index, kernel, first, images, gradient, gradient_image, F, storage); \
        return;
#define LC_SHARED_CASES(storage) \
    LC_SHARED_CASE(1, storage) LC_SHARED_CASE(2, storage) LC_SHARED_CASE(4, storage) LC_SHARED_CASE(8, storage)
#define LC_ROW(name, size, numpy, scaled, more) LC_SHARED_CASES(LC_##name)
        LC_SHARED_CASES(LC_native)
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
#undef LC_SHARED_CASES
#undef LC_SHARED_CASE
        default: break;
    }
    lc_impossible("rows of so many filters that share no vector");
}

LC_NOINLINE void input_gradient_direct(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                       const char *kernel, ptrdiff_t first, ptrdiff_t images, const LC_REAL *gradient,
                                       ptrdiff_t gradient_image) {
    if (!job->geometry.channel_lanes && lc_rows_share(&job->geometry, &w->strip_layout, LC_LANES)) {
        input_gradient_shared(job, c, w, index, kernel, first, images, gradient, gradient_image);
        return;
    }
    switch (job->storage) {
#define LC_STORE_CASE(storage)                                                                                     \
    case storage:                                                                                                  \
        if (job->geometry.channel_lanes)                                                                           \
            channel_lanes_direct_body(job, c, w, index, kernel, first, images, gradient, gradient_image, storage); \
        else                                                                                                       \
            direct_body(job, c, w, index, kernel, first, images, gradient, gradient_image, storage);               \
        break;
#define LC_ROW(name, size, numpy, scaled, more) LC_STORE_CASE(LC_##name)
        LC_STORE_CASE(LC_native)
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
#undef LC_STORE_CASE
        default: lc_impossible("a kernel stored in a way that this element type has not");
    }
}

/* One position for the images of one chunk, side by side. gradient: [tile][filter][image], tiles `gradient_tile`
 * elements apart. */
LC_NOINLINE void input_gradient_buffered(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                         const char *kernel, ptrdiff_t images, const LC_REAL *gradient,
                                         ptrdiff_t gradient_tile, LC_REAL *box, lc_tile *t, char *workspace) {
    const lc_geometry *g = &job->geometry;
    const int limit = job->kernels->rows[job->choices.vectors];
    const ptrdiff_t tile_images = job->choices.batch_tile, size = lc_kernel_size(job);
    const ptrdiff_t stride = w->strip_layout.row_step * g->filters;
    const char *next = lc_next_kernel(job, c, index);
    LC_REAL *widened = (LC_REAL *)(workspace + LC_CONST_PLAN(lc_local_input_plan, job)->kernel_at);
    t->row_stride = job->storage == LC_native ? stride : g->group_filters;
    t->out_stride = w->strip_layout.input_step;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t s = 0; s < w->strip_count; ++s) {
            const lc_strip *strip = w->strips + s;
            const ptrdiff_t parts = lc_ceil_div(strip->n, limit);
            LC_REAL *pixels = box + w->window + strip->input + group * g->group_channels * w->layout.channel;
            for (ptrdiff_t i = 0, row = 0, end; i < parts; ++i, row = end) {
                end = lc_share(strip->n, parts, i + 1);
                const ptrdiff_t at =
                    ((strip->row + row * w->strip_layout.row_step) * g->filters + group * g->group_filters) * size;
                t->prefetch = next + at;
                t->prefetch_step = (end - row) * size; /* as many bytes as the tile's own rows */
                t->row_data = kernel + at;
                if (job->storage != LC_native) {
                    t->row_data = widened;
                    widen(job->storage, kernel + at, stride, end - row, g->group_filters,
                          lc_scales_from(c, index * g->filters + group * g->group_filters), widened, g->group_filters);
                }
                for (ptrdiff_t tile = 0; tile * tile_images < images; ++tile) {
                    const int vectors = vectors_for(lc_min(tile_images, images - tile * tile_images));
                    t->lane_count = (ptrdiff_t)vectors * LC_LANES;
                    t->vector = gradient + tile * gradient_tile + group * g->group_filters * tile_images;
                    t->out = pixels + tile * w->elements * tile_images + row * w->strip_layout.input_step;
                    run_tile(t, (int)(end - row), vectors);
                    t->prefetch = NULL;
                    t->prefetch_step = 0;
                }
            }
        }
}

/* The output gradient of `count` positions with the images side by side: [tile][position][filter][image]. */
LC_NOINLINE void interleave_gradient(const lc_job *job, const lc_call *c, ptrdiff_t index, ptrdiff_t count,
                                     ptrdiff_t first, ptrdiff_t images, LC_REAL *target) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile = job->choices.batch_tile;
    const LC_REAL *source = (const LC_REAL *)c->gradient + first * g->y.image + index * g->y.pixel[2];
    const lc_copy copy = lc_copy_plane(count, g->y.pixel[2], g->filters * tile, g->filters, g->y.channel, tile);
    for (ptrdiff_t image = 0; image < images; image += tile, target += count * g->filters * tile)
        interleave(source + image * g->y.image, target, lc_min(tile, images - image), g->y.image, copy, 1);
}

/* The box of input gradients to the caller's array. */
LC_NOINLINE void deliver_box(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t first, ptrdiff_t images,
                             const LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tile = job->choices.batch_tile;
    LC_REAL *out = (LC_REAL *)c->result + first * g->x.image + lc_offset(&g->x, w->from);
    for (ptrdiff_t image = 0; image < images; image += tile, box += w->elements * tile) {
        lc_copy copy = lc_copy_box(w->extent, g->channels, &w->layout, &g->x);
        lc_add_dim(&copy, lc_min(tile, images - image), 1, g->x.image);
        move(box, out + image * g->x.image, copy);
    }
}

/* The kernel of a position, of which the taps in the block are there. */
LC_INLINE const char *touched_kernel(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                     char *workspace) {
    const ptrdiff_t filters = job->geometry.filters, stride = w->strip_layout.row_step * filters;
    LC_REAL *summed = (LC_REAL *)(workspace + LC_CONST_PLAN(lc_local_input_plan, job)->kernel_at);
    if (!lc_is_summed(job)) return lc_kernel_of(job, c, index);
    for (ptrdiff_t s = 0; s < w->strip_count; ++s) {
        const ptrdiff_t at = w->strips[s].row * filters;
        sum_filters(job, c, index, at, stride, w->strips[s].n, filters, summed + at, stride);
    }
    return (const char *)summed;
}

/* A line of the positions whose windows touch the block. */
LC_NOINLINE void input_gradient_line(const lc_job *job, const lc_call *c, lc_cursor *w, const ptrdiff_t line[2],
                                     ptrdiff_t first, ptrdiff_t images, char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_local_input_plan *p = LC_CONST_PLAN(lc_local_input_plan, job);
    const ptrdiff_t start = (line[0] * g->output[1] + line[1]) * g->output[2], segment = job->choices.segment;
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at), *box = (LC_REAL *)(workspace + p->box_at);
    for (ptrdiff_t k = w->lo[2]; k < w->hi[2]; k += segment) {
        const ptrdiff_t count = lc_min(segment, w->hi[2] - k);
        const LC_REAL *gradient = stage;
        ptrdiff_t image = count * g->filters; /* from one image, or tile of images, to the next */
        if (p->buffered) {
            interleave_gradient(job, c, start + k, count, first, images, stage);
            image *= job->choices.batch_tile;
        } else if (g->channels_first) {
            gather_gradient(g, c, start + k, count, first, images, stage, image);
        } else {
            gradient = (const LC_REAL *)c->gradient + first * g->y.image + (start + k) * g->filters;
            image = g->y.image;
        }
        for (ptrdiff_t i = 0; i < count; ++i) {
            const ptrdiff_t index[3] = {line[0], line[1], k + i};
            lc_move_cursor(g, index, w);
            const char *kernel = touched_kernel(job, c, w, start + k + i, workspace);
            if (p->buffered)
                input_gradient_buffered(job, c, w, start + k + i, kernel, images,
                                        gradient + i * g->filters * job->choices.batch_tile, image, box, t, workspace);
            else
                input_gradient_direct(job, c, w, start + k + i, kernel, first, images, gradient + i * g->filters,
                                      image);
        }
    }
}

/* Sets the block's pixels of all images in the caller's array to 0. */
LC_NOINLINE void clear_block(const lc_geometry *g, const lc_call *c, const lc_cursor *w) {
    const lc_copy copy = lc_copy_box(w->extent, g->channels, &g->x, &g->x);
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        clear((LC_REAL *)c->result + image * g->x.image + lc_offset(&g->x, w->from), copy);
}

LC_NOINLINE void local_grad_input_task(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_local_input_plan *p = LC_CONST_PLAN(lc_local_input_plan, job);
    const ptrdiff_t chunk = job->choices.batch_chunk, tile = job->choices.batch_tile;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_cursor w;
    lc_layout layout = g->x;
    lc_run filters = {0, 0, g->group_filters};
    ptrdiff_t to[3];
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    lc_find_block(g->input, job->choices.block, task, w.from, to);
    for (int axis = 0; axis < 3; ++axis) {
        const lc_range touching = lc_positions_meeting(g, axis, w.from[axis], to[axis]);
        w.extent[axis] = to[axis] - w.from[axis];
        w.corner[axis] = p->buffered ? w.from[axis] : 0;
        w.lo[axis] = touching.lo;
        w.hi[axis] = touching.hi;
    }
    if (p->buffered) layout = lc_layout_of(w.extent, g->channels, 0);
    w.elements = layout.image;
    if (p->buffered) layout = lc_interleaved(layout, tile);
    lc_begin_cursor(g, &layout, workspace, &w);
    t.runs = &filters;
    t.run_count = 1;
    t.row_step = 1;
    t.prefetch_far = lc_next_is_far(job);
    t.vector_step = tile;
    t.accumulate = 1;
    if (!p->buffered) clear_block(g, c, &w);
    for (ptrdiff_t first = 0; first < g->batch; first += chunk) {
        const ptrdiff_t images = lc_min(chunk, g->batch - first);
        if (p->buffered) memset(box, 0, (size_t)(lc_round_up(images, tile) * w.elements) * sizeof(LC_REAL));
        for (ptrdiff_t i = w.lo[0]; i < w.hi[0]; ++i)
            for (ptrdiff_t j = w.lo[1]; j < w.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                input_gradient_line(job, c, &w, line, first, images, workspace, &t);
            }
        if (p->buffered) deliver_box(job, c, &w, first, images, box);
    }
}
