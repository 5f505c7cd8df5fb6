/* The bodies of filter_dots.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Vectors of channels that a tap goes through at once. */
enum { LC_DOT_VECTORS = 4 };

/* Up to this many taps, each is summed by itself. */
enum { LC_DOT_SINGLE_TAPS = 3 };

/* The products of V vectors of channels from `channel` on, for as many taps as there are lanes or, not `whole`, fewer.
 */
LC_INLINE void dot_vectors(LC_VEC acc[LC_LANES], const LC_REAL *pixels, const ptrdiff_t *offsets, ptrdiff_t taps,
                           const LC_REAL *position, LC_MASK mask, const int V, const int masked, const int whole) {
    LC_VEC y[LC_DOT_VECTORS];
    /* One pointer and the list: left alone, compilers keep a pointer for every tap and vector in memory. */
    LC_OPAQUE(pixels);
    LC_OPAQUE(offsets);
    LC_UNROLL
    for (int v = 0; v < V; ++v) y[v] = masked ? v_load_first(position, mask) : v_load(position + v * LC_LANES);
    LC_UNROLL
    for (int t = 0; t < LC_LANES; ++t) {
        if (!whole && t >= taps) continue;
        const LC_REAL *pixel = pixels + offsets[t];
        LC_UNROLL
        for (int v = 0; v < V; ++v)
            acc[t] = v_fma(masked ? v_load_first(pixel, mask) : v_load(pixel + v * LC_LANES), y[v], acc[t]);
    }
}

/* The dot products of one group's channels at one position with those at `taps` pixels, at most LANES. */
LC_INLINE void dots_body(const LC_REAL *pixels, const ptrdiff_t *offsets, ptrdiff_t base, ptrdiff_t taps,
                         const LC_REAL *position, ptrdiff_t channels, LC_REAL *sums, const int whole) {
    LC_VEC acc[LC_LANES];
    const LC_MASK mask = v_first(channels % LC_LANES);
    ptrdiff_t c = 0;
    LC_UNROLL
    for (int t = 0; t < LC_LANES; ++t) acc[t] = v_zero();
    for (; c + LC_DOT_VECTORS * LC_LANES <= channels; c += LC_DOT_VECTORS * LC_LANES)
        dot_vectors(acc, pixels + (base + c), offsets, taps, position + c, mask, LC_DOT_VECTORS, 0, whole);
    for (; c + LC_LANES <= channels; c += LC_LANES)
        dot_vectors(acc, pixels + (base + c), offsets, taps, position + c, mask, 1, 0, whole);
    if (c < channels) dot_vectors(acc, pixels + (base + c), offsets, taps, position + c, mask, 1, 1, whole);
    if (whole)
        v_store(sums, v_sums(acc));
    else
        v_store_first(sums, v_first(taps), v_sums(acc));
}

LC_NOINLINE void dots_whole(const LC_REAL *pixels, const ptrdiff_t *offsets, ptrdiff_t base, const LC_REAL *position,
                            ptrdiff_t channels, LC_REAL *sums) {
    dots_body(pixels, offsets, base, LC_LANES, position, channels, sums, 1);
}

LC_NOINLINE void dots_part(const LC_REAL *pixels, const ptrdiff_t *offsets, ptrdiff_t base, ptrdiff_t taps,
                           const LC_REAL *position, ptrdiff_t channels, LC_REAL *sums) {
    dots_body(pixels, offsets, base, taps, position, channels, sums, 0);
}

/* The same for one tap. */
LC_NOINLINE LC_REAL dot_single(const LC_REAL *pixel, const LC_REAL *position, ptrdiff_t channels) {
    LC_VEC acc[2] = {v_zero(), v_zero()};
    const LC_MASK mask = v_first(channels % LC_LANES);
    ptrdiff_t c = 0;
    for (; c + 2 * LC_LANES <= channels; c += 2 * LC_LANES) {
        acc[0] = v_fma(v_load(pixel + c), v_load(position + c), acc[0]);
        acc[1] = v_fma(v_load(pixel + c + LC_LANES), v_load(position + c + LC_LANES), acc[1]);
    }
    if (c + LC_LANES <= channels) {
        acc[0] = v_fma(v_load(pixel + c), v_load(position + c), acc[0]);
        c += LC_LANES;
    }
    if (c < channels) acc[1] = v_fma(v_load_first(pixel + c, mask), v_load_first(position + c, mask), acc[1]);
    return v_sum(v_add(acc[0], acc[1]));
}

