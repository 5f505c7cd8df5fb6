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
        for (int v = 0; v < V; ++v) acc[r][v] = v_zero();
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

/* A task: its block of results of one image and group; `sources`: the lines of these that it needs, and the source
 * index of the first element of a line. */
typedef struct positions_block {
    ptrdiff_t image, group, lo[3], hi[3], origin;
    lc_range sources[2];
    lc_layout box; /* of the sources' planes */
    LC_REAL *planes, *filters, *widened, *stage;
    lc_filter_run *runs;
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

/* Some taps of the group's filters, of `count` positions of a line from `position` on, as planes that are `stride`
 * elements apart. */
LC_NOINLINE void bring_filters(const lc_job *job, const lc_call *c, const positions_block *b,
                               const ptrdiff_t position[3], ptrdiff_t count, lc_range taps, LC_REAL *target,
                               ptrdiff_t stride) {
    const lc_geometry *g = &job->geometry;
    const lc_filter_layout from = lc_filter_layout_of(g, g->output);
    const ptrdiff_t at = lc_filter_image(g, b->image) + b->group * from.group + taps.lo * from.tap +
                         position[0] * from.position[0] + position[1] * from.position[1] +
                         position[2] * from.position[2];
    const char *source = (const char *)c->kernel + at * lc_kernel_size(job);
    const ptrdiff_t planes = taps.hi - taps.lo;
    ptrdiff_t row = g->channels_first ? from.tap : from.position[2];
    if (job->storage != LC_native) {
        const ptrdiff_t rows = g->channels_first ? planes : count, columns = g->channels_first ? count : planes;
        LC_REAL *widened = g->channels_first ? target : b->widened;
        widen(job->storage, source, row, rows, columns, NULL, widened, g->channels_first ? stride : columns);
        if (g->channels_first) return;
        source = (const char *)widened;
        row = columns;
    }
    if (g->channels_first)
        move((const LC_REAL *)source, target, lc_copy_plane(planes, row, stride, count, 1, 1));
    else
        transpose_copy((const LC_REAL *)source, row, count, planes, target, stride, 0);
}

/* Sets to 0, in planes of filters of the positions first .. first+count-1, what would meet padding of the width. */
LC_NOINLINE void clear_padding(const lc_geometry *g, ptrdiff_t first, ptrdiff_t count, LC_REAL *planes,
                               ptrdiff_t stride) {
    for (ptrdiff_t tap = 0; tap < g->kernel[2]; ++tap) {
        const ptrdiff_t pixel = lc_window_origin(g, 2, first) + tap * g->dilation[2];
        const ptrdiff_t before = lc_min(lc_max(-pixel, 0), count), room = lc_max(g->input[2] - pixel, before);
        if (before == 0 && room >= count) continue;
        for (LC_REAL *plane = planes + tap * stride; plane < planes + g->taps * stride;
             plane += g->kernel[2] * stride) {
            for (ptrdiff_t i = 0; i < before; ++i) plane[i] = 0;
            for (ptrdiff_t i = room; i < count; ++i) plane[i] = 0;
        }
    }
}

/* Whether windows of these neighbouring positions meet padding of the width. */
LC_INLINE int meets_padding(const lc_geometry *g, ptrdiff_t first, ptrdiff_t count) {
    const ptrdiff_t origin = lc_window_origin(g, 2, first);
    return origin < 0 || origin + count - 1 + lc_effective_size(g, 2) > g->input[2];
}

/* The runs of a line of results, its first element being that of a line of sources. taps: elements from tap to tap. */
LC_NOINLINE ptrdiff_t positions_runs(const lc_job *job, const positions_block *b, const ptrdiff_t index[3],
                                     ptrdiff_t taps) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t *size = p->gradient ? g->output : g->input;
    lc_segment outer[2][LC_SEGMENTS] = {{{0, 0, 0, 1, 0}}, {{0, 0, 0, 1, 0}}}, *s0 = outer[0], *s1 = outer[1];
    ptrdiff_t count = 0;
    for (int axis = 0; axis < 2; ++axis) {
        lc_segments_of(g, axis, p->gradient, index[axis], outer[axis]);
        lc_clip_segment(outer[axis], size[axis]);
    }
    for (ptrdiff_t i = 0; i < s0->n; ++i)
        for (ptrdiff_t j = 0; j < s1->n; ++j) {
            const ptrdiff_t from[2] = {s0->source + i * s0->source_step - b->sources[0].lo,
                                       s1->source + j * s1->source_step - b->sources[1].lo};
            const ptrdiff_t tap =
                ((s0->tap + i * s0->tap_step) * g->kernel[1] + s1->tap + j * s1->tap_step) * g->kernel[2];
            lc_filter_run *run = b->runs + count++;
            run->pixel = from[0] * b->box.pixel[0] + from[1] * b->box.pixel[1];
            run->pixel_step = g->dilation[2];
            run->n = g->kernel[2];
            run->tap = tap * taps;
            run->tap_step = taps;
            if (!p->gradient) continue;
            run->tap = ((count - 1) * g->kernel[2] + g->kernel[2] - 1) * taps;
            run->tap_step = g->dilation[2] - taps;
        }
    return count;
}

