/* The bodies of filter_positions.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* ---------------------------------------------------------------------------------------------- the tiles */

/* R channels of V vectors of results. Rows of `pixels` are channels; the filters of a tap serve them all. */
LC_INLINE void filter_lanes_body(const lc_filter_tile *t, const int R, const int V) {
    LC_VEC acc[LC_FILTER_ROWS][LC_TILE_VECTORS];
    const ptrdiff_t size = (ptrdiff_t)sizeof(LC_REAL), row = t->pixel_row * size;
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_UNROLL
        for (int v = 0; v < V; ++v)
            acc[r][v] = t->adds ? v_load((const LC_REAL *)t->out + r * t->out_row + v * LC_LANES) : v_zero();
    }
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const lc_filter_run *run = t->runs + k;
        const ptrdiff_t pixel_step = run->pixel_step * size, tap_step = run->tap_step * size;
        const char *near = (const char *)t->pixels + run->pixel * size, *far = near + 5 * row;
        const char *taps = (const char *)t->taps + run->tap * size;
        LC_OPAQUE(far);
        for (ptrdiff_t i = run->n; i > 0; --i) {
            LC_VEC w[LC_TILE_VECTORS];
            LC_UNROLL
            for (int v = 0; v < V; ++v) w[v] = v_load((const LC_REAL *)taps + v * LC_LANES);
            LC_UNROLL
            for (int r = 0; r < R; ++r) {
                const char *pixels = (r < 5 ? near : far) + (r % 5 == 3 ? 3 * row : r % 5 * row);
                LC_UNROLL
                for (int v = 0; v < V; ++v)
                    acc[r][v] = v_fma(w[v], v_load((const LC_REAL *)pixels + v * LC_LANES), acc[r][v]);
            }
            near += pixel_step, far += pixel_step, taps += tap_step;
        }
    }
    store_rows(t, acc, v_first(LC_LANES), R, V, 1);
}

/* R taps of V vectors of positions, summed over the channels: one run, whose steps are channels. Rows of `pixels` are
 * taps; the gradients of a channel (`taps`) serve them all. */
#define LC_FILTER_LANES(R, V)                                                               \
    LC_NOINLINE void filter_lanes_##R##x##V(const lc_filter_tile *t) {                      \
        if (R > filter_rows(V)) lc_impossible("a filter's tile of a shape without a body"); \
        if (R <= filter_rows(V)) filter_lanes_body(t, R, V);                                \
    }
LC_UP_TO_8(LC_FILTER_LANES, 1)
LC_FILTER_WIDE(LC_FILTER_LANES)
#undef LC_FILTER_LANES

LC_NOINLINE void run_lanes_filter_tile(const lc_filter_tile *t, int rows, int vectors) {
    switch (vectors * 16 + rows) {
#define LC_FILTER_CASE(R, V) \
    case V * 16 + R: filter_lanes_##R##x##V(t); return;
        LC_UP_TO_8(LC_FILTER_CASE, 1)
        LC_FILTER_WIDE(LC_FILTER_CASE)
#undef LC_FILTER_CASE
        default: lc_impossible("a filter's tile of a shape that is not compiled");
    }
}

/* ---------------------------------------------------------------------------------------------- the tasks */

/* The filters of the next strip, a row of memory for each position: some of them are asked for with every tile of this
 * strip, so that memory is read while sums are made. */
typedef struct filters_ahead {
    const char *row;
    ptrdiff_t left, step, bytes, each;
} filters_ahead;

/* A task: its block of results of one image and group; `sources`: the lines of these that it needs, and the source
 * index of the first element of a line. A strip: lines of positions, and the taps whose filters were brought. */
typedef struct positions_block {
    ptrdiff_t image, group, lo[3], hi[3], origin;
    lc_range sources[2];
    lc_layout box; /* of the sources' planes */
    LC_REAL *planes, *filters, *widened, *sums;
    lc_layout to; /* of the sums: where the results go, or of the workspace */
    lc_filter_run *runs;
    ptrdiff_t plane; /* index of a strip along the first axis */
    lc_range lines, taps;
    filters_ahead ahead;
} positions_block;