/* The taps of a window that lie inside: how many, their numbers, and where they lie from the window's origin on. */
typedef struct dot_taps {
    lc_range clip[3];
    ptrdiff_t count, *offsets, *numbers;
} dot_taps;

LC_NOINLINE void list_dot_taps(const lc_geometry *g, const ptrdiff_t pixel[3], const lc_range clip[3], dot_taps *taps) {
    ptrdiff_t count = 0;
    memcpy(taps->clip, clip, sizeof taps->clip);
    for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
        for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
            for (ptrdiff_t k = clip[2].lo; k < clip[2].hi; ++k) {
                taps->numbers[count] = (i * g->kernel[1] + j) * g->kernel[2] + k;
                taps->offsets[count++] =
                    i * g->dilation[0] * pixel[0] + j * g->dilation[1] * pixel[1] + k * g->dilation[2] * pixel[2];
            }
    taps->count = count;
}

/* One group's filter at one position. add: to what there is; base: the window's origin. */
LC_NOINLINE void position_dots(const lc_geometry *g, const dot_taps *taps, const LC_REAL *pixels, ptrdiff_t base,
                               const LC_REAL *position, LC_REAL *filter, int add) {
    const int direct = !add && taps->count == g->taps;
    if (!add && !direct) memset(filter, 0, (size_t)g->taps * sizeof(LC_REAL));
    for (ptrdiff_t t = 0; t < taps->count; t += LC_LANES) {
        LC_REAL staged[LC_LANES], *sums = direct ? filter + t : staged;
        const ptrdiff_t count = lc_min(LC_LANES, taps->count - t);
        if (count == LC_LANES)
            dots_whole(pixels, taps->offsets + t, base, position, g->group_channels, sums);
        else if (count > LC_DOT_SINGLE_TAPS)
            dots_part(pixels, taps->offsets + t, base, count, position, g->group_channels, sums);
        else
            for (ptrdiff_t i = 0; i < count; ++i)
                sums[i] = dot_single(pixels + (base + taps->offsets[t + i]), position, g->group_channels);
        for (ptrdiff_t i = 0; i < count && !direct; ++i) filter[taps->numbers[t + i]] += staged[i];
    }
}

/* What a task computes with, of one image: arrays with channels inside, from an origin on. */
typedef struct dot_block {
    const LC_REAL *pixels, *positions;
    ptrdiff_t pixel[3], origin[3], position[3], lo[3], hi[3];
    LC_REAL *filters; /* of the position lo */
    ptrdiff_t filter[3];
} dot_block;

LC_NOINLINE void bring_dot_operands(const lc_job *job, const LC_REAL *input, const LC_REAL *gradient, char *workspace,
                                    dot_block *b) {
    const lc_filter_dots *p = LC_CONST_PLAN(lc_filter_dots, job);
    const lc_geometry *g = &job->geometry;
    ptrdiff_t extent[3], outputs[3];
    b->pixels = input, b->positions = gradient + lc_offset(&g->y, b->lo);
    if (p->brings_pixels) {
        LC_REAL *box = (LC_REAL *)(workspace + p->pixels_at);
        for (int axis = 0; axis < 3; ++axis) {
            const lc_range range = lc_sources_of(g, axis, 0, b->lo[axis], b->hi[axis]);
            b->origin[axis] = range.lo, extent[axis] = range.hi - range.lo;
        }
        const lc_layout pixels = lc_dots_box(g, extent, job->kernels->itemsize);
        move(input + lc_offset(&g->x, b->origin), box, lc_copy_box(extent, g->channels, &g->x, &pixels));
        memcpy(b->pixel, pixels.pixel, sizeof b->pixel);
        b->pixels = box;
    }
    if (p->brings) {
        LC_REAL *box = (LC_REAL *)(workspace + p->positions_at);
        for (int axis = 0; axis < 3; ++axis) outputs[axis] = b->hi[axis] - b->lo[axis];
        const lc_layout positions = lc_layout_of(outputs, g->channels, 0);
        move(gradient + lc_offset(&g->y, b->lo), box, lc_copy_box(outputs, g->channels, &g->y, &positions));
        memcpy(b->position, positions.pixel, sizeof b->position);
        b->positions = box;
    }
}

