/* The bodies of conv_narrow.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Whether n values are all finite. */
LC_INLINE int all_finite(const LC_REAL *values, ptrdiff_t n) {
    const LC_VEC zero = v_zero();
    LC_VEC acc[4] = {zero, zero, zero, zero}; /* inf * 0 and NaN * 0 are NaN; one chain of sums would wait for itself */
    ptrdiff_t i = 0;
    for (; i + 4 * LC_LANES <= n; i += 4 * LC_LANES) {
        LC_UNROLL
        for (int v = 0; v < 4; ++v) {
            acc[v] = v_fma(v_load(values + i + v * LC_LANES), zero, acc[v]);
        }
    }
    for (; i < n; i += LC_LANES)
        acc[0] = v_fma(v_load_first(values + i, v_first(lc_min(LC_LANES, n - i))), zero, acc[0]);
    return v_sum(v_add(v_add(acc[0], acc[1]), v_add(acc[2], acc[3]))) == 0;
}

/* Packs the kernel, [group][depth tap][height tap][u][phase][channel][filter], zero where a phase has no tap u, behind
 * a header. */
LC_NOINLINE void narrow_pack(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t taps = g->kernel[0] * g->kernel[1], block = g->group_channels * g->group_filters;
    LC_REAL *target = (LC_REAL *)(shared + LC_ALIGNMENT);
    lc_packed_header *header = (lc_packed_header *)shared;
    const lc_copy copy = lc_copy_plane(g->group_channels, g->filters, g->group_filters, g->group_filters, 1, 1);
    header->finite = 1;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t tap = 0; tap < taps; ++tap)
            for (ptrdiff_t t = 0; t < p->phase_taps * p->phases; ++t, target += block) {
                const ptrdiff_t scale = (tap * g->kernel[2] + t) * g->filters + group * g->group_filters;
                const ptrdiff_t first = scale + (tap * g->kernel[2] + t) * (g->group_channels - 1) * g->filters;
                if (t >= g->kernel[2])
                    memset(target, 0, (size_t)block * sizeof(LC_REAL));
                else if (job->storage == LC_native)
                    move((const LC_REAL *)c->kernel + first, target, copy);
                else
                    widen(job->storage, (const char *)c->kernel + first * lc_kernel_size(job), g->filters,
                          g->group_channels, g->group_filters, lc_scales_from(c, scale), target, g->group_filters);
                header->finite = header->finite && all_finite(target, block);
            }
}

/* Fills the box: outputs first .. last-1 of every line, the rest 0. */
LC_NOINLINE void fill_narrow_box(const lc_job *job, const lc_call *c, const lc_narrow_place *at, LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t start = at->from[2] - (p->phase_taps - 1) * p->shift;
    const ptrdiff_t first = lc_max(0, start), last = lc_min(g->output[2], at->to[2]);
    const ptrdiff_t corner[3] = {at->outputs[0].lo, at->outputs[1].lo, first};
    const ptrdiff_t extent[3] = {at->outputs[0].hi - corner[0], at->outputs[1].hi - corner[1], last - first};
    memset(box, 0, (size_t)at->box.image * sizeof(LC_REAL));
    if (first >= last) return;
    move((const LC_REAL *)c->gradient + at->image * g->y.image + lc_offset(&g->y, corner), box + (first - start),
         lc_copy_box(extent, g->filters, &g->y, &at->box));
}

/* Pixels whose m are lo .. hi-1 and whose phases are first .. last-1, of one group, from their stage
 * [phase][channel][m]. out: the caller's line, at its first pixel. */
LC_INLINE void deliver_pixels(const lc_job *job, ptrdiff_t group, lc_range m, lc_range phase, ptrdiff_t first_m,
                              const LC_REAL *stage, LC_REAL *out) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_copy copy;
    copy.count = 0;
    lc_add_dim(&copy, m.hi - m.lo, 1, p->phases * g->x.pixel[2]);
    lc_add_dim(&copy, phase.hi - phase.lo, g->group_channels * p->line, g->x.pixel[2]);
    lc_add_dim(&copy, g->group_channels, p->line, g->x.channel);
    move(stage + phase.lo * g->group_channels * p->line + (m.lo - first_m),
         out + (m.lo * p->phases + phase.lo - g->pad_before[2]) * g->x.pixel[2] +
             group * g->group_channels * g->x.channel,
         copy);
}