/* Index `source` of the first element of a line of sources. */
LC_INLINE ptrdiff_t line_origin(const lc_geometry *g, int gradient, ptrdiff_t first) {
    return gradient ? first + g->pad_before[2] - lc_effective_size(g, 2) + 1 : first - g->pad_before[2];
}

/* Planes of a group's channels: lines of sources with zeros around them. */
LC_NOINLINE void bring_planes(const lc_geometry *g, const LC_REAL *source, const lc_layout *from, ptrdiff_t sources,
                              const positions_block *b) {
    const ptrdiff_t first = lc_max(0, b->origin), end = lc_min(sources, b->origin + b->box.pixel[1]);
    const ptrdiff_t extent[3] = {b->sources[0].hi - b->sources[0].lo, b->sources[1].hi - b->sources[1].lo,
                                 lc_max(0, end - first)};
    const ptrdiff_t lo[3] = {b->sources[0].lo, b->sources[1].lo, first};
    memset(b->planes, 0, (size_t)(g->group_channels * b->box.channel) * sizeof(LC_REAL));
    move(source + lc_offset(from, lo) + b->group * g->group_channels * from->channel, b->planes + (first - b->origin),
         lc_copy_box(extent, g->group_channels, from, &b->box));
}

/* Filters of `count` positions of a strip's lines, from `first` on, as planes. source: of the first one. */
LC_NOINLINE void bring_filter_planes(const lc_job *job, const positions_block *b, const char *source, ptrdiff_t count,
                                     LC_REAL *target) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const lc_filter_layout from = lc_filter_layout_of(g, g->output);
    const ptrdiff_t size = lc_kernel_size(job), lines = b->lines.hi - b->lines.lo;
    for (ptrdiff_t tap = b->taps.lo; tap < b->taps.hi; ++tap, source += from.tap * size, target += p->plane) {
        const char *line = source;
        for (ptrdiff_t i = 0; i < lines; ++i, line += from.position[1] * size) {
            const char *next = line + from.tap * size; /* far away: no processor foresees it */
            if (job->storage == LC_native)
                copy_row((const LC_REAL *)line, target + i * p->filter_width, count, next);
            else
                widen(job->storage, line, count, 1, count, NULL, target + i * p->filter_width, count);
        }
    }
}

/* The same of one line, whose filters have their taps side by side. */
LC_NOINLINE void bring_filter_rows(const lc_job *job, const positions_block *b, const char *source, ptrdiff_t count,
                                   LC_REAL *target) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const ptrdiff_t taps = b->taps.hi - b->taps.lo;
    ptrdiff_t row = job->geometry.groups * job->geometry.taps;
    if (job->storage != LC_native) {
        widen(job->storage, source, row, count, taps, NULL, b->widened, taps);
        source = (const char *)b->widened;
        row = taps;
    }
    transpose_stream((const LC_REAL *)source, row, count, taps, target, p->plane);
}

/* Sets to 0, in the filters of a strip, what would meet padding of the width. */
LC_NOINLINE void clear_padding(const lc_job *job, const positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t first = b->lo[2], count = b->hi[2] - first;
    for (ptrdiff_t tap = 0; tap < g->kernel[2]; ++tap) {
        const ptrdiff_t pixel = lc_window_origin(g, 2, first) + tap * g->dilation[2];
        const ptrdiff_t before = lc_min(lc_max(-pixel, 0), count), room = lc_max(g->input[2] - pixel, before);
        if (before == 0 && room >= count) continue;
        for (ptrdiff_t k = tap; k < b->taps.hi - b->taps.lo; k += g->kernel[2])
            for (ptrdiff_t i = 0; i < b->lines.hi - b->lines.lo; ++i) {
                LC_REAL *line = b->filters + k * p->plane + i * p->filter_width;
                for (ptrdiff_t x = 0; x < before; ++x) line[x] = 0;
                for (ptrdiff_t x = room; x < count; ++x) line[x] = 0;
            }
    }
}