/* One image's part of a block's filters. */
LC_NOINLINE void block_dots(const lc_job *job, const dot_block *b, dot_taps *taps, int add) {
    const lc_geometry *g = &job->geometry;
    ptrdiff_t at[3];
    for (at[0] = b->lo[0]; at[0] < b->hi[0]; ++at[0])
        for (at[1] = b->lo[1]; at[1] < b->hi[1]; ++at[1])
            for (at[2] = b->lo[2]; at[2] < b->hi[2]; ++at[2]) {
                lc_range clip[3];
                ptrdiff_t base = 0, position = 0, filter = 0;
                int same = 1;
                for (int axis = 0; axis < 3; ++axis) {
                    clip[axis] = lc_taps_inside(g, axis, at[axis]);
                    same = same && lc_same_range(clip[axis], taps->clip[axis]);
                    base += (lc_window_origin(g, axis, at[axis]) - b->origin[axis]) * b->pixel[axis];
                    position += (at[axis] - b->lo[axis]) * b->position[axis];
                    filter += (at[axis] - b->lo[axis]) * b->filter[axis];
                }
                if (!same) list_dot_taps(g, b->pixel, clip, taps);
                for (ptrdiff_t group = 0; group < g->groups; ++group)
                    position_dots(g, taps, b->pixels, base + group * g->group_channels,
                                  b->positions + position + group * g->group_channels,
                                  b->filters + filter + group * g->taps, add);
            }
}

/* Task: a block of the positions of one image's filters, or of those that all images share. */
LC_NOINLINE void filter_dots(LC_TASK_ARGUMENTS) {
    const lc_filter_dots *p = LC_CONST_PLAN(lc_filter_dots, job);
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t row = g->groups * g->taps;
    dot_taps taps = {.offsets = (ptrdiff_t *)workspace, .numbers = (ptrdiff_t *)(workspace + p->taps_at)};
    dot_block b = {.pixels = NULL};
    if (task == 0) sign(c->ran);
    const ptrdiff_t image = lc_find_block(g->output, job->choices.block, task, b.lo, b.hi);
    ptrdiff_t outputs[3];
    for (int axis = 0; axis < 3; ++axis) {
        outputs[axis] = b.hi[axis] - b.lo[axis];
        b.pixel[axis] = g->x.pixel[axis], b.position[axis] = g->y.pixel[axis];
    }
    const lc_layout staged = lc_layout_of(outputs, row, 0), whole = lc_layout_of(g->output, row, g->channels_first);
    LC_REAL *result = (LC_REAL *)c->result + image * g->positions * row + lc_offset(&whole, b.lo);
    b.filters = p->brings ? (LC_REAL *)(workspace + p->stage_at) : result;
    memcpy(b.filter, p->brings ? staged.pixel : whole.pixel, sizeof b.filter);
    for (ptrdiff_t i = 0; i < g->batch / g->kernel_batch; ++i) {
        bring_dot_operands(job, (const LC_REAL *)c->input + (image + i) * g->x.image,
                           (const LC_REAL *)c->gradient + (image + i) * g->y.image, workspace, &b);
        taps.clip[0] = (lc_range){1, 0}; /* no window: the offsets may be others in this box */
        block_dots(job, &b, &taps, i > 0 || (c->accumulate && !p->brings));
    }
    if (!p->brings) return;
    const lc_copy copy = lc_copy_box(outputs, row, &staged, &whole);
    if (c->accumulate)
        move_adding(b.filters, result, copy);
    else
        move(b.filters, result, copy);
    (void)shared;
}
