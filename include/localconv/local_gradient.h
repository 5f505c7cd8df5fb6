/* Gradients of a locally connected convolution. (Body: included once per instance.)
 *
 * For the kernel: one position's gradient is the matrix product (window elements x images) (images x filters). Rows of a register
 * tile are window elements, lanes filters, and the sum runs over the batch: every value is written once, from the registers.
 *
 * For the input: a task owns a block of *input* pixels and goes through all positions whose windows touch it, in the positions'
 * order, with the taps clipped to the block as padding clips them elsewhere. So no two tasks write one pixel, every kernel value
 * is read once, and an input value's sum has the same order whatever the blocks. Rows are window elements again:
 *   PLACED  lanes along the filters, one image at a time; LANES window elements are reduced together
 *   BOXED   lanes = images, summed over the filters, in a box [element][image] that is transposed to the caller at the end
 */

/* A box of pixels in a workspace, channels inside, `images` of every element beside each other. */
LC_INLINE lc_layout LC_NAME(pixel_layout)(const lc_geometry *g, const ptrdiff_t extent[3], ptrdiff_t images) {
    lc_layout at;
    at.channel = images;
    at.stride[2] = g->channels * images;
    at.stride[1] = at.stride[2] * extent[2];
    at.stride[0] = at.stride[1] * extent[1];
    return at;
}

/* Where a task is: its part of the positions, the operand in which windows lie, and the strips of the window in hand. */
typedef struct {
    ptrdiff_t lo[3], hi[3];         /* output positions */
    ptrdiff_t from[3], extent[3];   /* input pixels: of the box, or of the block that this task owns */
    ptrdiff_t origin[3], elements;  /* the pixel at the operand's start; elements from one image in the box to the next */
    lc_layout at;
    lc_strips way;
    lc_range clip[3];
    lc_strip *strips;
    ptrdiff_t strip_count, window; /* window: offset of its unclipped origin */
} LC_NAME(gradient_place);

/* Moves to an output position; its taps are clipped to the block's pixels. Returns whether any tap is left out. */
LC_INLINE int LC_NAME(move_to)(const lc_geometry *g, const ptrdiff_t index[3], LC_NAME(gradient_place) *b) {
    lc_range now[3];
    ptrdiff_t present = 1;
    b->window = 0;
    for (int axis = 0; axis < 3; ++axis) {
        b->window += (index[axis] * g->strides[axis] - g->before[axis] - b->origin[axis]) * b->at.stride[axis];
        now[axis] = lc_taps_within(g, axis, index[axis], b->from[axis], b->from[axis] + b->extent[axis]);
        present *= now[axis].hi - now[axis].lo;
    }
    if (memcmp(now, b->clip, sizeof now) != 0) {
        memcpy(b->clip, now, sizeof now);
        b->strip_count = lc_build_strips(g, &b->at, &b->way, now, b->strips);
    }
    return present < g->taps;
}

/* ------------------------------------------------------------------------------------------------------------- for the kernel */

/* Copies the box of images first .. first+count-1, one image behind the other, channels inside. */
LC_NOINLINE void LC_NAME(copy_box)(const lc_call *c, const LC_NAME(gradient_place) *b, ptrdiff_t first, ptrdiff_t count, LC_REAL *box) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t length = b->extent[2] * g->channels;
    for (ptrdiff_t image = first; image < first + count; ++image) {
        LC_REAL *target = box + (image - first) * b->elements;
        for (ptrdiff_t i = b->from[0]; i < b->from[0] + b->extent[0]; ++i)
            for (ptrdiff_t j = b->from[1]; j < b->from[1] + b->extent[1]; ++j, target += length) {
                const LC_REAL *source = (const LC_REAL *)c->input + image * g->input_batch + i * g->input_stride[0] +
                                        j * g->input_stride[1] + b->from[2] * g->input_stride[2];
                if (g->channels_first)
                    LC_NAME(transpose_copy)(source, g->input_channel, g->channels, b->extent[2], target, g->channels, 0);
                else
                    memcpy(target, source, (size_t)length * sizeof(LC_REAL));
            }
    }
}