/* Sets to 0, in the filters of a strip, what is before and behind the positions first .. end-1 of a line. */
LC_NOINLINE void clear_around(const lc_job *job, const positions_block *b, ptrdiff_t first, ptrdiff_t end) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const ptrdiff_t before = first - b->origin, room = lc_max(end, first) - b->origin;
    for (ptrdiff_t k = 0; k < b->taps.hi - b->taps.lo; ++k)
        for (ptrdiff_t i = 0; i < b->lines.hi - b->lines.lo; ++i) {
            LC_REAL *line = b->filters + k * p->plane + i * p->filter_width;
            for (ptrdiff_t x = 0; x < before; ++x) line[x] = 0;
            for (ptrdiff_t x = room; x < p->filter_width; ++x) line[x] = 0;
        }
}

/* The positions of a line whose filters a strip has: the block's, or all that reach its pixels. */
LC_INLINE lc_range columns_of(const lc_job *job, const positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_range all = {lc_max(0, b->origin), lc_min(job->geometry.output[2], b->origin + p->width)};
    const lc_range own = {b->lo[2], b->hi[2]};
    return p->gradient ? all : own;
}

/* Where the first of some filters lies. */
LC_INLINE const char *filters_at(const lc_job *job, const lc_call *c, const positions_block *b, ptrdiff_t line,
                                 ptrdiff_t column, ptrdiff_t tap) {
    const lc_geometry *g = &job->geometry;
    const lc_filter_layout from = lc_filter_layout_of(g, g->output);
    const ptrdiff_t at = lc_filter_image(g, b->image) + b->group * from.group + tap * from.tap +
                         b->plane * from.position[0] + line * from.position[1] + column * from.position[2];
    return (const char *)c->kernel + at * lc_kernel_size(job);
}

/* Brings a strip's filters together. */
LC_NOINLINE void bring_filters(const lc_job *job, const lc_call *c, const positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_range columns = columns_of(job, b);
    const char *source = filters_at(job, c, b, b->lines.lo, columns.lo, b->taps.lo);
    if (columns.hi > columns.lo)
        (job->geometry.channels_first ? bring_filter_planes : bring_filter_rows)(
            job, b, source, columns.hi - columns.lo, b->filters + (p->gradient ? columns.lo - b->origin : 0));
    if (p->gradient)
        clear_around(job, b, columns.lo, columns.hi);
    else
        clear_padding(job, b);
}

/* The line behind the present strip, if it is before `end`. tiles: of this strip. Planes are too many, and too far from
 * each other: bring_filter_planes asks for the next one. */
LC_INLINE void look_ahead(const lc_job *job, const lc_call *c, positions_block *b, ptrdiff_t end, ptrdiff_t tiles) {
    const lc_geometry *g = &job->geometry;
    const lc_range columns = columns_of(job, b);
    memset(&b->ahead, 0, sizeof b->ahead);
    if (g->channels_first || b->lines.hi >= end) return;
    b->ahead.row = filters_at(job, c, b, b->lines.hi, columns.lo, b->taps.lo);
    b->ahead.left = lc_max(0, columns.hi - columns.lo);
    b->ahead.step = g->groups * g->taps * lc_kernel_size(job);
    b->ahead.bytes = (b->taps.hi - b->taps.lo) * lc_kernel_size(job);
    b->ahead.each = lc_ceil_div(b->ahead.left, lc_max(1, tiles));
}

LC_INLINE void ask_ahead(filters_ahead *ahead) {
    for (ptrdiff_t i = lc_min(ahead->each, ahead->left); i > 0; --i, --ahead->left, ahead->row += ahead->step)
        for (ptrdiff_t k = 0; k < ahead->bytes; k += 64) LC_PREFETCH_L2(ahead->row + k);
}

/* Leaves out the pairs whose source is outside the range. */
LC_INLINE void clip_to(lc_segment *s, lc_range range) {
    s->source -= range.lo;
    lc_clip_segment(s, range.hi - range.lo);
    s->source += range.lo;
}