/* One line of pixels of one group to the caller: in the middle all phases of an m are pixels, at the ends some. */
LC_NOINLINE void deliver_narrow(const lc_job *job, const lc_narrow_place *at, ptrdiff_t group, const LC_REAL *stage,
                                LC_REAL *out) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t phases = LC_CONST_PLAN(lc_narrow_plan, job)->phases, end = g->pad_before[2] + g->input[2];
    for (ptrdiff_t m = at->from[2], next; m < at->to[2]; m = next) {
        const lc_range phase = {lc_max(0, g->pad_before[2] - m * phases), lc_min(phases, end - m * phases)};
        const int whole = phase.lo == 0 && phase.hi == phases;
        next = whole ? lc_min(at->to[2], end / phases) : m + 1;
        const lc_range ms = {m, next};
        deliver_pixels(job, group, ms, phase, at->from[2], stage, out);
    }
}

/* One kind of rows of a stretch, those rows.lo .. rows.hi-1 of the stage. packed, box and stage: of the group, from the
 * line's first m on. */
LC_NOINLINE void narrow_rows(const lc_job *job, const lc_narrow_stretch *stretch, ptrdiff_t first_m, lc_range rows,
                             int finite, const LC_REAL *packed, const LC_REAL *box, LC_REAL *stage, lc_tile *t) {
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t count = rows.hi - rows.lo, width = lc_tile_lanes(job);
    const ptrdiff_t parts = lc_ceil_div(count, job->kernels->rows[job->choices.vectors]);
    for (ptrdiff_t m = stretch->lo; m < stretch->hi; m += width) {
        const ptrdiff_t lanes = lc_min(width, stretch->hi - m);
        const int vectors = vectors_for(lanes);
        t->lane_count =
            finite ? (ptrdiff_t)vectors * LC_LANES : lanes; /* box and stage have room behind the line, not inside it */
        for (ptrdiff_t i = 0, row = rows.lo, end; i < parts; ++i, row = end) {
            end = rows.lo + lc_share(count, parts, i + 1);
            t->row_data = packed + row * job->geometry.group_filters;
            t->vector = box + (m - first_m);
            t->out = stage + row * p->line + (m - first_m);
            run_tile(t, (int)(end - row), vectors);
        }
    }
}

/* One line of pixels, all groups. */
LC_NOINLINE void narrow_line(const lc_job *job, const lc_call *c, const lc_narrow_place *at, const ptrdiff_t pixel[2],
                             const char *shared, char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const int finite = ((const lc_packed_header *)shared)->finite;
    const ptrdiff_t runs = g->kernel[0] * g->kernel[1] * p->phase_taps,
                    group_kernel = runs * p->rows * g->group_filters;
    const ptrdiff_t full_rows = at->finite ? p->rows : p->full_rows;
    const lc_range rows[2] = {{0, full_rows}, {full_rows, p->rows}};
    const LC_REAL *kernel = (const LC_REAL *)(shared + LC_ALIGNMENT), *box = (const LC_REAL *)(workspace + p->box_at);
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_REAL *out = (LC_REAL *)c->result + at->image * g->x.image + pixel[0] * g->x.pixel[0] + pixel[1] * g->x.pixel[1];
    lc_narrow_stretch stretch = {0, 0, {0, 0}, {(lc_run *)workspace, (lc_run *)workspace + runs}};
    for (ptrdiff_t group = 0; group < g->groups;
         ++group, kernel += group_kernel, box += g->group_filters * at->box.channel) {
        for (ptrdiff_t m = at->from[2]; m < at->to[2]; m = stretch.hi) {
            if (group == 0 || !finite) lc_find_stretch(job, at, pixel, m, finite, &stretch);
            for (int kind = 0; kind < 2; ++kind) {
                t->runs = stretch.runs[kind];
                t->run_count = stretch.run_count[kind];
                narrow_rows(job, &stretch, at->from[2], rows[kind], finite, kernel, box, stage, t);
            }
        }
        deliver_narrow(job, at, group, stage, out);
    }
}

LC_NOINLINE void narrow_lines(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_narrow_place at = lc_find_narrow(job, task);
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    t.row_stride = g->group_filters;
    t.row_step = 1;
    t.vector_step = at.box.channel;
    t.out_stride = p->line;
    fill_narrow_box(job, c, &at, box);
    at.finite = p->full_rows == p->rows || all_finite(box, at.box.image);
    for (ptrdiff_t i = at.from[0]; i < at.to[0]; ++i)
        for (ptrdiff_t j = at.from[1]; j < at.to[1]; ++j) {
            const ptrdiff_t pixel[2] = {i, j};
            narrow_line(job, c, &at, pixel, shared, workspace, &t);
        }
}
