/* The bodies of conv_winograd.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* B d, of four vectors that lie `step` apart. */
LC_INLINE void winograd_pixels(LC_VEC *d, const int step, LC_VEC minus) {
    const LC_VEC d1 = d[step], d2 = d[2 * step];
    d[0] = v_fma(minus, d2, d[0]);
    d[3 * step] = v_fma(minus, d[3 * step], d1);
    d[step] = v_add(d1, d2);
    d[2 * step] = v_fma(minus, d1, d2);
}

/* G g, of three vectors. */
LC_INLINE void winograd_taps(LC_VEC *g, const int step, LC_VEC half, LC_VEC minus) {
    const LC_VEC outer = v_mul(half, v_add(g[0], g[2 * step])), inner = v_mul(half, g[step]);
    g[3 * step] = g[2 * step];
    g[step] = v_add(outer, inner);
    g[2 * step] = v_fma(minus, inner, outer);
}

/* A m, of four vectors; two remain. */
LC_INLINE void winograd_sums(LC_VEC *m, const int step, LC_VEC minus) {
    const LC_VEC sum = v_add(m[step], m[2 * step]), difference = v_fma(minus, m[2 * step], m[step]);
    m[0] = v_add(m[0], sum);
    m[step] = v_fma(minus, m[3 * step], difference);
}

/* Some channels of a panel. */
LC_NOINLINE void winograd_pack(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_winograd_plan *p = LC_CONST_PLAN(lc_winograd_plan, job);
    const lc_panel panel = lc_find_panel(g, p->panel_width, task / p->pack_parts);
    const ptrdiff_t share = task % p->pack_parts, tap = g->group_channels * g->filters;
    const ptrdiff_t end = lc_share(g->group_channels, p->pack_parts, share + 1);
    const LC_REAL halved = (LC_REAL)0.5, negative = -1;
    const LC_VEC half = v_splat(&halved), minus = v_splat(&negative);
    LC_REAL *packed = (LC_REAL *)shared + task / p->pack_parts * p->places * p->kernel;
    for (ptrdiff_t channel = lc_share(g->group_channels, p->pack_parts, share); channel < end; ++channel)
        for (ptrdiff_t filter = 0; filter < panel.count; filter += LC_LANES) {
            const LC_REAL *source = (const LC_REAL *)c->kernel + channel * g->filters + panel.first + filter;
            LC_REAL *target = packed + channel * p->panel_width + filter;
            const LC_MASK mask = v_first(lc_min(LC_LANES, panel.count - filter));
            LC_VEC taps[LC_PLACES];
            for (ptrdiff_t i = 0; i < g->kernel[1]; ++i) {
                for (int k = 0; k < 3; ++k) taps[4 * i + k] = v_load_first(source + (3 * i + k) * tap, mask);
                winograd_taps(taps + 4 * i, 1, half, minus);
            }
            for (int k = 0; p->height == 4 && k < 4; ++k) winograd_taps(taps + k, 4, half, minus);
            for (ptrdiff_t k = 0; k < p->places; ++k) v_store(target + k * p->kernel, taps[k]);
        }
}

/* B d of a square, whose pixels are these, all channels; what is behind the last one becomes 0. */
LC_INLINE void winograd_square(const LC_REAL *const *pixel, ptrdiff_t channels, LC_REAL *out, ptrdiff_t place,
                               const int height) {
    const LC_REAL negative = -1;
    const LC_VEC minus = v_splat(&negative);
    for (ptrdiff_t channel = 0; channel < channels; channel += LC_LANES) {
        const LC_MASK mask = v_first(lc_min(LC_LANES, channels - channel));
        LC_VEC d[LC_PLACES];
        LC_UNROLL
        for (int k = 0; k < 4 * height; ++k) d[k] = v_load_first(pixel[k] + channel, mask);
        LC_UNROLL
        for (int i = 0; i < height; ++i) winograd_pixels(d + 4 * i, 1, minus);
        LC_UNROLL
        for (int k = 0; height == 4 && k < 4; ++k) winograd_pixels(d + k, 4, minus);
        LC_UNROLL
        for (int k = 0; k < 4 * height; ++k) v_store(out + k * place + channel, d[k]);
    }
}

/* B d of squares first .. last-1. */
LC_NOINLINE void winograd_inputs(const lc_job *job, const lc_call *c, ptrdiff_t first, ptrdiff_t last,
                                 char *workspace) {
    const lc_geometry *g = &job->geometry;
    const lc_winograd_plan *p = LC_CONST_PLAN(lc_winograd_plan, job);
    LC_REAL *out = (LC_REAL *)(workspace + p->pixels_at);
    memset(workspace, 0, (size_t)g->channels * sizeof(LC_REAL));
    for (ptrdiff_t square = first; square < last; ++square, out += p->pixel) {
        const LC_REAL *pixel[LC_PLACES];
        ptrdiff_t at[3];
        const LC_REAL *image = (const LC_REAL *)c->input + lc_find_square(g, p, square, at) * g->x.image;
        for (int axis = 0; axis < 3; ++axis) at[axis] = lc_window_origin(g, axis, at[axis]);
        for (ptrdiff_t k = 0; k < p->places; ++k) {
            const ptrdiff_t place[3] = {at[0], at[1] + k / 4, at[2] + k % 4};
            int inside = 1;
            for (int axis = 0; axis < 3; ++axis) inside &= place[axis] >= 0 && place[axis] < g->input[axis];
            pixel[k] = inside ? image + lc_offset(&g->x, place) : (const LC_REAL *)workspace;
        }
        if (p->height == 4) winograd_square(pixel, g->channels, out, p->pixels, 4);
        if (p->height == 1) winograd_square(pixel, g->channels, out, p->pixels, 1);
    }
}