/* The runs of a line of results that a strip gives, its first element being that of a line of sources. */
LC_NOINLINE ptrdiff_t positions_runs(const lc_job *job, const positions_block *b, const ptrdiff_t index[2]) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const lc_range strip[2] = {{b->plane, b->plane + 1}, b->lines};
    lc_segment outer[2][LC_SEGMENTS] = {{{0, 0, 0, 1, 0}}, {{0, 0, 0, 1, 0}}}, *s0 = outer[0], *s1 = outer[1];
    ptrdiff_t count = 0;
    for (int axis = 0; axis < 2; ++axis) {
        lc_segments_of(g, axis, p->gradient, index[axis], outer[axis]);
        clip_to(outer[axis], p->gradient ? strip[axis] : (lc_range){0, g->input[axis]});
    }
    for (ptrdiff_t i = 0; i < s0->n; ++i)
        for (ptrdiff_t j = 0; j < s1->n; ++j) {
            const ptrdiff_t from[2] = {s0->source + i * s0->source_step, s1->source + j * s1->source_step};
            const ptrdiff_t tap =
                ((s0->tap + i * s0->tap_step) * g->kernel[1] + s1->tap + j * s1->tap_step) * g->kernel[2];
            if (tap < b->taps.lo || tap >= b->taps.hi) continue;
            lc_filter_run *run = b->runs + count++;
            run->pixel =
                (from[0] - b->sources[0].lo) * b->box.pixel[0] + (from[1] - b->sources[1].lo) * b->box.pixel[1];
            run->pixel_step = g->dilation[2];
            run->n = g->kernel[2];
            run->tap =
                (tap - b->taps.lo) * p->plane + ((p->gradient ? from[1] : index[1]) - b->lines.lo) * p->filter_width;
            run->tap_step = p->plane;
            if (!p->gradient) continue;
            run->tap += (g->kernel[2] - 1) * p->plane;
            run->tap_step = g->dilation[2] - p->plane;
        }
    return count;
}

/* What a strip gives to a line of results, all channels of the group. */
LC_NOINLINE void sum_line(const lc_job *job, positions_block *b, const ptrdiff_t index[2], lc_filter_tile *t) {
    const ptrdiff_t lanes = lc_tile_lanes(job), channels = job->geometry.group_channels, count = b->hi[2] - b->lo[2];
    LC_REAL *line = b->sums + (index[0] - b->lo[0]) * b->to.pixel[0] + (index[1] - b->lo[1]) * b->to.pixel[1];
    t->run_count = positions_runs(job, b, index);
    if (t->run_count == 0 && t->adds) return;
    for (ptrdiff_t column = 0; column < count; column += lanes) {
        const int vectors = vectors_for(lc_min(lanes, count - column));
        const ptrdiff_t tiles = lc_ceil_div(channels, filter_rows(vectors));
        t->taps = b->filters + column;
        ask_ahead(&b->ahead);
        for (ptrdiff_t i = 0, channel = 0, end; i < tiles; ++i, channel = end) {
            end = lc_share(channels, tiles, i + 1);
            t->pixels = b->planes + column + channel * b->box.channel;
            t->out = line + column + channel * b->to.channel;
            run_lanes_filter_tile(t, (int)(end - channel), vectors);
        }
    }
}

LC_NOINLINE void open_positions_block(const lc_job *job, ptrdiff_t task, char *workspace, positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    memset(b, 0, sizeof *b);
    b->group = task % g->groups;
    b->image = lc_find_block(p->size, job->choices.block, task / g->groups, b->lo, b->hi);
    for (int axis = 0; axis < 2; ++axis)
        b->sources[axis] = lc_sources_of(g, axis, p->gradient, b->lo[axis], b->hi[axis]);
    b->origin = line_origin(g, p->gradient, b->lo[2]);
    b->box.pixel[2] = 1;
    b->box.pixel[1] = p->width;
    b->box.pixel[0] = p->width * (b->sources[1].hi - b->sources[1].lo);
    b->box.channel = b->box.pixel[0] * (b->sources[0].hi - b->sources[0].lo);
    b->runs = (lc_filter_run *)workspace;
    b->planes = (LC_REAL *)(workspace + p->sources_at);
    b->filters = (LC_REAL *)(workspace + p->filters_at);
    b->widened = (LC_REAL *)(workspace + p->widened_at);
    b->sums = (LC_REAL *)(workspace + p->sums_at);
    b->taps.hi = g->taps;
}

