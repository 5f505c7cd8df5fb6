/* The bodies of filter_channels.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* ---------------------------------------------------------------------------------------------- the tiles */

/* Rows of a tile so many vectors wide whose rows share pixels: what the registers have room for. */
LC_INLINE int filter_rows(int vectors) {
    static const int rows[] = {0, LC_JOIN2(LC_ROWS1, LC_ISA), LC_JOIN2(LC_ROWS2, LC_ISA), LC_JOIN2(LC_ROWS3, LC_ISA),
                               LC_JOIN2(LC_ROWS4, LC_ISA)};
    return (int)lc_min(rows[vectors], vectors == 1 ? LC_FILTER_ROWS : LC_FILTER_WIDE_ROWS);
}

/* Rows whose pixels are their own: as many chains of sums as hide the latency of one. */
LC_INLINE int filter_apart_rows(int vectors) { return (int)lc_min(filter_rows(vectors), LC_FILTER_APART_ROWS); }

/* Row r's tap: rows 0 .. 4 are `near` plus so many strides, from 5 on they count from `far`. */
LC_INLINE LC_VEC row_tap(const char *near, const char *far, ptrdiff_t stride, int r) {
    return v_splat((const LC_REAL *)((r < 5 ? near : far) + (r % 5 == 3 ? 3 * stride : r % 5 * stride)));
}

LC_INLINE LC_VEC load_pixels(const char *p, int v, LC_MASK mask, const int whole) {
    const LC_REAL *lanes = (const LC_REAL *)p + v * LC_LANES;
    return whole ? v_load(lanes) : v_load_first(lanes, mask);
}

LC_INLINE void store_rows(const lc_filter_tile *t, LC_VEC acc[LC_FILTER_ROWS][LC_TILE_VECTORS], LC_MASK mask,
                          const int R, const int V, const int whole) {
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_REAL *out = (LC_REAL *)t->out + r * t->out_row;
        LC_UNROLL
        for (int v = 0; v < V; ++v) {
            if (whole)
                v_store(out + v * LC_LANES, acc[r][v]);
            else
                v_store_first(out + v * LC_LANES, mask, acc[r][v]);
        }
    }
}

/* A column: one vector of pixels for the rows low .. high, each with its tap. */
#define LC_FILTER_COLUMN(low, high)                                              \
    do {                                                                         \
        LC_VEC x[LC_TILE_VECTORS];                                               \
        LC_UNROLL                                                                \
        for (int v = 0; v < V; ++v) x[v] = load_pixels(pixels, v, mask, whole);  \
        LC_UNROLL                                                                \
        for (int r = 0; r < R; ++r) {                                            \
            if (r < (low) || r > (high)) continue;                               \
            const LC_VEC tap = row_tap(near, far, slant, r);                     \
            LC_UNROLL                                                            \
            for (int v = 0; v < V; ++v) acc[r][v] = v_fma(tap, x[v], acc[r][v]); \
        }                                                                        \
        pixels += pixel_step, near += tap_step, far += tap_step;                 \
    } while (0)

/* R rows of overlapping windows: in column j row r has tap j - r, if there is one. A run has R taps or more, or N. */
LC_INLINE void filter_shared_body(const lc_filter_tile *t, const int R, const int V, const int whole, const int N) {
    LC_VEC acc[LC_FILTER_ROWS][LC_TILE_VECTORS];
    const LC_MASK mask = v_first(whole ? LC_LANES : t->lane_count);
    const ptrdiff_t size = (ptrdiff_t)sizeof(LC_REAL), first = t->first, end = t->end;
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = v_zero();
    }
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const lc_filter_run *run = t->runs + k;
        const ptrdiff_t pixel_step = run->pixel_step * size, tap_step = run->tap_step * size;
        const ptrdiff_t slant = t->tap_row * size - tap_step, n = run->n, last = lc_min(n, end);
        const char *pixels = (const char *)t->pixels + run->pixel * size + first * pixel_step;
        const char *near = (const char *)t->taps + run->tap * size + first * tap_step, *far = near + 5 * slant;
        LC_OPAQUE(far);
        if (N > 0) {
            LC_UNROLL
            for (int j = 0; j < R + N - 1; ++j) {
                if (j >= first && j < end) LC_FILTER_COLUMN(j - N + 1, j);
            }
            continue;
        }
        LC_UNROLL
        for (int j = 0; j < R - 1; ++j) {
            if (j >= first && j < end) LC_FILTER_COLUMN(0, j);
        }
        for (ptrdiff_t j = lc_max(R - 1, first); j < last; ++j) LC_FILTER_COLUMN(0, R - 1);
        LC_UNROLL
        for (int i = 0; i < R - 1; ++i) {
            if (n + i >= first && n + i < end) LC_FILTER_COLUMN(i + 1, R - 1);
        }
    }
    store_rows(t, acc, mask, R, V, whole);
}
#undef LC_FILTER_COLUMN