/* A m of a square, `lanes` filters; out: of its outputs, NULL behind an end. */
LC_INLINE void winograd_outputs(const LC_REAL *sums, ptrdiff_t place, LC_REAL *const out[4], ptrdiff_t lanes,
                                const LC_REAL *bias, int relu, const int height) {
    const LC_REAL negative = -1;
    const LC_VEC minus = v_splat(&negative);
    const LC_MASK mask = v_first(lanes);
    LC_VEC m[LC_PLACES];
    LC_UNROLL
    for (int k = 0; k < 4 * height; ++k) m[k] = v_load(sums + k * place);
    LC_UNROLL
    for (int i = 0; i < height; ++i) winograd_sums(m + 4 * i, 1, minus);
    LC_UNROLL
    for (int k = 0; height == 4 && k < 2; ++k) winograd_sums(m + k, 4, minus);
    for (int k = 0; k < (height == 4 ? 4 : 2); ++k) {
        LC_VEC y = m[k / 2 * 4 + k % 2];
        if (bias) y = v_add(y, v_load_first(bias, mask));
        if (relu) y = v_relu(y);
        if (out[k] && lanes == LC_LANES)
            v_store(out[k], y);
        else if (out[k])
            v_store_first(out[k], mask, y);
    }
}

/* A m of a panel's filters, of squares first .. last-1; one row of outputs where the height has one tap. */
LC_NOINLINE void winograd_results(const lc_job *job, const lc_call *c, ptrdiff_t first, ptrdiff_t last,
                                  const lc_panel *panel, const LC_REAL *sums) {
    const lc_geometry *g = &job->geometry;
    const lc_winograd_plan *p = LC_CONST_PLAN(lc_winograd_plan, job);
    const LC_REAL *bias = c->bias ? (const LC_REAL *)c->bias + panel->first : NULL;
    for (ptrdiff_t square = first; square < last; ++square, sums += p->panel_width) {
        ptrdiff_t at[3];
        LC_REAL *out[4] = {(LC_REAL *)c->result + lc_find_square(g, p, square, at) * g->y.image + panel->first};
        out[0] += lc_offset(&g->y, at);
        out[1] = at[2] + 1 < g->output[2] ? out[0] + g->y.pixel[2] : NULL;
        out[2] = p->height == 4 && at[1] + 1 < g->output[1] ? out[0] + g->y.pixel[1] : NULL;
        out[3] = out[1] && out[2] ? out[1] + g->y.pixel[1] : NULL;
        for (ptrdiff_t filter = 0; filter < panel->count; filter += LC_LANES) {
            const ptrdiff_t lanes = lc_min(LC_LANES, panel->count - filter);
            const LC_REAL *added = bias ? bias + filter : NULL;
            if (p->height == 4) winograd_outputs(sums + filter, p->sums, out, lanes, added, c->relu, 4);
            if (p->height == 1) winograd_outputs(sums + filter, p->sums, out, lanes, added, c->relu, 1);
            for (int k = 0; k < 4; ++k) out[k] = out[k] ? out[k] + LC_LANES : NULL;
        }
    }
}

/* Task: some squares, all filters. */
LC_NOINLINE void winograd_squares(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_winograd_plan *p = LC_CONST_PLAN(lc_winograd_plan, job);
    const ptrdiff_t first = lc_share(p->squares, job->tasks[1], task),
                    last = lc_share(p->squares, job->tasks[1], task + 1);
    const ptrdiff_t rows = job->kernels->rows[job->choices.vectors], parts = lc_ceil_div(last - first, rows);
    const lc_run run = {0, 0, g->group_channels};
    LC_REAL *sums = (LC_REAL *)(workspace + p->sums_at);
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    t.runs = &run;
    t.run_count = 1;
    t.row_stride = p->pixel;
    t.row_step = 1;
    t.vector_step = t.out_stride = p->panel_width;
    winograd_inputs(job, c, first, last, workspace);
    for (ptrdiff_t i = 0; i < p->panels; ++i) {
        const lc_panel panel = lc_find_panel(g, p->panel_width, i);
        const int vectors = vectors_for(panel.count);
        t.lane_count = (ptrdiff_t)vectors * LC_LANES; /* those behind the panel's end stay in the workspace */
        for (ptrdiff_t place = 0; place < p->places; ++place) {
            const LC_REAL *pixels = (const LC_REAL *)(workspace + p->pixels_at) + place * p->pixels;
            t.vector = (const LC_REAL *)shared + (i * p->places + place) * p->kernel;
            for (ptrdiff_t k = 0, row = 0, end; k < parts; ++k, row = end) {
                end = lc_share(last - first, parts, k + 1);
                t.row_data = pixels + row * p->pixel + panel.group * g->group_channels;
                t.out = sums + place * p->sums + row * p->panel_width;
                run_tile(&t, (int)(end - row), vectors);
            }
        }
        winograd_results(job, c, first, last, &panel, sums);
    }
}