/* Results that fill vectors are summed where they go, others in the workspace. Returns whether they are. */
LC_INLINE int place_sums(const lc_job *job, const lc_layout *to, LC_REAL *result, positions_block *b) {
    const ptrdiff_t count = b->hi[2] - b->lo[2];
    if (to->pixel[2] == 1 && count % LC_LANES == 0) {
        b->sums = result;
        b->to = *to;
        return 1;
    }
    b->to.pixel[2] = 1;
    b->to.pixel[1] = lc_round_up(count, LC_LANES);
    b->to.pixel[0] = b->to.pixel[1] * (b->hi[1] - b->lo[1]);
    b->to.channel = b->to.pixel[0] * (b->hi[0] - b->lo[0]);
    (void)job;
    return 0;
}

/* The strip from a line of positions on: at most up to `end`. */
LC_INLINE void open_strip(const lc_job *job, ptrdiff_t plane, ptrdiff_t line, ptrdiff_t end, positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    b->plane = plane;
    b->lines.lo = line;
    b->lines.hi = lc_min(end, line + p->strip);
}

/* Of an axis, the pixels lo .. hi-1 that a strip's windows hold, and the taps that these are under. */
LC_INLINE lc_range pixels_of_strip(const lc_geometry *g, int axis, lc_range positions, ptrdiff_t lo, ptrdiff_t hi,
                                   lc_range *taps) {
    const ptrdiff_t first = lc_window_origin(g, axis, positions.lo), last = lc_window_origin(g, axis, positions.hi - 1);
    const lc_range pixels = {lc_max(lo, first), lc_min(hi, last + lc_effective_size(g, axis))};
    taps->lo = lc_max(0, lc_ceil_div(lc_max(0, lo - last), g->dilation[axis]));
    taps->hi = lc_min(g->kernel[axis], lc_ceil_div(lc_max(0, hi - first), g->dilation[axis]));
    return pixels;
}

/* What a strip gives to the pixels of the block. */
LC_NOINLINE void spread_strip(const lc_job *job, const lc_call *c, positions_block *b, lc_filter_tile *t) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    lc_range pixels[2], taps[2];
    for (int axis = 0; axis < 2; ++axis) {
        const lc_range positions = axis == 0 ? (lc_range){b->plane, b->plane + 1} : b->lines;
        pixels[axis] = pixels_of_strip(g, axis, positions, b->lo[axis], b->hi[axis], taps + axis);
        if (pixels[axis].hi <= pixels[axis].lo || taps[axis].hi <= taps[axis].lo) return;
    }
    const ptrdiff_t first = taps[0].lo * g->kernel[1] + taps[1].lo;
    const ptrdiff_t tiles = (pixels[0].hi - pixels[0].lo) * (pixels[1].hi - pixels[1].lo) *
                            lc_ceil_div(b->hi[2] - b->lo[2], lc_tile_lanes(job));
    for (ptrdiff_t end = (taps[0].hi - 1) * g->kernel[1] + taps[1].hi, row; end > first; end = row) {
        row = lc_max(first, end - p->tap_rows);
        b->taps.lo = row * g->kernel[2], b->taps.hi = end * g->kernel[2];
        bring_filters(job, c, b);
        look_ahead(job, c, b, b->sources[1].hi, tiles);
        for (ptrdiff_t i = pixels[0].lo; i < pixels[0].hi; ++i)
            for (ptrdiff_t j = pixels[1].lo; j < pixels[1].hi; ++j) {
                const ptrdiff_t index[2] = {i, j};
                sum_line(job, b, index, t);
            }
    }
}

