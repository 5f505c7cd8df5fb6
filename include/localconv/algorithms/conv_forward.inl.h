/* The bodies of conv_forward.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Packs some taps of a panel; or sets the pixels of an image to 0, of which no phase has some. */
LC_NOINLINE void conv_pack(LC_TASK_ARGUMENTS) {
    const lc_conv_plan *p = LC_CONST_PLAN(lc_conv_plan, job);
    if (task >= p->first_clear) {
        if (task == 0) sign(c->ran); /* there may be no phase at all, and nothing but this */
        const ptrdiff_t size = job->geometry.x.image;
        memset((LC_REAL *)c->result + (task - p->first_clear) * size, 0, (size_t)size * sizeof(LC_REAL));
        return;
    }
    const lc_part *part = lc_find_part(p, task, 1);
    const lc_geometry *g = &part->geometry;
    const ptrdiff_t index = (task - part->first_pack) / part->pack_parts,
                    share = (task - part->first_pack) % part->pack_parts;
    const ptrdiff_t end = lc_share(g->taps, part->pack_parts, share + 1);
    const lc_panel panel = lc_find_panel(g, p->panel_width, index);
    const ptrdiff_t size = lc_kernel_size(job);
    LC_REAL *packed = (LC_REAL *)shared + part->packed_at + index * g->window * p->panel_width;
    const ptrdiff_t row_tap = g->along_taps ? 1 : g->group_channels, row_channel = g->along_taps ? g->taps : 1;
    for (ptrdiff_t tap = lc_share(g->taps, part->pack_parts, share); tap < end; ++tap) {
        const ptrdiff_t channel = row_channel * p->panel_width;
        const lc_tap_block block = lc_find_tap(job, p, part, &panel, tap);
        const char *source = (const char *)c->kernel + block.first * size;
        LC_REAL *target = packed + tap * row_tap * p->panel_width;
        if (job->storage == LC_native) {
            move((const LC_REAL *)source, target,
                 lc_copy_plane(g->group_channels, p->by_filters ? 1 : block.stride, channel, panel.count,
                               p->by_filters ? block.stride : 1, 1));
            continue;
        }
        /* In the caller's order a panel's filters lie side by side; where they are rows, some columns at a time are
         * widened before they change places. */
        const ptrdiff_t together = p->by_filters ? LC_WIDENED_COLUMNS : block.columns;
        for (ptrdiff_t from = 0; from < block.columns; from += together) {
            const ptrdiff_t count = lc_min(together, block.columns - from);
            LC_REAL *widened = p->by_filters ? (LC_REAL *)(workspace + p->kernel_at) : target;
            widen(job->storage, source + from * size, block.stride, block.rows, count,
                  lc_scales_from(c, block.scale + from), widened, p->by_filters ? count : channel);
            if (p->by_filters)
                move(widened, target + from * channel, lc_copy_plane(count, 1, channel, panel.count, count, 1));
        }
    }
}

/* One register tile. */
LC_INLINE void conv_tile(const lc_conv_work *work, const lc_zone *z, const lc_conv_rows *at, const lc_panel *panel,
                         lc_tile *t) {
    const lc_geometry *g = &work->part->geometry;
    const int vectors = vectors_for(panel->count);
    const ptrdiff_t spacing = lc_output_spacing(g, z);
    LC_REAL *out =
        (LC_REAL *)work->result + at->image * g->y.image + panel->first * g->y.channel + lc_offset(&g->y, at->index);
    t->row_base = at->image * g->x.image + panel->group * g->group_channels * g->x.channel +
                  lc_window_at(g, &g->x, at->index, NULL);
    if (g->y.channel == 1) {
        t->out = out;
        t->out_stride = spacing;
        run_tile(t, (int)at->rows, vectors);
        return;
    }
    t->out = work->stage;
    t->out_stride = vectors * LC_LANES;
    run_tile(t, (int)at->rows, vectors);
    move((const LC_REAL *)work->stage, out,
         lc_copy_plane(at->rows, t->out_stride, spacing, panel->count, 1, g->y.channel));
}

/* Tiles first .. last-1 of zone z (counted in the zone), panels from .. to-1. */
LC_NOINLINE void conv_zone(const lc_conv_work *work, const lc_zone *z, const ptrdiff_t first, const ptrdiff_t last,
                           const ptrdiff_t from, const ptrdiff_t to, lc_tile *t) {
    const lc_geometry *g = &work->part->geometry;
    for (ptrdiff_t start = first; start < last; start += work->tile_block)
        for (ptrdiff_t index = from; index < to; ++index) {
            const lc_panel panel = lc_find_panel(g, work->panel_width, index);
            const ptrdiff_t end = lc_min(last, start + work->tile_block);
            t->vector = (const LC_REAL *)work->kernel + index * g->window * work->panel_width;
            t->lane_count = panel.count;
            t->bias = work->bias ? (const LC_REAL *)work->bias + panel.first : NULL;
            lc_conv_rows at = lc_find_rows(g, z, start);
            for (ptrdiff_t tile = start; tile < end; ++tile, lc_next_rows(z, &at)) conv_tile(work, z, &at, &panel, t);
        }
}

/* Task: part `task % tile_parts` of a part's tiles for part `task / tile_parts` of its panels. */
LC_NOINLINE void conv_tiles(LC_TASK_ARGUMENTS) {
    const lc_conv_plan *p = LC_CONST_PLAN(lc_conv_plan, job);
    const lc_part *part = lc_find_part(p, task, 0);
    const lc_geometry *g = &part->geometry;
    const ptrdiff_t tiles = (task - part->first_task) % part->tile_parts,
                    panels = (task - part->first_task) / part->tile_parts;
    const ptrdiff_t first = lc_share(part->tiles, part->tile_parts, tiles),
                    last = lc_share(part->tiles, part->tile_parts, tiles + 1);
    const ptrdiff_t from = lc_share(p->panels, part->panel_parts, panels),
                    to = lc_share(p->panels, part->panel_parts, panels + 1);
    lc_run *runs = (lc_run *)workspace;
    lc_conv_work work;
    lc_tile t;
    memset(&t, 0, sizeof t);
    if (task == 0) sign(c->ran);
    work.part = part;
    work.kernel = p->in_place ? (const LC_REAL *)c->kernel : (const LC_REAL *)shared + part->packed_at;
    work.result = (LC_REAL *)c->result + part->origin;
    work.stage = workspace + p->stage_at;
    work.bias = c->bias;
    work.panel_width = p->panel_width;
    work.tile_block = job->choices.tile_block;
    t.runs = runs;
    t.row_data = job->algorithm == LC_conv_direct ? c->input : c->gradient;
    t.row_step = lc_run_step(g, &g->x);
    t.vector_step = p->in_place ? g->filters : p->panel_width;
    t.relu = c->relu;
    t.channel_lanes = g->channel_lanes;
    t.bias_axis = c->bias ? LC_BIAS_LANES : LC_BIAS_NONE;
    for (ptrdiff_t i = 0; i < part->zone_count; ++i) {
        const lc_zone *z = part->zones + i;
        const ptrdiff_t lo = lc_max(first, z->first_piece), hi = lc_min(last, z->last_piece);
        if (lo >= hi) continue;
        t.row_stride = lc_input_spacing(g, z);
        t.run_count = lc_build_runs(g, &g->x, z->clip, t.vector_step, 0, g->window, runs);
        conv_zone(&work, z, lo - z->first_piece, hi - z->first_piece, from, to, &t);
    }
}