/* Copies the output gradient of `count` positions from `position` on, [image][position][filter], images `stride` elements apart. */
LC_NOINLINE void LC_NAME(copy_gradient)(const lc_call *c, ptrdiff_t position, ptrdiff_t count, ptrdiff_t first, ptrdiff_t images,
                                        LC_REAL *target, ptrdiff_t stride) {
    const lc_geometry *g = c->geometry;
    for (ptrdiff_t image = first; image < first + images; ++image, target += stride) {
        const LC_REAL *source = (const LC_REAL *)c->gradient + image * g->output_batch + position * g->output_stride[2];
        if (g->channels_first)
            LC_NAME(transpose_copy)(source, g->positions, g->filters, count, target, g->filters, 0);
        else
            memcpy(target, source, (size_t)(count * g->filters) * sizeof(LC_REAL));
    }
}

/* One position's gradient, all tiles of the task's panels. */
LC_NOINLINE void LC_NAME(kernel_gradient_at)(const lc_call *c, const lc_gradient_plan *p, const LC_NAME(gradient_place) *b,
                                             ptrdiff_t position, const ptrdiff_t panels[2], const LC_REAL *gradient, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t per_group = lc_ceil_div(g->group_filters, p->panel_filters);
    LC_REAL *out = (LC_REAL *)c->output + position * g->depth * g->filters;
    t->out_stride = b->way.row_step * g->filters;
    for (ptrdiff_t panel = panels[0]; panel < panels[1]; ++panel) {
        const ptrdiff_t group = panel / per_group, inside = panel % per_group * p->panel_filters;
        const ptrdiff_t filter = group * g->group_filters + inside;
        const int vectors = LC_NAME(vectors_for)(t->lane_count = lc_min(p->panel_filters, g->group_filters - inside));
        const int limit = LC_NAME(rows_limit)(vectors);
        t->lanes = gradient + filter;
        t->prefetch = (const char *)t->lanes;
        for (ptrdiff_t s = 0; s < b->strip_count; ++s) {
            const lc_strip *strip = b->strips + s;
            const ptrdiff_t tiles = lc_ceil_div(strip->n, limit), base = b->window + strip->input + group * g->group_channels * b->at.channel;
            for (ptrdiff_t i = 0, row = 0, end; i < tiles; ++i, row = end) {
                end = lc_share(strip->n, tiles, i + 1);
                t->rows_base = base + row * b->way.input_step;
                t->out = out + (strip->row + row * b->way.row_step) * g->filters + filter;
                LC_NAME(run_tile)(t, (int)(end - row), vectors);
            }
        }
    }
}

/* Sets one position's gradient to 0 in the task's panels: the rows that meet padding stay so. */
LC_NOINLINE void LC_NAME(clear_panels)(const lc_call *c, const lc_gradient_plan *p, ptrdiff_t position, const ptrdiff_t panels[2]) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t per_group = lc_ceil_div(g->group_filters, p->panel_filters);
    for (ptrdiff_t panel = panels[0]; panel < panels[1]; ++panel) {
        const ptrdiff_t inside = panel % per_group * p->panel_filters;
        const ptrdiff_t filter = panel / per_group * g->group_filters + inside, count = lc_min(p->panel_filters, g->group_filters - inside);
        for (ptrdiff_t row = 0; row < g->depth; ++row)
            memset((LC_REAL *)c->output + (position * g->depth + row) * g->filters + filter, 0, (size_t)count * sizeof(LC_REAL));
    }
}