/* R rows with pixels of their own. */
LC_INLINE void filter_apart_body(const lc_filter_tile *t, const int R, const int V, const int whole) {
    LC_VEC acc[LC_FILTER_ROWS][LC_TILE_VECTORS];
    const LC_MASK mask = v_first(whole ? LC_LANES : t->lane_count);
    const ptrdiff_t size = (ptrdiff_t)sizeof(LC_REAL), pixel_row = t->pixel_row * size, tap_row = t->tap_row * size;
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = v_zero();
    }
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        const lc_filter_run *run = t->runs + k;
        const ptrdiff_t pixel_step = run->pixel_step * size, tap_step = run->tap_step * size;
        const char *pixels = (const char *)t->pixels + run->pixel * size;
        const char *taps = (const char *)t->taps + run->tap * size;
        for (ptrdiff_t i = run->n; i > 0; --i) {
            LC_UNROLL
            for (int r = 0; r < R; ++r) {
                const LC_VEC tap = row_tap(taps, taps, tap_row, r);
                const char *row = pixels + (r == 3 ? 3 * pixel_row : r * pixel_row);
                LC_UNROLL
                for (int v = 0; v < V; ++v) acc[r][v] = v_fma(tap, load_pixels(row, v, mask, whole), acc[r][v]);
            }
            pixels += pixel_step, taps += tap_step;
        }
    }
    store_rows(t, acc, mask, R, V, whole);
}

/* The shapes: a body without registers for it is compiled to nothing, and never asked for. Where channels do not fill
 * a vector, its tile is one vector wide. Tiles of windows three taps wide, the usual ones, may have more rows than
 * taps. */
#define LC_FILTER_TILE(name, R, V, body)                                                    \
    LC_NOINLINE void filter_##name##_##R##x##V(const lc_filter_tile *t) {                   \
        if (R > filter_rows(V)) lc_impossible("a filter's tile of a shape without a body"); \
        if (R <= filter_rows(V)) body;                                                      \
    }
#define LC_FILTER_SHARED(R, V)     LC_FILTER_TILE(shared, R, V, filter_shared_body(t, R, V, 1, 0))
#define LC_FILTER_THREE(R, V)      LC_FILTER_TILE(three, R, V, filter_shared_body(t, R, V, 1, 3))
#define LC_FILTER_APART(R, V)      LC_FILTER_TILE(apart, R, V, filter_apart_body(t, R, V, 1))
#define LC_FILTER_EDGE(R, V)       LC_FILTER_TILE(shared_edge, R, V, filter_shared_body(t, R, V, 0, 0))
#define LC_FILTER_THREE_EDGE(R, V) LC_FILTER_TILE(three_edge, R, V, filter_shared_body(t, R, V, 0, 3))
#define LC_FILTER_APART_EDGE(R, V) LC_FILTER_TILE(apart_edge, R, V, filter_apart_body(t, R, V, 0))
#define LC_FILTER_WIDE(X)          LC_UP_TO_6(X, 2) LC_UP_TO_6(X, 3) LC_UP_TO_6(X, 4)
#define LC_FILTER_FEW(X)           LC_UP_TO_4(X, 1) LC_UP_TO_4(X, 2) LC_UP_TO_4(X, 3) LC_UP_TO_4(X, 4)
LC_UP_TO_8(LC_FILTER_SHARED, 1)
LC_FILTER_WIDE(LC_FILTER_SHARED)
LC_UP_TO_8(LC_FILTER_EDGE, 1)
LC_UP_TO_8(LC_FILTER_THREE, 1)
LC_FILTER_WIDE(LC_FILTER_THREE)
LC_UP_TO_8(LC_FILTER_THREE_EDGE, 1)
LC_FILTER_FEW(LC_FILTER_APART)
LC_UP_TO_4(LC_FILTER_APART_EDGE, 1)

