/* Shared convolution forward, direct: an implicit matrix product without im2col. (Body: included once per instance.)
 *
 * Rows of a register tile are output positions along one axis, a constant stride apart in the input, which is read in place;
 * lanes are filters. The kernel is packed once a call into panels [panel][row of the kernel][filter], rows in the order of the
 * runs. Zones (plan.h) are the rectangles of positions that padding clips alike: the interior, and the borders around it.
 */

/* A panel's group, its filters first .. first+count-1 (a group's last panel may have fewer than panel_width). */
typedef struct {
    ptrdiff_t group, first, count;
    int vectors;
} LC_NAME(conv_panel);

LC_INLINE LC_NAME(conv_panel) LC_NAME(find_conv_panel)(const lc_geometry *g, ptrdiff_t panel_width, ptrdiff_t index) {
    const ptrdiff_t per_group = lc_ceil_div(g->group_filters, panel_width), inside = index % per_group * panel_width;
    LC_NAME(conv_panel) panel;
    panel.group = index / per_group;
    panel.first = panel.group * g->group_filters + inside;
    panel.count = lc_min(panel_width, g->group_filters - inside);
    panel.vectors = LC_NAME(vectors_for)(panel.count);
    return panel;
}

/* Packs taps of a panel of a transposed kernel: part `task % parts` of panel `task / parts`. Its rows are the caller's filters. */
LC_NOINLINE void LC_NAME(conv_pack_transposed)(const lc_call *c, const lc_conv_plan *p, ptrdiff_t task, ptrdiff_t parts, void *packed) {
    const lc_geometry *g = p->geometry;
    const lc_taps *taps = &p->taps;
    const LC_NAME(conv_panel) panel = LC_NAME(find_conv_panel)(g, p->panel_width, task / parts);
    const ptrdiff_t row = (g->along_taps ? g->taps : 1) * p->panel_width, end = lc_share(g->taps, parts, task % parts + 1);
    for (ptrdiff_t tap = lc_share(g->taps, parts, task % parts); tap < end; ++tap) {
        const ptrdiff_t index[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
        ptrdiff_t from = 0;
        for (int axis = 0; axis < 3; ++axis)
            from = from * taps->kernel[axis] + taps->first[axis] + (g->kernel[axis] - 1 - index[axis]) * taps->step[axis];
        const LC_REAL *source = (const LC_REAL *)c->kernel + (from * g->group_filters + panel.first - panel.group * g->group_filters) * g->channels +
                                panel.group * g->group_channels;
        LC_REAL *target = (LC_REAL *)packed + (task / parts * g->depth + tap * (g->along_taps ? 1 : g->group_channels)) * p->panel_width;
        LC_NAME(transpose_copy)(source, g->channels, panel.count, g->group_channels, target, row, 1);
    }
}

/* Packs rows of a panel: part `task % parts` of panel `task / parts`. */
LC_NOINLINE void LC_NAME(conv_pack)(const lc_call *c, const lc_conv_plan *p, ptrdiff_t task, ptrdiff_t parts, void *packed) {
    const lc_geometry *g = p->geometry;
    if (p->taps.transposed) {
        LC_NAME(conv_pack_transposed)(c, p, task, parts, packed);
        return;
    }
    const LC_NAME(conv_panel) panel = LC_NAME(find_conv_panel)(g, p->panel_width, task / parts);
    const ptrdiff_t width = p->panel_width, end = lc_share(g->depth, parts, task % parts + 1);
    for (ptrdiff_t row = lc_share(g->depth, parts, task % parts); row < end; ++row) {
        const ptrdiff_t source_row = g->along_taps ? row % g->taps * g->group_channels + row / g->taps : row;
        const LC_REAL *source = (const LC_REAL *)c->kernel + source_row * g->filters + panel.first;
        LC_REAL *target = (LC_REAL *)packed + (task / parts * g->depth + row) * width;
        memcpy(target, source, (size_t)panel.count * sizeof(LC_REAL));
        memset(target + panel.count, 0, (size_t)(width - panel.count) * sizeof(LC_REAL));
    }
}

/* A tile's place in its zone: spatial output index of its first row, its first image, its rows. */
typedef struct {
    ptrdiff_t index[3], image, rows;
} LC_NAME(tile_place);

LC_INLINE LC_NAME(tile_place) LC_NAME(find_tile)(const lc_geometry *g, const lc_zone *z, ptrdiff_t tile) {
    LC_NAME(tile_place) at;
    ptrdiff_t coordinate[4];
    for (int axis = 2; axis >= -1; --axis) { /* width fastest, then height, depth, batch */
        const int a = axis < 0 ? 3 : axis;
        const ptrdiff_t extent = a == z->axis ? z->tiles_along : a == 3 ? g->batch : z->count[a];
        coordinate[a] = tile % extent;
        tile /= extent;
    }
    const ptrdiff_t along = z->axis == 3 ? g->batch : z->count[z->axis], i = coordinate[z->axis];
    coordinate[z->axis] = lc_share(along, z->tiles_along, i);
    at.rows = lc_share(along, z->tiles_along, i + 1) - coordinate[z->axis];
    for (int axis = 0; axis < 3; ++axis) at.index[axis] = z->start[axis] + coordinate[axis];
    at.image = coordinate[3];
    return at;
}

/* One register tile: the positions of `at`, the filters of `panel`. */
LC_INLINE void LC_NAME(conv_tile)(const lc_call *c, const lc_conv_plan *p, const lc_zone *z, const LC_NAME(tile_place) *at,
                                  const LC_NAME(conv_panel) *panel, LC_REAL *stage, lc_tile *t) {
    const lc_geometry *g = p->geometry;
    LC_REAL *out = (LC_REAL *)c->output + g->output_origin + at->image * g->output_batch + panel->first * g->output_channel;
    const ptrdiff_t spacing = z->axis == 3 ? g->output_batch : g->output_stride[z->axis];
    t->rows_base = at->image * g->input_batch + panel->group * g->group_channels * g->input_channel;
    for (int axis = 0; axis < 3; ++axis) {
        t->rows_base += (at->index[axis] * g->strides[axis] - g->before[axis]) * g->input_stride[axis];
        out += at->index[axis] * g->output_stride[axis];
    }
    if (g->output_channel == 1) {
        t->out = out;
        t->out_stride = spacing;
        LC_NAME(run_tile)(t, (int)at->rows, panel->vectors);
        return;
    }
    t->out = stage;
    t->out_stride = panel->vectors * LC_LANES;
    LC_NAME(run_tile)(t, (int)at->rows, panel->vectors);
    if (spacing == 1)
        LC_NAME(transpose_copy)(stage, t->out_stride, at->rows, panel->count, out, g->output_channel, 0);
    else
        for (ptrdiff_t f = 0; f < panel->count; ++f)
            for (ptrdiff_t r = 0; r < at->rows; ++r) out[f * g->output_channel + r * spacing] = stage[r * t->out_stride + f];
}

/* Filters from one row of the kernel to the next, packed or in place. */
LC_INLINE ptrdiff_t LC_NAME(kernel_width)(const lc_geometry *g, const lc_conv_plan *p) { return p->pack ? p->panel_width : g->filters; }

/* Tiles first .. last-1 of zone z (counted in the zone), panels from .. to-1. */
LC_NOINLINE void LC_NAME(conv_zone)(const lc_call *c, const lc_conv_plan *p, const lc_zone *z, const ptrdiff_t first,
                                    const ptrdiff_t last, const ptrdiff_t from, const ptrdiff_t to, const LC_REAL *kernel,
                                    LC_REAL *stage, lc_tile *t) {
    const lc_geometry *g = p->geometry;
    for (ptrdiff_t start = first; start < last; start += p->tile_block)
        for (ptrdiff_t index = from; index < to; ++index) {
            const LC_NAME(conv_panel) panel = LC_NAME(find_conv_panel)(g, p->panel_width, index);
            const ptrdiff_t end = lc_min(last, start + p->tile_block);
            t->lanes = kernel + index * g->depth * p->panel_width;
            t->lane_count = panel.count;
            t->bias = c->bias ? (const LC_REAL *)c->bias + panel.first : NULL;
            t->prefetch = (const char *)t->lanes + LC_AHEAD_STEPS * t->prefetch_step;
            for (ptrdiff_t tile = start; tile < end; ++tile) {
                const LC_NAME(tile_place) at = LC_NAME(find_tile)(g, z, tile);
                LC_NAME(conv_tile)(c, p, z, &at, &panel, stage, t);
            }
        }
}

/* Task: part `task % tile_parts` of the tiles for part `task / tile_parts` of the panels. kernel: packed, or in place. */
LC_NOINLINE void LC_NAME(conv_task)(const lc_call *c, const lc_conv_plan *p, ptrdiff_t task, const void *kernel, char *workspace) {
    const lc_geometry *g = p->geometry;
    const ptrdiff_t tiles = task % p->tile_parts, panels = task / p->tile_parts;
    const ptrdiff_t first = lc_share(p->tiles, p->tile_parts, tiles), last = lc_share(p->tiles, p->tile_parts, tiles + 1);
    const ptrdiff_t from = lc_share(p->panels, p->panel_parts, panels), to = lc_share(p->panels, p->panel_parts, panels + 1);
    const lc_layout at = lc_input_layout(g);
    lc_run *runs = (lc_run *)workspace;
    lc_tile t;
    memset(&t, 0, sizeof t);
    if (task == 0 && g == c->geometry) LC_NAME(sign)(c->ran); /* of several phases the first signs for all */
    t.runs = runs;
    t.rows = c->input;
    t.row_step = lc_run_step(g, &at);
    t.lane_step = LC_NAME(kernel_width)(g, p);
    t.prefetch_step = t.lane_step * (ptrdiff_t)sizeof(LC_REAL);
    t.relu = c->relu;
    t.bias_axis = c->bias ? LC_BIAS_LANES : LC_BIAS_NONE;
    for (ptrdiff_t i = 0; i < p->zone_count; ++i) {
        const lc_zone *z = p->zones + i;
        const ptrdiff_t lo = lc_max(first, z->first_tile), hi = lc_min(last, z->last_tile);
        if (lo >= hi) continue;
        t.row_stride = z->axis == 3 ? g->input_batch : g->strides[z->axis] * g->input_stride[z->axis];
        t.run_count = lc_build_runs(g, &at, z->clip, t.lane_step, 0, runs);
        LC_NAME(conv_zone)(c, p, z, lo - z->first_tile, hi - z->first_tile, from, to, (const LC_REAL *)kernel,
                           (LC_REAL *)(workspace + p->stage_at), &t);
    }
}