/* A line of the block's positions, for the images of one chunk. */
LC_NOINLINE void LC_NAME(kernel_gradient_line)(const lc_call *c, const lc_gradient_plan *p, LC_NAME(gradient_place) *b,
                                               const ptrdiff_t line[2], const ptrdiff_t panels[2], ptrdiff_t first, ptrdiff_t images,
                                               LC_REAL *stage, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int packed = p->strategy == LC_GRADIENT_BOXED || g->channels_first;
    const ptrdiff_t origin = (line[0] * g->output[1] + line[1]) * g->output[2];
    const ptrdiff_t stride = lc_box_stride(p->segment * g->filters, (ptrdiff_t)sizeof(LC_REAL));
    for (ptrdiff_t k = b->lo[2]; k < b->hi[2]; k += p->segment) {
        const ptrdiff_t count = lc_min(p->segment, b->hi[2] - k);
        const LC_REAL *gradient = stage;
        if (packed)
            LC_NAME(copy_gradient)(c, origin + k, count, first, images, stage, stride);
        else
            gradient = (const LC_REAL *)c->gradient + first * g->output_batch + (origin + k) * g->filters;
        t->lane_step = packed ? stride : g->output_batch;
        for (ptrdiff_t i = 0; i < count; ++i) {
            const ptrdiff_t index[3] = {line[0], line[1], k + i};
            const int clipped = LC_NAME(move_to)(g, index, b);
            if (clipped && !t->accumulate) LC_NAME(clear_panels)(c, p, origin + k + i, panels);
            LC_NAME(kernel_gradient_at)(c, p, b, origin + k + i, panels, gradient + i * g->filters, t);
        }
    }
}

LC_NOINLINE void LC_NAME(local_gradient_kernel_task)(const lc_call *c, const lc_gradient_plan *p, ptrdiff_t task, char *workspace) {
    const lc_geometry *g = c->geometry;
    const int packed = p->strategy == LC_GRADIENT_BOXED;
    const ptrdiff_t all = lc_ceil_div(g->group_filters, p->panel_filters) * g->groups, part = task % p->filter_parts;
    const ptrdiff_t panels[2] = {lc_share(all, p->filter_parts, part), lc_share(all, p->filter_parts, part + 1)};
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at), *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_NAME(gradient_place) b;
    lc_run batch = {0, 0, 0};
    lc_tile t;
    ptrdiff_t index = task / p->filter_parts;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&b, 0xff, sizeof b); /* no clip is the first one */
    memset(&t, 0, sizeof t);
    b.elements = g->channels;
    for (int axis = 2; axis >= 0; --axis) {
        b.lo[axis] = index % p->blocks[axis] * p->block[axis];
        b.hi[axis] = lc_min(b.lo[axis] + p->block[axis], g->output[axis]);
        lc_input_box(g, axis, b.lo[axis], b.hi[axis], b.from + axis, b.extent + axis);
        b.origin[axis] = packed ? b.from[axis] : 0;
        b.elements *= b.extent[axis];
        index /= p->blocks[axis];
    }
    b.elements = lc_box_stride(b.elements, (ptrdiff_t)sizeof(LC_REAL));
    b.strips = (lc_strip *)workspace;
    b.at = packed ? LC_NAME(pixel_layout)(g, b.extent, 1) : lc_input_layout(g);
    b.way = lc_strips_of(g, &b.at, g->channels_first);
    t.runs = &batch;
    t.run_count = 1;
    t.row_stride = b.way.input_step;
    t.row_step = packed ? b.elements : g->input_batch;
    for (ptrdiff_t first = 0; first < g->batch; first += p->batch_chunk) {
        const ptrdiff_t images = lc_min(p->batch_chunk, g->batch - first);
        batch.n = images;
        t.rows = packed ? box : (const LC_REAL *)c->input + first * g->input_batch;
        t.accumulate = c->accumulate || first > 0;
        if (packed) LC_NAME(copy_box)(c, &b, first, images, box);
        for (ptrdiff_t i = b.lo[0]; i < b.hi[0]; ++i)
            for (ptrdiff_t j = b.lo[1]; j < b.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                LC_NAME(kernel_gradient_line)(c, p, &b, line, panels, first, images, stage, &t);
            }
    }
}

/* -------------------------------------------------------------------------------------------------------------- for the input */