/* The filters of a vector of results: where they lie, or brought together. */
LC_INLINE const LC_REAL *filters_of(const lc_job *job, const lc_call *c, const positions_block *b,
                                    const ptrdiff_t index[3], ptrdiff_t count, ptrdiff_t lanes, ptrdiff_t *stride) {
    const lc_geometry *g = &job->geometry;
    const int padded = meets_padding(g, index[2], count);
    if (g->channels_first && job->storage == LC_native && !padded && count == lanes) {
        const lc_filter_layout from = lc_filter_layout_of(g, g->output);
        *stride = from.tap;
        return (const LC_REAL *)c->kernel + lc_filter_image(g, b->image) + b->group * from.group +
               index[0] * from.position[0] + index[1] * from.position[1] + index[2];
    }
    bring_filters(job, c, b, index, count, (lc_range){0, g->taps}, b->filters, lanes);
    if (padded) clear_padding(g, index[2], count, b->filters, lanes);
    *stride = lanes;
    return b->filters;
}

/* The sums of one tile's lines of results, all channels of the group. result: of the group, at the first one. */
LC_NOINLINE void sum_positions(const lc_job *job, const positions_block *b, lc_filter_tile *t, ptrdiff_t column,
                               ptrdiff_t count, const lc_layout *to, LC_REAL *result) {
    const lc_geometry *g = &job->geometry;
    const int vectors = vectors_for(count);
    const int direct = to->pixel[2] == 1 && count == (ptrdiff_t)vectors * LC_LANES;
    const ptrdiff_t channels = g->group_channels, tiles = lc_ceil_div(channels, filter_rows(vectors));
    t->pixel_row = b->box.channel;
    t->out_row = direct ? to->channel : (ptrdiff_t)vectors * LC_LANES;
    LC_REAL *out = direct ? result : b->stage;
    for (ptrdiff_t i = 0, channel = 0, end; i < tiles; ++i, channel = end) {
        end = lc_share(channels, tiles, i + 1);
        t->pixels = b->planes + column + channel * b->box.channel;
        t->out = out + channel * t->out_row;
        run_lanes_filter_tile(t, (int)(end - channel), vectors);
    }
    if (!direct) move(b->stage, result, lc_copy_plane(channels, t->out_row, to->channel, count, 1, to->pixel[2]));
}

/* What a line of pixels is summed from: of each of its runs the filters' taps, as planes that begin where its sources
 * do; 0 where there is no position. */
LC_NOINLINE void bring_line_filters(const lc_job *job, const lc_call *c, const positions_block *b,
                                    const ptrdiff_t index[3]) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t first = lc_max(0, b->origin), end = lc_min(g->output[2], b->origin + p->width);
    lc_segment outer[2][LC_SEGMENTS] = {{{0, 0, 0, 1, 0}}, {{0, 0, 0, 1, 0}}}, *s0 = outer[0], *s1 = outer[1];
    LC_REAL *target = b->filters;
    for (int axis = 0; axis < 2; ++axis) {
        lc_segments_of(g, axis, 1, index[axis], outer[axis]);
        lc_clip_segment(outer[axis], g->output[axis]);
    }
    for (ptrdiff_t i = 0; i < s0->n; ++i)
        for (ptrdiff_t j = 0; j < s1->n; ++j, target += g->kernel[2] * p->width) {
            const ptrdiff_t tap =
                ((s0->tap + i * s0->tap_step) * g->kernel[1] + s1->tap + j * s1->tap_step) * g->kernel[2];
            const ptrdiff_t at[3] = {s0->source + i * s0->source_step, s1->source + j * s1->source_step, first};
            for (ptrdiff_t k = 0; k < g->kernel[2]; ++k) {
                LC_REAL *plane = target + k * p->width;
                for (ptrdiff_t x = 0; x < first - b->origin; ++x) plane[x] = 0;
                for (ptrdiff_t x = lc_max(end, first) - b->origin; x < p->width; ++x) plane[x] = 0;
            }
            if (end > first)
                bring_filters(job, c, b, at, end - first, (lc_range){tap, tap + g->kernel[2]},
                              target + (first - b->origin), p->width);
        }
}

LC_NOINLINE void open_positions_block(const lc_job *job, ptrdiff_t task, char *workspace, positions_block *b) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
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
    b->stage = (LC_REAL *)(workspace + p->stage_at);
}