/* Runs the tile of `rows` rows that is `vectors` vectors wide, 0: of one that the channels do not fill. three: its
 * windows are three taps wide. */
LC_NOINLINE void run_shared_filter_tile(const lc_filter_tile *t, int rows, int vectors, int three) {
    switch (vectors * 16 + rows) {
#define LC_FILTER_CASE(R, V) \
    case V * 16 + R: (three ? filter_three_##R##x##V : filter_shared_##R##x##V)(t); return;
#define LC_FILTER_EDGE_CASE(R, V) \
    case R: (three ? filter_three_edge_##R##x##V : filter_shared_edge_##R##x##V)(t); return;
        LC_UP_TO_8(LC_FILTER_CASE, 1)
        LC_FILTER_WIDE(LC_FILTER_CASE)
        LC_UP_TO_8(LC_FILTER_EDGE_CASE, 1)
#undef LC_FILTER_CASE
#undef LC_FILTER_EDGE_CASE
        default: lc_impossible("a filter's tile of a shape that is not compiled");
    }
}

LC_NOINLINE void run_apart_filter_tile(const lc_filter_tile *t, int rows, int vectors) {
    switch (vectors * 16 + rows) {
#define LC_FILTER_CASE(R, V) \
    case V * 16 + R: filter_apart_##R##x##V(t); return;
#define LC_FILTER_EDGE_CASE(R, V) \
    case R: filter_apart_edge_##R##x##V(t); return;
        LC_FILTER_FEW(LC_FILTER_CASE)
        LC_UP_TO_4(LC_FILTER_EDGE_CASE, 1)
#undef LC_FILTER_CASE
#undef LC_FILTER_EDGE_CASE
        default: lc_impossible("a filter's tile of a shape that is not compiled");
    }
}

/* ---------------------------------------------------------------------------------------------- the tasks */

/* What a task computes with: arrays from an origin on, and where the results of the line go. */
typedef struct filter_block {
    const LC_REAL *pixels, *filters;
    LC_REAL *line;
    ptrdiff_t pixel[3], pixel_origin[3], filter_origin[3], line_step;
    lc_filter_layout filter;
    ptrdiff_t lo[3], hi[3], image;
    lc_filter_run *runs;
} filter_block;

/* Brings the sources of a block together, channels inside. */
LC_NOINLINE void bring_pixels(const lc_job *job, const LC_REAL *source, const lc_layout *from, const lc_range box[3],
                              LC_REAL *target, filter_block *b) {
    const lc_geometry *g = &job->geometry;
    ptrdiff_t extent[3], lo[3];
    for (int axis = 0; axis < 3; ++axis) extent[axis] = box[axis].hi - box[axis].lo, lo[axis] = box[axis].lo;
    const lc_layout to = lc_layout_of(extent, g->channels, 0);
    move(source + lc_offset(from, lo), target, lc_copy_box(extent, g->channels, from, &to));
    memcpy(b->pixel, to.pixel, sizeof b->pixel);
    memcpy(b->pixel_origin, lo, sizeof lo);
    b->pixels = target;
}

/* Brings the filters of a block's positions together, as wide as its elements. */
LC_NOINLINE void gather_filters(const lc_job *job, const lc_call *c, const lc_range box[3], LC_REAL *target,
                                filter_block *b) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t size = lc_kernel_size(job), row = g->groups * g->taps, planes = g->channels_first ? row : 1;
    const lc_filter_layout from = lc_filter_layout_of(g, g->output);
    ptrdiff_t extent[3];
    for (int axis = 0; axis < 3; ++axis) {
        extent[axis] = box[axis].hi - box[axis].lo;
        b->filter_origin[axis] = box[axis].lo;
    }
    b->filters = target;
    b->filter = lc_gathered_layout(g, extent);
    const ptrdiff_t columns = extent[2] * from.position[2];
    for (ptrdiff_t plane = 0; plane < planes; ++plane, target += b->filter.tap)
        for (ptrdiff_t i = 0; i < extent[0]; ++i)
            for (ptrdiff_t j = 0; j < extent[1]; ++j) {
                const ptrdiff_t at = lc_filter_image(g, b->image) + plane * from.tap +
                                     (box[0].lo + i) * from.position[0] + (box[1].lo + j) * from.position[1] +
                                     box[2].lo * from.position[2];
                const char *line = (const char *)c->kernel + at * size;
                LC_REAL *to = target + i * b->filter.position[0] + j * b->filter.position[1];
                if (job->storage == LC_native)
                    copy_row((const LC_REAL *)line, to, columns, line + from.tap * size);
                else
                    widen(job->storage, line, columns, 1, columns, NULL, to, columns);
            }
}

/* The block of a task: where its operands lie, or are brought to. */
LC_NOINLINE void open_filter_block(const lc_job *job, const lc_call *c, ptrdiff_t task, char *workspace,
                                   filter_block *b) {
    const lc_filter_channels *p = LC_CONST_PLAN(lc_filter_channels, job);
    const lc_geometry *g = &job->geometry;
    const lc_layout *from = p->gradient ? &g->y : &g->x;
    lc_range sources[3], results[3];
    memset(b, 0, sizeof *b);
    b->image = lc_find_block(p->size, job->choices.block, task, b->lo, b->hi);
    b->runs = (lc_filter_run *)(workspace + p->runs_at);
    for (int axis = 0; axis < 3 && (p->brings || p->gathers); ++axis) {
        sources[axis] = lc_sources_of(g, axis, p->gradient, b->lo[axis], b->hi[axis]);
        results[axis].lo = b->lo[axis], results[axis].hi = b->hi[axis];
    }
    const LC_REAL *source = (const LC_REAL *)(p->gradient ? c->gradient : c->input) + b->image * from->image;
    if (p->brings) {
        bring_pixels(job, source, from, sources, (LC_REAL *)(workspace + p->pixels_at), b);
    } else {
        b->pixels = source;
        memcpy(b->pixel, from->pixel, sizeof b->pixel);
    }
    if (p->gathers) {
        gather_filters(job, c, p->gradient ? sources : results, (LC_REAL *)(workspace + p->filters_at), b);
    } else {
        b->filters = (const LC_REAL *)c->kernel + lc_filter_image(g, b->image);
        b->filter = lc_filter_layout_of(g, g->output);
    }
}

/* The runs of one line of results, along the width those of `segments`; offsets are of pixel and filter of channel 0.
 */
LC_NOINLINE ptrdiff_t filter_line_runs(const lc_job *job, const filter_block *b, const ptrdiff_t index[3],
                                       const lc_segment *segments, int segment_count) {
    const lc_filter_channels *p = LC_CONST_PLAN(lc_filter_channels, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t *size = p->gradient ? g->output : g->input;
    lc_segment outer[2][LC_SEGMENTS];
    int counts[2];
    ptrdiff_t count = 0;
    for (int axis = 0; axis < 2; ++axis) {
        counts[axis] = lc_segments_of(g, axis, p->gradient, index[axis], outer[axis]);
        for (int s = 0; s < counts[axis]; ++s) lc_clip_segment(&outer[axis][s], size[axis]);
    }
    for (int s0 = 0; s0 < counts[0]; ++s0)
        for (ptrdiff_t i0 = 0; i0 < outer[0][s0].n; ++i0)
            for (int s1 = 0; s1 < counts[1]; ++s1)
                for (ptrdiff_t i1 = 0; i1 < outer[1][s1].n; ++i1)
                    for (int s = 0; s < segment_count; ++s) {
                        const lc_segment *a0 = &outer[0][s0], *a1 = &outer[1][s1], *a2 = &segments[s];
                        const ptrdiff_t source[3] = {a0->source + i0 * a0->source_step,
                                                     a1->source + i1 * a1->source_step, a2->source};
                        const ptrdiff_t tap =
                            ((a0->tap + i0 * a0->tap_step) * g->kernel[1] + a1->tap + i1 * a1->tap_step) *
                                g->kernel[2] +
                            a2->tap;
                        lc_filter_run *run = b->runs + count++;
                        run->pixel = 0, run->tap = tap * b->filter.tap, run->n = a2->n;
                        for (int axis = 0; axis < 3; ++axis) {
                            run->pixel += (source[axis] - b->pixel_origin[axis]) * b->pixel[axis];
                            run->tap += ((p->gradient ? source[axis] : index[axis]) - b->filter_origin[axis]) *
                                        b->filter.position[axis];
                        }
                        run->pixel_step = a2->source_step * b->pixel[2];
                        run->tap_step =
                            a2->tap_step * b->filter.tap + (p->gradient ? a2->source_step * b->filter.position[2] : 0);
                    }
    return count;
}

/* A tile's results: those of all groups, panel by panel. vectors: of a panel. */
LC_INLINE void filter_panels(const lc_job *job, const filter_block *b, lc_filter_tile *t, ptrdiff_t first, int rows,
                             int shared) {
    const lc_geometry *g = &job->geometry;
    const LC_REAL *pixels = (const LC_REAL *)t->pixels, *taps = (const LC_REAL *)t->taps;
    LC_REAL *out = b->line + (first - b->lo[2]) * b->line_step;
    const ptrdiff_t channels = g->group_channels;
    const int three = t->runs[0].n == 3;
    for (ptrdiff_t group = 0; group < g->groups; ++group, taps += b->filter.group)
        for (ptrdiff_t channel = 0; channel < channels; channel += t->lane_count) {
            const ptrdiff_t whole = lc_min((channels - channel) / LC_LANES, job->choices.vectors);
            t->lane_count = lc_min(channels - channel, lc_max(whole, 1) * LC_LANES);
            t->pixels = pixels + group * channels + channel;
            t->taps = taps;
            t->out = out + group * channels + channel;
            if (shared)
                run_shared_filter_tile(t, rows, (int)whole, three);
            else
                run_apart_filter_tile(t, rows, (int)whole);
        }
    t->pixels = pixels;
}

/* Rows of the next tile of a stretch, whose rows share pixels: of `left`, in tiles as equal as can be. */
LC_INLINE int shared_rows(const lc_job *job, ptrdiff_t left, ptrdiff_t taps) {
    const ptrdiff_t vectors = lc_max(1, lc_min(job->geometry.group_channels / LC_LANES, job->choices.vectors));
    return (int)lc_even(left, lc_min(filter_rows((int)vectors), taps == 3 ? LC_FILTER_ROWS : taps));
}

/* How many of a stretch's next rows lie in the source whole, from the row whose first source is that. */
LC_INLINE ptrdiff_t rows_inside(const lc_stretch *s, ptrdiff_t source, ptrdiff_t left, ptrdiff_t size) {
    const ptrdiff_t room = size - 1 - source - (s->segments[0].n - 1) * s->segments[0].source_step;
    if (source < 0 || room < 0) return 0;
    return s->source_row > 0 ? lc_min(left, room / s->source_row + 1) : left;
}

LC_NOINLINE void filter_shared_stretch(const lc_job *job, filter_block *b, ptrdiff_t index[3], const lc_stretch *s,
                                       ptrdiff_t size, lc_filter_tile *t) {
    const lc_segment *segment = s->segments;
    const LC_REAL *pixels = b->pixels, *taps = b->filters;
    t->run_count = filter_line_runs(job, b, index, segment, 1);
    for (ptrdiff_t row = 0, rows; row < s->count; row += rows) {
        const ptrdiff_t source = segment->source + row * s->source_row;
        rows = shared_rows(job, s->count - row, segment->n);
        t->first = source < 0 ? lc_ceil_div(-source, segment->source_step) : 0;
        t->end = source < size ? lc_min(segment->n + rows - 1, lc_ceil_div(size - source, segment->source_step)) : 0;
        t->pixels = pixels + row * t->pixel_row, t->taps = taps + row * t->tap_row;
        filter_panels(job, b, t, s->first + row * s->step, (int)rows, 1);
    }
}

LC_NOINLINE void filter_apart_stretch(const lc_job *job, filter_block *b, ptrdiff_t index[3], const lc_stretch *s,
                                      ptrdiff_t size, lc_filter_tile *t) {
    const ptrdiff_t vectors = lc_max(1, lc_min(job->geometry.group_channels / LC_LANES, job->choices.vectors));
    const ptrdiff_t limit = filter_apart_rows((int)vectors);
    for (ptrdiff_t row = 0, rows; row < s->count; row += rows) {
        lc_segment segments[LC_SEGMENTS];
        int count = 0;
        rows = 1;
        for (int i = 0; i < s->segment_count; ++i) {
            segments[count] = s->segments[i];
            segments[count].source += row * s->source_row;
            rows = i == 0 ? rows_inside(s, segments[0].source, s->count - row, size) : 1;
            lc_clip_segment(segments + count, size);
            count += segments[count].n > 0;
        }
        rows = s->segment_count == 1 && rows > 0 ? lc_even(rows, limit) : 1;
        index[2] = s->first + row * s->step;
        t->run_count = filter_line_runs(job, b, index, segments, count);
        t->pixels = b->pixels, t->taps = b->filters;
        filter_panels(job, b, t, index[2], (int)rows, 0);
    }
}

/* Task: a block of one image's results. */
LC_NOINLINE void filter_channels(LC_TASK_ARGUMENTS) {
    const lc_filter_channels *p = LC_CONST_PLAN(lc_filter_channels, job);
    const lc_geometry *g = &job->geometry;
    const lc_layout *to = p->gradient ? &g->x : &g->y;
    lc_stretch *stretches = (lc_stretch *)workspace;
    filter_block b;
    lc_filter_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    open_filter_block(job, c, task, workspace, &b);
    t.runs = b.runs;
    b.line_step = p->brings ? g->channels : to->pixel[2];
    t.out_row = lc_stretch_step(g, p->gradient) * b.line_step;
    const ptrdiff_t count = lc_build_stretches(g, p->gradient, b.lo[2], b.hi[2], stretches);
    const ptrdiff_t size = p->gradient ? g->output[2] : g->input[2];
    ptrdiff_t index[3];
    for (index[0] = b.lo[0]; index[0] < b.hi[0]; ++index[0])
        for (index[1] = b.lo[1]; index[1] < b.hi[1]; ++index[1]) {
            LC_REAL *line = (LC_REAL *)c->result + b.image * to->image + index[0] * to->pixel[0] +
                            index[1] * to->pixel[1] + b.lo[2] * to->pixel[2];
            b.line = p->brings ? (LC_REAL *)(workspace + p->stage_at) : line;
            for (const lc_stretch *s = stretches; s < stretches + count; ++s) {
                const int overlap = s->segment_count == 1 && s->segments[0].source_step == s->source_row &&
                                    lc_min(s->count, s->segments[0].n) > 1;
                index[2] = s->first;
                t.pixel_row = s->source_row * b.pixel[2];
                t.tap_row = (p->gradient ? s->source_row : s->step) * b.filter.position[2];
                (overlap ? filter_shared_stretch : filter_apart_stretch)(job, &b, index, s, size, &t);
            }
            if (p->brings)
                move(b.line, line,
                     lc_copy_plane(b.hi[2] - b.lo[2], g->channels, to->pixel[2], g->channels, 1, to->channel));
        }
}