/* Adds to `count` <= LANES values, `out_step` apart, the dot products of as many kernel rows, `stride` apart, with `n` gradients. */
LC_INLINE void LC_NAME(dot_rows)(const LC_REAL *rows, ptrdiff_t stride, ptrdiff_t count, const LC_REAL *gradient, ptrdiff_t n,
                                 LC_REAL *out, ptrdiff_t out_step, int fetch) {
    LC_VEC acc[LC_LANES];
    const LC_REAL *row[LC_LANES];
    ptrdiff_t f = 0;
    LC_UNROLL for (int r = 0; r < LC_LANES; ++r) {
        acc[r] = LC_NAME(zero)();
        row[r] = rows + lc_min(r, count - 1) * stride; /* rows that are not there repeat the last one, and are not stored */
    }
    for (; f + LC_LANES <= n; f += LC_LANES) {
        const LC_VEC x = LC_NAME(load)(gradient + f);
        LC_UNROLL for (int r = 0; r < LC_LANES; ++r) acc[r] = LC_NAME(fma)(LC_NAME(load)(row[r] + f), x, acc[r]);
    }
    if (f < n) {
        const LC_MASK tail = LC_NAME(first)(n - f);
        const LC_VEC x = LC_NAME(load_first)(gradient + f, tail);
        LC_UNROLL for (int r = 0; r < LC_LANES; ++r) acc[r] = LC_NAME(fma)(LC_NAME(load_first)(row[r] + f, tail), x, acc[r]);
    }
    if (fetch)
        for (ptrdiff_t r = 2 * LC_LANES; r < 2 * LC_LANES + count; ++r)
            for (ptrdiff_t i = 0; i < n; i += 64 / (ptrdiff_t)sizeof(LC_REAL)) LC_PREFETCH_L1(rows + r * stride + i);
    const LC_VEC sums = LC_NAME(sums)(acc);
    if (out_step == 1) {
        const LC_MASK there = LC_NAME(first)(count);
        LC_NAME(store_first)(out, there, LC_NAME(add)(LC_NAME(load_first)(out, there), sums));
        return;
    }
    LC_REAL sum[LC_LANES];
    LC_NAME(store)(sum, sums);
    for (ptrdiff_t r = 0; r < count; ++r) out[r * out_step] += sum[r];
}

/* One position for images first .. first+images-1, one after the other; gradient: of the first, contiguous over the filters. */
LC_NOINLINE void LC_NAME(input_gradient_placed)(const lc_call *c, const LC_NAME(gradient_place) *b, ptrdiff_t position, ptrdiff_t first,
                                                ptrdiff_t images, const LC_REAL *gradient, ptrdiff_t gradient_image) {
    const lc_geometry *g = c->geometry;
    LC_REAL *inputs = (LC_REAL *)c->output + first * g->input_batch + b->window;
    const ptrdiff_t stride = b->way.row_step * g->filters;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t s = 0; s < b->strip_count; ++s) {
            const LC_REAL *kernel = (const LC_REAL *)c->kernel + (position * g->depth + b->strips[s].row) * g->filters + group * g->group_filters;
            LC_REAL *out = inputs + b->strips[s].input + group * g->group_channels * b->at.channel;
            for (ptrdiff_t row = 0; row < b->strips[s].n; row += LC_LANES)
                for (ptrdiff_t image = 0; image < images; ++image)
                    LC_NAME(dot_rows)(kernel + row * stride, stride, lc_min(LC_LANES, b->strips[s].n - row),
                                      gradient + image * gradient_image + group * g->group_filters, g->group_filters,
                                      out + image * g->input_batch + row * b->way.input_step, b->way.input_step, image == 0);
        }
}

/* One position for the images of one chunk, side by side. gradient: [tile][filter][image]. */
LC_NOINLINE void LC_NAME(input_gradient_boxed)(const lc_call *c, const lc_gradient_plan *p, const LC_NAME(gradient_place) *b,
                                               ptrdiff_t position, ptrdiff_t images, const LC_REAL *gradient, ptrdiff_t gradient_tile,
                                               LC_REAL *box, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int limit = LC_NAME(rows_limit)(p->vectors);
    const ptrdiff_t next = lc_min(position + 1, g->positions - 1);
    t->rows = (const LC_REAL *)c->kernel + position * g->depth * g->filters;
    t->row_stride = b->way.row_step * g->filters;
    t->out_stride = b->way.input_step;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t s = 0; s < b->strip_count; ++s) {
            const lc_strip *strip = b->strips + s;
            const ptrdiff_t parts = lc_ceil_div(strip->n, limit);
            for (ptrdiff_t i = 0, row = 0, end; i < parts; ++i, row = end) {
                end = lc_share(strip->n, parts, i + 1);
                t->rows_base = (strip->row + row * b->way.row_step) * g->filters + group * g->group_filters;
                t->prefetch = (const char *)((const LC_REAL *)c->kernel + next * g->depth * g->filters + t->rows_base);
                t->prefetch_step = (end - row) * (ptrdiff_t)sizeof(LC_REAL); /* as many bytes as the tile's own rows */
                for (ptrdiff_t tile = 0; tile * p->batch_tile < images; ++tile) {
                    const int vectors = LC_NAME(vectors_for)(lc_min(p->batch_tile, images - tile * p->batch_tile));
                    t->lane_count = (ptrdiff_t)vectors * LC_LANES;
                    t->lanes = gradient + tile * gradient_tile + group * g->group_filters * p->batch_tile;
                    t->out = box + tile * b->elements * p->batch_tile + b->window + strip->input + row * b->way.input_step +
                             group * g->group_channels * b->at.channel;
                    LC_NAME(run_tile)(t, (int)(end - row), vectors);
                    t->prefetch_step = 0;
                }
            }
        }
}