/* The results of a strip's positions. */
LC_NOINLINE void sum_strip(const lc_job *job, const lc_call *c, positions_block *b, lc_filter_tile *t) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t tiles = (b->lines.hi - b->lines.lo) * lc_ceil_div(b->hi[2] - b->lo[2], lc_tile_lanes(job));
    for (b->taps.lo = 0; b->taps.lo < g->taps; b->taps.lo = b->taps.hi) {
        b->taps.hi = lc_min(g->taps, b->taps.lo + p->tap_rows * g->kernel[2]);
        t->adds = b->taps.lo > 0;
        bring_filters(job, c, b);
        look_ahead(job, c, b, b->hi[1], tiles);
        for (ptrdiff_t line = b->lines.lo; line < b->lines.hi; ++line) {
            const ptrdiff_t index[2] = {b->plane, line};
            sum_line(job, b, index, t);
        }
    }
}

/* Task: a block of the results of one image and group. */
LC_NOINLINE void filter_positions(LC_TASK_ARGUMENTS) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const lc_layout *from = p->gradient ? &g->y : &g->x, *to = p->gradient ? &g->x : &g->y;
    positions_block b;
    lc_filter_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    open_positions_block(job, task, workspace, &b);
    bring_planes(g, (const LC_REAL *)(p->gradient ? c->gradient : c->input) + b.image * from->image, from,
                 p->gradient ? g->output[2] : g->input[2], &b);
    LC_REAL *result =
        (LC_REAL *)c->result + b.image * to->image + b.group * g->group_channels * to->channel + lc_offset(to, b.lo);
    const int placed = place_sums(job, to, result, &b);
    const ptrdiff_t extent[3] = {b.hi[0] - b.lo[0], b.hi[1] - b.lo[1], b.hi[2] - b.lo[2]};
    if (p->gradient) clear(b.sums, lc_copy_box(extent, g->group_channels, &b.to, &b.to));
    t.runs = b.runs;
    t.pixel_row = b.box.channel;
    t.out_row = b.to.channel;
    t.adds = p->gradient;
    for (ptrdiff_t i = 0; i < (p->gradient ? b.sources[0].hi - b.sources[0].lo : extent[0]); ++i) {
        const ptrdiff_t end = p->gradient ? b.sources[1].hi : b.hi[1];
        for (ptrdiff_t line = p->gradient ? b.sources[1].lo : b.lo[1]; line < end; line = b.lines.hi) {
            open_strip(job, (p->gradient ? b.sources[0].lo : b.lo[0]) + i, line, end, &b);
            (p->gradient ? spread_strip : sum_strip)(job, c, &b, &t);
        }
    }
    if (!placed) move(b.sums, result, lc_copy_box(extent, g->group_channels, &b.to, to));
    (void)shared;
}

/* ------------------------------------------------------------------------------ the gradient for the filters */

/* The planes of a vector of positions: gradients of the group's channels, where they lie or brought together. */
LC_INLINE const LC_REAL *gradients_of(const lc_job *job, const LC_REAL *gradient, const positions_block *b,
                                      const ptrdiff_t index[3], ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t *stride) {
    const lc_geometry *g = &job->geometry;
    const LC_REAL *source = gradient + lc_offset(&g->y, index) + b->group * g->group_channels * g->y.channel;
    if (g->y.pixel[2] == 1 && count % LC_LANES == 0) {
        *stride = g->y.channel;
        return source;
    }
    move(source, b->sums, lc_copy_plane(g->group_channels, g->y.channel, lanes, count, g->y.pixel[2], 1));
    *stride = lanes;
    return b->sums;
}