/* Task: a block of the results of one image and group. */
LC_NOINLINE void filter_positions(LC_TASK_ARGUMENTS) {
    const lc_filter_positions *p = LC_CONST_PLAN(lc_filter_positions, job);
    const lc_geometry *g = &job->geometry;
    const lc_layout *from = p->gradient ? &g->y : &g->x, *to = p->gradient ? &g->x : &g->y;
    const ptrdiff_t lanes = lc_tile_lanes(job), *sources = p->gradient ? g->output : g->input;
    positions_block b;
    lc_filter_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    open_positions_block(job, task, workspace, &b);
    bring_planes(g, (const LC_REAL *)(p->gradient ? c->gradient : c->input) + b.image * from->image, from, sources[2],
                 &b);
    t.runs = b.runs;
    ptrdiff_t at[3], stride = p->width;
    for (at[0] = b.lo[0]; at[0] < b.hi[0]; ++at[0])
        for (at[1] = b.lo[1]; at[1] < b.hi[1]; ++at[1]) {
            if (p->gradient) bring_line_filters(job, c, &b, at);
            for (at[2] = b.lo[2]; at[2] < b.hi[2]; at[2] += lanes) {
                const ptrdiff_t count = lc_min(lanes, b.hi[2] - at[2]), column = at[2] - b.lo[2];
                t.taps = p->gradient ? b.filters + column : filters_of(job, c, &b, at, count, lanes, &stride);
                t.run_count = positions_runs(job, &b, at, stride);
                sum_positions(job, &b, &t, column, count, to,
                              (LC_REAL *)c->result + b.image * to->image + b.group * g->group_channels * to->channel +
                                  lc_offset(to, at));
            }
        }
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
    move(source, b->stage, lc_copy_plane(g->group_channels, g->y.channel, lanes, count, g->y.pixel[2], 1));
    *stride = lanes;
    return b->stage;
}

/* The products of a vector of positions with the pixels under all taps inside, as planes; 0 elsewhere. */
LC_NOINLINE void correlate_positions(const lc_job *job, const positions_block *b, const ptrdiff_t index[3],
                                     ptrdiff_t count, lc_filter_tile *t, ptrdiff_t stride) {
    const lc_geometry *g = &job->geometry;
    const int vectors = vectors_for(count);
    const ptrdiff_t lanes = lc_tile_lanes(job), tiles = lc_ceil_div(g->kernel[2], filter_rows(vectors));
    const ptrdiff_t runs = positions_runs(job, b, index, 1);
    lc_filter_run channels = {0, 0, g->group_channels, b->box.channel, stride};
    t->runs = &channels;
    t->run_count = 1;
    t->pixel_row = g->dilation[2];
    t->out_row = lanes;
    if (runs < g->kernel[0] * g->kernel[1]) memset(b->filters, 0, (size_t)(g->taps * lanes) * sizeof(LC_REAL));
    for (ptrdiff_t k = 0; k < runs; ++k)
        for (ptrdiff_t i = 0, tap = 0, end; i < tiles; ++i, tap = end) {
            end = lc_share(g->kernel[2], tiles, i + 1);
            t->pixels = b->planes + (index[2] - b->lo[2]) + b->runs[k].pixel + tap * g->dilation[2];
            t->out = b->filters + (b->runs[k].tap + tap) * lanes;
            run_lanes_filter_tile(t, (int)(end - tap), vectors);
        }
    if (meets_padding(g, index[2], count)) clear_padding(g, index[2], count, b->filters, lanes);
}

/* One image's part of a block's filters. add: to what there is. */
LC_NOINLINE void correlate_block(const lc_job *job, const LC_REAL *gradient, LC_REAL *result, positions_block *b,
                                 int add) {
    const lc_geometry *g = &job->geometry;
    const lc_filter_layout to = lc_filter_layout_of(g, g->output);
    const ptrdiff_t lanes = lc_tile_lanes(job);
    ptrdiff_t at[3], stride;
    lc_filter_tile t;
    memset(&t, 0, sizeof t);
    for (at[0] = b->lo[0]; at[0] < b->hi[0]; ++at[0])
        for (at[1] = b->lo[1]; at[1] < b->hi[1]; ++at[1])
            for (at[2] = b->lo[2]; at[2] < b->hi[2]; at[2] += lanes) {
                const ptrdiff_t count = lc_min(lanes, b->hi[2] - at[2]);
                LC_REAL *target = result + b->group * to.group + at[0] * to.position[0] + at[1] * to.position[1] +
                                  at[2] * to.position[2];
                t.taps = gradients_of(job, gradient, b, at, count, lanes, &stride);
                correlate_positions(job, b, at, count, &t, stride);
                const lc_copy copy = lc_copy_plane(g->taps, lanes, to.tap, count, 1, to.position[2]);
                if (add)
                    move_adding(b->filters, target, copy);
                else
                    move(b->filters, target, copy);
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