/* The output gradient of `count` positions with the images side by side: [tile][position][filter][image]. */
LC_NOINLINE void LC_NAME(interleave_gradient)(const lc_call *c, const lc_gradient_plan *p, ptrdiff_t position, ptrdiff_t count,
                                              ptrdiff_t first, ptrdiff_t images, LC_REAL *target) {
    const lc_geometry *g = c->geometry;
    for (ptrdiff_t image = 0; image < images; image += p->batch_tile, target += count * g->filters * p->batch_tile) {
        const LC_REAL *source = (const LC_REAL *)c->gradient + (first + image) * g->output_batch + position * g->output_stride[2];
        const ptrdiff_t wide = lc_min(p->batch_tile, images - image);
        if (g->channels_first)
            for (ptrdiff_t f = 0; f < g->filters; ++f)
                LC_NAME(transpose_copy)(source + f * g->positions, g->output_batch, wide, count, target + f * p->batch_tile,
                                        g->filters * p->batch_tile, 1);
        else
            LC_NAME(transpose_copy)(source, g->output_batch, wide, count * g->filters, target, p->batch_tile, 1);
    }
}

/* The box of input gradients to the caller's array. */
LC_NOINLINE void LC_NAME(deliver_box)(const lc_call *c, const lc_gradient_plan *p, const LC_NAME(gradient_place) *b, ptrdiff_t first,
                                      ptrdiff_t images, const LC_REAL *box) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t outer = g->channels_first ? b->extent[2] : 1, length = g->channels_first ? g->channels : b->extent[2] * g->channels;
    for (ptrdiff_t image = 0; image < images; image += p->batch_tile)
        for (ptrdiff_t i = b->from[0]; i < b->from[0] + b->extent[0]; ++i)
            for (ptrdiff_t j = b->from[1]; j < b->from[1] + b->extent[1]; ++j)
                for (ptrdiff_t k = 0; k < outer; ++k, box += length * p->batch_tile) {
                    LC_REAL *out = (LC_REAL *)c->output + (first + image) * g->input_batch + i * g->input_stride[0] +
                                   j * g->input_stride[1] + (b->from[2] + k) * g->input_stride[2];
                    const ptrdiff_t wide = lc_min(p->batch_tile, images - image);
                    if (!g->channels_first)
                        LC_NAME(transpose_copy)(box, p->batch_tile, length, wide, out, g->input_batch, 0);
                    else
                        for (ptrdiff_t channel = 0; channel < length; ++channel)
                            for (ptrdiff_t n = 0; n < wide; ++n)
                                out[n * g->input_batch + channel * g->input_channel] = box[channel * p->batch_tile + n];
                }
}

/* Sets the block's pixels in the caller's array to 0. */
LC_NOINLINE void LC_NAME(clear_block)(const lc_call *c, const LC_NAME(gradient_place) *b) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t outer = g->channels_first ? g->channels : 1, length = b->extent[2] * (g->channels_first ? 1 : g->channels);
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t channel = 0; channel < outer; ++channel)
            for (ptrdiff_t i = b->from[0]; i < b->from[0] + b->extent[0]; ++i)
                for (ptrdiff_t j = b->from[1]; j < b->from[1] + b->extent[1]; ++j)
                    memset((LC_REAL *)c->output + image * g->input_batch + channel * g->input_channel + i * g->input_stride[0] +
                               j * g->input_stride[1] + b->from[2] * g->input_stride[2],
                           0, (size_t)length * sizeof(LC_REAL));
}