/* The products of a line of positions with the pixels under all taps inside, as planes; 0 elsewhere. */
LC_NOINLINE void correlate_line(const lc_job *job, const LC_REAL *gradient, const positions_block *b,
                                const ptrdiff_t line[2], lc_filter_tile *t) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t lanes = lc_tile_lanes(job), taps = b->taps.hi - b->taps.lo, runs = positions_runs(job, b, line);
    ptrdiff_t index[3] = {line[0], line[1], b->lo[2]}, stride;
    t->pixel_row = g->dilation[2];
    t->out_row = p->plane;
    if (runs * g->kernel[2] < taps)
        for (ptrdiff_t tap = 0; tap < taps; ++tap)
            memset(b->filters + tap * p->plane + (line[1] - b->lines.lo) * p->filter_width, 0,
                   (size_t)p->filter_width * sizeof(LC_REAL));
    for (; index[2] < b->hi[2]; index[2] += lanes) {
        const ptrdiff_t count = lc_min(lanes, b->hi[2] - index[2]), column = index[2] - b->lo[2];
        const int vectors = vectors_for(count);
        const ptrdiff_t tiles = lc_ceil_div(g->kernel[2], filter_rows(vectors));
        t->taps = gradients_of(job, gradient, b, index, count, lanes, &stride);
        const lc_filter_run channels = {0, 0, g->group_channels, b->box.channel, stride};
        t->runs = &channels;
        t->run_count = 1;
        for (ptrdiff_t k = 0; k < runs; ++k)
            for (ptrdiff_t i = 0, tap = 0, end; i < tiles; ++i, tap = end) {
                end = lc_share(g->kernel[2], tiles, i + 1);
                t->pixels = b->planes + column + b->runs[k].pixel + tap * g->dilation[2];
                t->out = b->filters + b->runs[k].tap + tap * p->plane + column;
                run_lanes_filter_tile(t, (int)(end - tap), vectors);
            }
    }
}

/* Brings a strip's sums to the filters. add: to what there is. */
LC_NOINLINE void store_filters(const lc_job *job, LC_REAL *result, const positions_block *b, int add) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const lc_filter_layout to = lc_filter_layout_of(g, g->output);
    LC_REAL *target = result + b->group * to.group + b->taps.lo * to.tap + b->plane * to.position[0] +
                      b->lines.lo * to.position[1] + b->lo[2] * to.position[2];
    const ptrdiff_t taps = b->taps.hi - b->taps.lo, lines = b->lines.hi - b->lines.lo, count = b->hi[2] - b->lo[2];
    const lc_copy copy = {
        {{taps, p->plane, to.tap}, {lines, p->filter_width, to.position[1]}, {count, 1, to.position[2]}}, 3};
    if (add)
        move_adding(b->filters, target, copy);
    else if (g->channels_first)
        move(b->filters, target, copy);
    else
        transpose_out(b->filters, p->plane, taps, count, target, to.position[2]);
}

/* One image's part of a block's filters. */
LC_NOINLINE void correlate_block(const lc_job *job, const LC_REAL *gradient, LC_REAL *result, positions_block *b,
                                 int add) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    lc_filter_tile t;
    memset(&t, 0, sizeof t);
    for (ptrdiff_t plane = b->lo[0]; plane < b->hi[0]; ++plane)
        for (ptrdiff_t line = b->lo[1]; line < b->hi[1]; line = b->lines.hi) {
            open_strip(job, plane, line, b->hi[1], b);
            for (b->taps.lo = 0; b->taps.lo < g->taps; b->taps.lo = b->taps.hi) {
                b->taps.hi = lc_min(g->taps, b->taps.lo + p->tap_rows * g->kernel[2]);
                for (ptrdiff_t i = b->lines.lo; i < b->lines.hi; ++i) {
                    const ptrdiff_t index[2] = {plane, i};
                    correlate_line(job, gradient, b, index, &t);
                }
                clear_padding(job, b);
                store_filters(job, result, b, add);
            }
        }
}

/* Task: a block of the positions of one group's filters, of one image or of all. */
LC_NOINLINE void correlate_filters(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    positions_block b;
    if (task == 0) sign(c->ran);
    open_positions_block(job, task, workspace, &b);
    LC_REAL *result = (LC_REAL *)c->result + b.image * g->positions * g->groups * g->taps;
    for (ptrdiff_t i = 0; i < g->batch / g->kernel_batch; ++i) {
        const ptrdiff_t image = b.image + i;
        bring_planes(g, (const LC_REAL *)c->input + image * g->x.image, &g->x, g->input[2], &b);
        correlate_block(job, (const LC_REAL *)c->gradient + image * g->y.image, result, &b, i > 0 || c->accumulate);
    }
    (void)shared;
}
