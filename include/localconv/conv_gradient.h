/* Gradient of a shared convolution for the kernel: a reduction over all positions of all images. (Body: included once per instance.)
 *
 * Rows of a register tile are window elements, lanes filters; it sums over a block of at most LC_BLOCK_STEPS output positions, lines
 * of a zone (plan.h), and adds that to a partial gradient in memory. A task has a part of the blocks and a slice of the kernel. Parts
 * follow from the geometry alone and their partial gradients are added in order, so the number of threads changes nothing; and no
 * float32 sum has more terms than a block has positions, a part blocks, or the kernel parts.
 *
 * The gradient for the input needs no kernel of its own: it is a convolution of the output gradient (conv_forward.h), a phase of the
 * strides at a time.
 */

/* A slice of the kernel, and the partial gradient it belongs to. */
typedef struct {
    ptrdiff_t first_panel, last_panel, first_row, last_row;
    LC_REAL *partial;
} LC_NAME(kernel_slice);

/* The lines of one block: `count` of them, all `steps` long, as the runs of register tiles. */
typedef struct {
    ptrdiff_t count, steps;
    lc_run *runs;
} LC_NAME(block_lines);

/* Offsets in the input and in the output gradient of line `line` of a zone, from step `first` of it on. */
LC_INLINE lc_run LC_NAME(zone_line)(const lc_geometry *g, const lc_zone *z, ptrdiff_t line, ptrdiff_t first, ptrdiff_t steps) {
    lc_run run = {0, 0, steps};
    for (int a = 2; a >= -1; --a) { /* width fastest, then height, depth, batch */
        const int axis = a < 0 ? 3 : a;
        const ptrdiff_t extent = axis == z->axis ? 1 : axis == 3 ? g->batch : z->count[axis];
        const ptrdiff_t index = axis == z->axis ? first : line % extent, start = axis == 3 ? 0 : z->start[axis];
        line /= extent;
        if (axis == 3) {
            run.rows += index * g->input_batch;
            run.lanes += index * g->output_batch;
        } else {
            run.rows += ((start + index) * g->strides[axis] - g->before[axis]) * g->input_stride[axis];
            run.lanes += (start + index) * g->output_stride[axis];
        }
    }
    return run;
}

LC_NOINLINE void LC_NAME(find_lines)(const lc_geometry *g, const lc_zone *z, ptrdiff_t block, LC_NAME(block_lines) *lines) {
    const ptrdiff_t along = lc_zone_along(g, z), all = lc_zone_lines(g, z), together = lc_max(1, LC_BLOCK_STEPS / along);
    const ptrdiff_t start = block / z->tiles_along * together, segment = block % z->tiles_along;
    const ptrdiff_t first = lc_share(along, z->tiles_along, segment), last = lc_share(along, z->tiles_along, segment + 1);
    lines->count = lc_min(together, all - start);
    lines->steps = last - first;
    for (ptrdiff_t i = 0; i < lines->count; ++i) lines->runs[i] = LC_NAME(zone_line)(g, z, start + i, first, last - first);
}

/* Copies a panel's output gradients to [line][step][filter] and lets the runs read them there. */
LC_NOINLINE void LC_NAME(pack_gradient)(const lc_call *c, const lc_zone *z, const LC_NAME(block_lines) *lines, ptrdiff_t filter,
                                        ptrdiff_t count, ptrdiff_t width, LC_REAL *target, lc_run *runs) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t step = z->axis == 3 ? g->output_batch : g->output_stride[z->axis];
    for (ptrdiff_t i = 0; i < lines->count; ++i) {
        const LC_REAL *source = (const LC_REAL *)c->gradient + lines->runs[i].lanes + filter * g->output_channel;
        LC_REAL *line = target + i * lines->steps * width;
        runs[i] = lines->runs[i];
        runs[i].lanes = i * lines->steps * width;
        if (g->output_channel == 1)
            for (ptrdiff_t s = 0; s < lines->steps; ++s) memcpy(line + s * width, source + s * step, (size_t)count * sizeof(LC_REAL));
        else if (step == 1)
            LC_NAME(transpose_copy)(source, g->output_channel, count, lines->steps, line, width, 0);
        else
            for (ptrdiff_t s = 0; s < lines->steps; ++s)
                for (ptrdiff_t f = 0; f < count; ++f) line[s * width + f] = source[s * step + f * g->output_channel];
    }
}

/* One block for one panel: adds its products to the slice's partial gradient. */
LC_NOINLINE void LC_NAME(reduce_block)(const lc_call *c, const LC_NAME(kernel_slice) *slice, const LC_NAME(conv_panel) *panel,
                                       const lc_strips *way, const lc_strip *strips, ptrdiff_t strip_count, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int limit = LC_NAME(rows_limit)(panel->vectors);
    const ptrdiff_t group = panel->group * g->group_channels * g->input_channel;
    for (ptrdiff_t s = 0; s < strip_count; ++s) {
        const lc_strip *strip = strips + s;
        const ptrdiff_t from = lc_max(0, lc_ceil_div(lc_max(0, slice->first_row - strip->row), way->row_step));
        const ptrdiff_t to = lc_min(strip->n, lc_ceil_div(lc_max(0, slice->last_row - strip->row), way->row_step));
        const ptrdiff_t tiles = lc_ceil_div(lc_max(0, to - from), limit);
        for (ptrdiff_t i = 0, row = from, end; i < tiles; ++i, row = end) {
            end = from + lc_share(to - from, tiles, i + 1);
            t->rows_base = strip->input + row * way->input_step + group;
            t->prefetch = (const char *)((const LC_REAL *)t->rows + t->rows_base + t->runs[0].rows + LC_AHEAD_STEPS * t->row_step);
            t->out = slice->partial + (strip->row + row * way->row_step) * g->filters + panel->first;
            LC_NAME(run_tile)(t, (int)(end - row), panel->vectors);
        }
    }
}