/* A line of the positions whose windows touch the block. */
LC_NOINLINE void LC_NAME(input_gradient_line)(const lc_call *c, const lc_gradient_plan *p, LC_NAME(gradient_place) *b,
                                              const ptrdiff_t line[2], ptrdiff_t first, ptrdiff_t images, char *workspace, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int placed = p->strategy == LC_GRADIENT_PLACED;
    const ptrdiff_t origin = (line[0] * g->output[1] + line[1]) * g->output[2];
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    for (ptrdiff_t k = b->lo[2]; k < b->hi[2]; k += p->segment) {
        const ptrdiff_t count = lc_min(p->segment, b->hi[2] - k), position = origin + k;
        if (!placed)
            LC_NAME(interleave_gradient)(c, p, position, count, first, images, stage);
        else if (g->channels_first)
            LC_NAME(copy_gradient)(c, position, count, first, images, stage, count * g->filters);
        for (ptrdiff_t i = 0; i < count; ++i) {
            const ptrdiff_t index[3] = {line[0], line[1], k + i};
            LC_NAME(move_to)(g, index, b);
            if (!placed)
                LC_NAME(input_gradient_boxed)(c, p, b, position + i, images, stage + i * g->filters * p->batch_tile,
                                              count * g->filters * p->batch_tile, (LC_REAL *)(workspace + p->box_at), t);
            else if (g->channels_first)
                LC_NAME(input_gradient_placed)(c, b, position + i, first, images, stage + i * g->filters, count * g->filters);
            else
                LC_NAME(input_gradient_placed)(c, b, position + i, first, images, (const LC_REAL *)c->gradient + first * g->output_batch +
                                               (position + i) * g->filters, g->output_batch);
        }
    }
}

LC_NOINLINE void LC_NAME(local_gradient_input_task)(const lc_call *c, const lc_gradient_plan *p, ptrdiff_t task, char *workspace) {
    const lc_geometry *g = c->geometry;
    const int placed = p->strategy == LC_GRADIENT_PLACED;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    LC_NAME(gradient_place) b;
    lc_run filters = {0, 0, g->group_filters};
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&b, 0xff, sizeof b); /* no clip is the first one */
    memset(&t, 0, sizeof t);
    b.elements = g->channels;
    for (int axis = 2; axis >= 0; --axis) {
        b.from[axis] = task % p->blocks[axis] * p->block[axis];
        b.extent[axis] = lc_min(p->block[axis], g->input[axis] - b.from[axis]);
        const lc_range touching = lc_positions_at(g, axis, b.from[axis], b.from[axis] + b.extent[axis]);
        b.lo[axis] = touching.lo;
        b.hi[axis] = touching.hi;
        b.origin[axis] = placed ? 0 : b.from[axis];
        b.elements *= b.extent[axis];
        task /= p->blocks[axis];
    }
    b.strips = (lc_strip *)workspace;
    b.at = placed ? lc_input_layout(g) : LC_NAME(pixel_layout)(g, b.extent, p->batch_tile);
    b.way = lc_strips_of(g, &b.at, g->channels_first);
    t.runs = &filters;
    t.run_count = 1;
    t.row_step = 1;
    t.lane_step = p->batch_tile;
    t.accumulate = 1;
    if (placed) LC_NAME(clear_block)(c, &b);
    for (ptrdiff_t first = 0; first < g->batch; first += p->batch_chunk) {
        const ptrdiff_t images = lc_min(p->batch_chunk, g->batch - first), tiles = lc_ceil_div(images, p->batch_tile);
        if (!placed) memset(box, 0, (size_t)(tiles * b.elements * p->batch_tile) * sizeof(LC_REAL));
        for (ptrdiff_t i = b.lo[0]; i < b.hi[0]; ++i)
            for (ptrdiff_t j = b.lo[1]; j < b.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                LC_NAME(input_gradient_line)(c, p, &b, line, first, images, workspace, &t);
            }
        if (!placed) LC_NAME(deliver_box)(c, p, &b, first, images, box);
    }
}
