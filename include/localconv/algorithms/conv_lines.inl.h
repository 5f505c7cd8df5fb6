/* The bodies of conv_lines.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Packs the kernel, [group][row][filter], behind a header. */
LC_NOINLINE void lines_pack(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    lc_packed_header *header = (lc_packed_header *)shared;
    LC_REAL *packed = (LC_REAL *)(shared + LC_ALIGNMENT);
    const ptrdiff_t channel = p->along_taps ? g->kernel[2] * g->group_filters : g->group_filters;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
            const ptrdiff_t first = (tap * g->group_channels) * g->filters + group * g->group_filters;
            LC_REAL *target = packed + (group * g->window + lc_lines_row(g, p, tap, 0)) * g->group_filters;
            if (job->storage == LC_native)
                move((const LC_REAL *)c->kernel + first, target,
                     lc_copy_plane(g->group_channels, g->filters, channel, g->group_filters, 1, 1));
            else
                widen(job->storage, (const char *)c->kernel + first * lc_kernel_size(job), g->filters,
                      g->group_channels, g->group_filters,
                      lc_scales_from(c, tap * g->filters + group * g->group_filters), target, channel);
        }
    header->finite = !p->clipped || all_finite(packed, g->window * g->filters);
}

/* Fills the box: what is behind an end of the input is 0. */
LC_NOINLINE void fill_lines_box(const lc_job *job, const lc_call *c, const lc_lines_place *at, LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const ptrdiff_t s = g->strides[2];
    const LC_REAL *source =
        (const LC_REAL *)c->input + at->image * g->x.image + at->from[0] * g->x.pixel[0] + at->from[1] * g->x.pixel[1];
    for (ptrdiff_t phase = 0; phase < p->phases; ++phase, box += at->phase) {
        /* Element e of a line is pixel (lo + e) * s + phase - before. */
        const ptrdiff_t origin = at->lo[2] * s + phase - g->pad_before[2];
        const ptrdiff_t first = lc_min(p->line, origin < 0 ? lc_ceil_div(-origin, s) : 0);
        const ptrdiff_t end = g->input[2] > origin ? lc_min(p->line, lc_ceil_div(g->input[2] - origin, s)) : 0;
        const ptrdiff_t count = lc_max(0, end - first);
        lc_copy copy;
        copy.count = 0;
        lc_add_dim(&copy, g->channels, g->x.channel, p->channel);
        lc_add_dim(&copy, at->extent[0], g->x.pixel[0], at->pixel[0]);
        lc_add_dim(&copy, at->extent[1], g->x.pixel[1], at->pixel[1]);
        lc_add_dim(&copy, first, 1, 1);
        clear(box, copy);
        copy.dims[3].count = p->line - first - count;
        clear(box + first + count, copy);
        copy.dims[3].count = count;
        copy.dims[3].source = s * g->x.pixel[2];
        if (count > 0) move(source + (origin + first * s) * g->x.pixel[2], box + first, copy);
    }
}

/* Positions from .. to-1 of a line, all filters of a group: tiles of some rows. whole: lanes behind `to` may be
 * written, which is so in the stage. kernel, box, out: of the group and of the block's first position. */
LC_INLINE void lines_stretch(const lc_job *job, lc_range positions, ptrdiff_t lo, int whole, const LC_REAL *kernel,
                             const LC_REAL *box, const LC_REAL *bias, LC_REAL *out, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t width = lc_tile_lanes(job);
    for (ptrdiff_t o = positions.lo; o < positions.hi; o += width) {
        const ptrdiff_t lanes = lc_min(width, positions.hi - o);
        const int vectors = vectors_for(lanes);
        const ptrdiff_t parts = lc_ceil_div(g->group_filters, job->kernels->rows[vectors]);
        t->lane_count = whole ? (ptrdiff_t)vectors * LC_LANES : lanes;
        t->vector = box + (o - lo);
        for (ptrdiff_t i = 0, row = 0, end; i < parts; ++i, row = end) {
            end = lc_share(g->group_filters, parts, i + 1);
            t->row_data = kernel + row;
            t->bias = bias ? bias + row : NULL;
            t->out = out + row * t->out_stride + (o - lo);
            run_tile(t, (int)(end - row), vectors);
        }
    }
}

/* One line of positions of a group; line: its depth and height. */
LC_NOINLINE void lines_line(const lc_job *job, const lc_call *c, const lc_lines_place *at, const ptrdiff_t line[2],
                            ptrdiff_t group, int finite, char *shared, char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const LC_REAL *kernel = (const LC_REAL *)(shared + LC_ALIGNMENT) + group * g->window * g->group_filters;
    const LC_REAL *bias = c->bias ? (const LC_REAL *)c->bias + group * g->group_filters : NULL;
    const LC_REAL *box = (const LC_REAL *)(workspace + p->box_at) + group * g->group_channels * p->channel;
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_REAL *out = (LC_REAL *)c->result + at->image * g->y.image + line[0] * g->y.pixel[0] + line[1] * g->y.pixel[1] +
                   at->lo[2] * g->y.pixel[2] + group * g->group_filters * g->y.channel;
    lc_range clip[3] = {lc_taps_inside(g, 0, line[0]), lc_taps_inside(g, 1, line[1]), {0, g->kernel[2]}};
    lc_run *runs = (lc_run *)workspace;
    for (int axis = 0; axis < 2; ++axis)
        box += (lc_window_origin(g, axis, line[axis]) + clip[axis].lo * g->dilation[axis] - at->from[axis]) *
               at->pixel[axis];
    t->runs = runs;
    t->out_stride = g->channels_first ? g->y.channel : p->line;
    for (ptrdiff_t k = 0; k < (finite ? 1 : p->class_count); ++k) {
        lc_range positions = {at->lo[2], at->hi[2]};
        if (!finite) {
            clip[2] = p->classes[k].clip[2];
            positions.lo = lc_max(positions.lo, p->classes[k].start[2]);
            positions.hi = lc_min(positions.hi, p->classes[k].start[2] + p->classes[k].count[2]);
        }
        if (positions.lo >= positions.hi) continue;
        t->run_count = lc_lines_runs(job, at, clip, runs);
        lines_stretch(job, positions, at->lo[2], finite && !g->channels_first, kernel, box, bias,
                      g->channels_first ? out : stage, t);
    }
    if (!g->channels_first)
        move(stage, out, lc_copy_plane(at->hi[2] - at->lo[2], 1, g->y.pixel[2], g->group_filters, p->line, 1));
}

LC_NOINLINE void lines_block(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const lc_lines_place at = lc_find_lines_place(job, task);
    const int finite = ((const lc_packed_header *)shared)->finite;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    t.row_stride = 1;
    t.row_step = g->group_filters;
    t.vector_step = p->along_taps ? g->dilation[2] : p->channel;
    t.bias_axis = c->bias ? LC_BIAS_ROWS : LC_BIAS_NONE;
    t.relu = c->relu;
    fill_lines_box(job, c, &at, box);
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t i = at.lo[0]; i < at.hi[0]; ++i)
            for (ptrdiff_t j = at.lo[1]; j < at.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                lines_line(job, c, &at, line, group, finite, shared, workspace, &t);
            }
}