/* Blocks first .. last-1 of zone z, counted in the zone. */
LC_NOINLINE void LC_NAME(reduce_zone)(const lc_call *c, const lc_reduction_plan *p, const lc_zone *z, ptrdiff_t first, ptrdiff_t last,
                                      const LC_NAME(kernel_slice) *slice, char *workspace, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const lc_layout at = lc_input_layout(g);
    const lc_strips way = lc_strips_of(g, &at, 0);
    lc_strip *strips = (lc_strip *)workspace;
    lc_run *packed_runs = (lc_run *)(workspace + p->lines_at) + LC_BLOCK_STEPS;
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_NAME(block_lines) lines = {0, 0, (lc_run *)(workspace + p->lines_at)};
    const ptrdiff_t strip_count = lc_build_strips(g, &at, &way, z->clip, strips);
    t->row_stride = way.input_step;
    t->row_step = z->axis == 3 ? g->input_batch : g->strides[z->axis] * g->input_stride[z->axis];
    t->out_stride = way.row_step * g->filters;
    for (ptrdiff_t block = first; block < last; ++block) {
        LC_NAME(find_lines)(g, z, block, &lines);
        t->run_count = lines.count;
        for (ptrdiff_t i = slice->first_panel; i < slice->last_panel; ++i) {
            const LC_NAME(conv_panel) panel = LC_NAME(find_conv_panel)(g, p->panel_width, i);
            t->lane_count = panel.count;
            if (p->pack) {
                LC_NAME(pack_gradient)(c, z, &lines, panel.first, panel.count, p->panel_width, stage, packed_runs);
                t->lanes = stage;
                t->runs = packed_runs;
                t->lane_step = p->panel_width;
            } else {
                t->lanes = (const LC_REAL *)c->gradient + panel.first;
                t->runs = lines.runs;
                t->lane_step = z->axis == 3 ? g->output_batch : g->output_stride[z->axis];
            }
            t->prefetch_step = t->row_step * (ptrdiff_t)sizeof(LC_REAL);
            LC_NAME(reduce_block)(c, slice, &panel, &way, strips, strip_count, t);
        }
    }
}

/* Task: [part of the positions][part of the panels][part of the rows]. partial: of all parts, or NULL: the output is the only one. */
LC_NOINLINE void LC_NAME(conv_gradient_kernel_task)(const lc_call *c, const lc_reduction_plan *p, ptrdiff_t task, void *partial,
                                                    char *workspace) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t rows = task % p->row_parts, panels = task / p->row_parts % p->panel_parts;
    const ptrdiff_t part = task / (p->row_parts * p->panel_parts);
    const ptrdiff_t from = lc_share(p->blocks, p->position_parts, part), to = lc_share(p->blocks, p->position_parts, part + 1);
    LC_NAME(kernel_slice) slice;
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.rows = c->input;
    t.accumulate = 1;
    slice.first_panel = lc_share(p->panels, p->panel_parts, panels);
    slice.last_panel = lc_share(p->panels, p->panel_parts, panels + 1);
    slice.first_row = lc_share(g->depth, p->row_parts, rows);
    slice.last_row = lc_share(g->depth, p->row_parts, rows + 1);
    slice.partial = partial ? (LC_REAL *)partial + part * g->depth * g->filters : (LC_REAL *)c->output;
    if (partial || !c->accumulate) {
        const LC_NAME(conv_panel) last = LC_NAME(find_conv_panel)(g, p->panel_width, slice.last_panel - 1);
        const ptrdiff_t filter = LC_NAME(find_conv_panel)(g, p->panel_width, slice.first_panel).first;
        for (ptrdiff_t row = slice.first_row; row < slice.last_row; ++row)
            memset(slice.partial + row * g->filters + filter, 0, (size_t)(last.first + last.count - filter) * sizeof(LC_REAL));
    }
    for (ptrdiff_t i = 0; i < p->zone_count; ++i) {
        const lc_zone *z = p->zones + i;
        const ptrdiff_t lo = lc_max(from, z->first_tile), hi = lc_min(to, z->last_tile);
        if (lo < hi) LC_NAME(reduce_zone)(c, p, z, lo - z->first_tile, hi - z->first_tile, &slice, workspace, &t);
    }
}

/* Adds up the partial gradients of all parts, elements first .. last-1 of the kernel. */
LC_NOINLINE void LC_NAME(conv_gradient_kernel_sum)(const lc_call *c, const lc_reduction_plan *p, ptrdiff_t first, ptrdiff_t last,
                                                   const void *partial) {
    const ptrdiff_t size = c->geometry->depth * c->geometry->filters;
    for (ptrdiff_t i = first; i < last; i += LC_LANES) {
        const LC_MASK there = LC_NAME(first)(lc_min(last - i, LC_LANES));
        LC_REAL *out = (LC_REAL *)c->output + i;
        LC_VEC sum = LC_NAME(load_first)((const LC_REAL *)partial + i, there);
        for (ptrdiff_t part = 1; part < p->position_parts; ++part)
            sum = LC_NAME(add)(sum, LC_NAME(load_first)((const LC_REAL *)partial + part * size + i, there));
        if (c->accumulate) sum = LC_NAME(add)(LC_NAME(load_first)(out, there), sum);
        LC_NAME(store_first)(out, there, sum);
    }
}
