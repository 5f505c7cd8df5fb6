/* Gradient of a shared convolution for an input of few channels. (Body: included once per instance.)
 *
 * With channels in the lanes most lanes would be empty, so the lanes are pixels here. Along the width, stride s, pixel q of the padded
 * input meets tap t in the window of output o when q = o*s + t. With q = m*s + phase and t = u*s + phase that is m = o + u: the s phases
 * and the channels together are the rows of a register tile, the m its lanes, and it sums over the filters and the u:
 *
 *     stage[phase, channel][m] = sum over (depth tap, height tap, u, filter)  kernel[.., u*s + phase, channel, filter]
 *                                                                           * gradient[filter][.., m - u]
 *
 * A task brings the output gradients that its block of pixels meets into a box [filter][depth][height][m], zero where there is no
 * output, so that no tile has a border; a row of pixels then goes from its stage to the caller. (Undilated where s > 1; with s = 1
 * and dilation d, u counts taps and m = o + u*d.)
 *
 * What is not in the sum must not be multiplied, or inf and NaN would spread. Phases that have no tap for the last u are tiles of
 * their own, without it. A zero that stands for no output is harmless against finite weights; where the kernel holds others, the
 * line is cut into stretches of m that meet outputs with the same u, and each sums over these alone.
 */

/* In front of a packed kernel. */
typedef struct {
    int finite;
} LC_NAME(narrow_header);

/* A task's place: the image, its pixels' depths and heights from[axis] .. to[axis]-1 and its m from[2] .. to[2]-1, and the box. */
typedef struct {
    ptrdiff_t image, from[3], to[3];
    lc_range outputs[2];            /* depths and heights of the output in the box */
    ptrdiff_t line, height, filter; /* elements of the box from one line, one depth, one filter to the next */
} LC_NAME(narrow_place);

/* Whether n values are all finite. */
LC_INLINE int LC_NAME(all_finite)(const LC_REAL *values, ptrdiff_t n) {
    const LC_VEC zero = LC_NAME(zero)();
    LC_VEC acc = zero; /* inf * 0 and NaN * 0 are NaN */
    ptrdiff_t i = 0;
    for (; i + LC_LANES <= n; i += LC_LANES) acc = LC_NAME(fma)(LC_NAME(load)(values + i), zero, acc);
    if (i < n) acc = LC_NAME(fma)(LC_NAME(load_first)(values + i, LC_NAME(first)(n - i)), zero, acc);
    return LC_NAME(sum)(acc) == 0;
}

/* Packs the kernel, [group][depth tap][height tap][u][phase][channel][filter], zero where a phase has no tap u, behind a header. */
LC_NOINLINE void LC_NAME(narrow_pack)(const lc_call *c, const lc_narrow_plan *p, void *packed) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t taps = g->kernel[0] * g->kernel[1], block = g->group_channels * g->group_filters;
    LC_REAL *target = (LC_REAL *)((char *)packed + LC_ALIGNMENT);
    LC_NAME(narrow_header) *header = (LC_NAME(narrow_header) *)packed;
    header->finite = 1;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t tap = 0; tap < taps; ++tap)
            for (ptrdiff_t t = 0; t < p->turns * p->phases; ++t, target += block) {
                const LC_REAL *source = (const LC_REAL *)c->kernel + (tap * g->kernel[2] + t) * g->group_channels * g->filters;
                if (t >= g->kernel[2])
                    memset(target, 0, (size_t)block * sizeof(LC_REAL));
                else
                    for (ptrdiff_t channel = 0; channel < g->group_channels; ++channel)
                        memcpy(target + channel * g->group_filters, source + channel * g->filters + group * g->group_filters,
                               (size_t)g->group_filters * sizeof(LC_REAL));
                header->finite = header->finite && LC_NAME(all_finite)(target, block);
            }
}

LC_INLINE LC_NAME(narrow_place) LC_NAME(find_narrow)(const lc_geometry *g, const lc_narrow_plan *p, ptrdiff_t task) {
    LC_NAME(narrow_place) at;
    for (int axis = 2; axis >= 0; --axis) {
        const ptrdiff_t start = axis == 2 ? p->first_m : 0, end = axis == 2 ? p->last_m : g->input[axis];
        at.from[axis] = start + task % p->blocks[axis] * p->block[axis];
        at.to[axis] = lc_min(at.from[axis] + p->block[axis], end);
        if (axis < 2) at.outputs[axis] = lc_positions_at(g, axis, at.from[axis], at.to[axis]);
        task /= p->blocks[axis];
    }
    at.image = task;
    at.line = p->line;
    at.height = at.line * (at.outputs[1].hi - at.outputs[1].lo);
    at.filter = at.height * (at.outputs[0].hi - at.outputs[0].lo);
    return at;
}

/* Fills the box: outputs first .. last-1 of every line, the rest 0. */
LC_NOINLINE void LC_NAME(fill_narrow_box)(const lc_call *c, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at, LC_REAL *box) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t start = at->from[2] - (p->turns - 1) * p->shift;
    const ptrdiff_t first = lc_max(0, start), last = lc_min(g->output[2], at->to[2]);
    memset(box, 0, (size_t)(g->filters * at->filter) * sizeof(LC_REAL));
    if (first >= last) return;
    for (ptrdiff_t i = at->outputs[0].lo; i < at->outputs[0].hi; ++i)
        for (ptrdiff_t j = at->outputs[1].lo; j < at->outputs[1].hi; ++j) {
            const LC_REAL *source = (const LC_REAL *)c->gradient + at->image * g->output_batch + i * g->output_stride[0] +
                                    j * g->output_stride[1] + first * g->output_stride[2];
            LC_REAL *target = box + (i - at->outputs[0].lo) * at->height + (j - at->outputs[1].lo) * at->line + (first - start);
            if (!g->channels_first)
                LC_NAME(transpose_copy)(source, g->filters, last - first, g->filters, target, at->filter, 0);
            else
                for (ptrdiff_t f = 0; f < g->filters; ++f)
                    memcpy(target + f * at->filter, source + f * g->positions, (size_t)(last - first) * sizeof(LC_REAL));
        }
}

/* The runs of the pixels of one depth and height, over the u first .. last-1. */
LC_NOINLINE ptrdiff_t LC_NAME(narrow_runs)(const lc_geometry *g, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at,
                                           const ptrdiff_t pixel[2], ptrdiff_t first, ptrdiff_t last, lc_run *runs) {
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < g->kernel[0]; ++i)
        for (ptrdiff_t j = 0; j < g->kernel[1]; ++j) {
            const ptrdiff_t tap[2] = {i, j};
            ptrdiff_t output[2];
            int meets = 1;
            for (int axis = 0; axis < 2; ++axis) {
                const ptrdiff_t reach = pixel[axis] + g->before[axis] - tap[axis] * g->dilation[axis];
                output[axis] = reach / g->strides[axis];
                meets = meets && reach >= 0 && reach % g->strides[axis] == 0 && output[axis] < g->output[axis];
            }
            for (ptrdiff_t u = first; meets && u < last; ++u) {
                lc_run *run = runs + count++;
                run->rows = ((i * g->kernel[1] + j) * p->turns + u) * p->rows * g->group_filters;
                run->lanes = (output[0] - at->outputs[0].lo) * at->height + (output[1] - at->outputs[1].lo) * at->line +
                             (p->turns - 1 - u) * p->shift;
                run->n = g->group_filters;
            }
        }
    return count;
}

/* The u for which m - u * shift is an output, and in *end the m up to which they are the same. */
LC_INLINE lc_range LC_NAME(narrow_turns)(const lc_geometry *g, const lc_narrow_plan *p, ptrdiff_t m, ptrdiff_t *end) {
    const ptrdiff_t outputs = g->output[2], over = m - outputs;
    lc_range u;
    u.lo = over < 0 ? 0 : lc_min(p->turns, over / p->shift + 1);
    u.hi = lc_max(u.lo, lc_min(p->turns, m / p->shift + 1));
    *end = lc_min((m / p->shift + 1) * p->shift, over < 0 ? outputs : outputs + (over / p->shift + 1) * p->shift);
    return u;
}

/* One line of pixels from its stage [phase][channel][m] to the caller. */
LC_NOINLINE void LC_NAME(deliver_narrow)(const lc_call *c, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at, ptrdiff_t group,
                                         const LC_REAL *stage, LC_REAL *out) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t before = g->before[2], size = g->input[2];
    /* m whose phases all are pixels of the input */
    const ptrdiff_t lo = lc_max(at->from[2], lc_ceil_div(before, p->phases)), hi = lc_min(at->to[2], (before + size) / p->phases);
    const int joined = !g->channels_first && g->groups == 1 && lo < hi;
    if (joined)
        LC_NAME(transpose_copy)(stage + (lo - at->from[2]), p->line, p->rows, hi - lo, out + (lo * p->phases - before) * g->channels, p->rows, 0);
    for (ptrdiff_t m = at->from[2]; m < at->to[2]; ++m) {
        if (joined && m == lo) m = hi; /* done above */
        for (ptrdiff_t row = 0; m < at->to[2] && row < p->rows; ++row) {
            const ptrdiff_t pixel = m * p->phases + row / g->group_channels - before;
            const ptrdiff_t channel = group * g->group_channels + row % g->group_channels;
            if (pixel >= 0 && pixel < size)
                out[pixel * g->input_stride[2] + channel * g->input_channel] = stage[row * p->line + m - at->from[2]];
        }
    }
}

/* A stretch of a line of pixels: m lo .. hi-1 that meet outputs with the same u, and the runs of their two kinds of rows: those of
 * phases that have a tap for every u, and those behind them, which have none for the last. */
typedef struct {
    ptrdiff_t lo, hi, run_count[2];
    lc_run *runs[2];
} LC_NAME(narrow_stretch);

/* Finds the stretch that begins at m: all of the line where zeros may stand for outputs that are not there. */
LC_NOINLINE void LC_NAME(find_stretch)(const lc_geometry *g, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at,
                                       const ptrdiff_t pixel[2], ptrdiff_t m, int finite, LC_NAME(narrow_stretch) *stretch) {
    lc_range turns = {0, p->turns};
    stretch->lo = m;
    stretch->hi = at->to[2];
    if (!finite) {
        turns = LC_NAME(narrow_turns)(g, p, m, &stretch->hi);
        stretch->hi = lc_min(stretch->hi, at->to[2]);
    }
    stretch->run_count[0] = LC_NAME(narrow_runs)(g, p, at, pixel, turns.lo, turns.hi, stretch->runs[0]);
    stretch->run_count[1] = LC_NAME(narrow_runs)(g, p, at, pixel, turns.lo, lc_min(turns.hi, p->turns - 1), stretch->runs[1]);
}

/* One kind of rows of a stretch, those from .. to-1 of the stage. packed, box and stage: of the group, from the line's first m on. */
LC_NOINLINE void LC_NAME(narrow_rows)(const lc_geometry *g, const lc_narrow_plan *p, const LC_NAME(narrow_stretch) *stretch, ptrdiff_t first_m,
                                      ptrdiff_t from, ptrdiff_t to, int finite, const LC_REAL *packed, const LC_REAL *box, LC_REAL *stage,
                                      lc_tile *t) {
    const ptrdiff_t parts = lc_ceil_div(to - from, LC_NAME(rows_limit)(p->vectors)), width = (ptrdiff_t)p->vectors * LC_LANES;
    for (ptrdiff_t m = stretch->lo; m < stretch->hi; m += width) {
        const ptrdiff_t lanes = lc_min(width, stretch->hi - m);
        const int vectors = LC_NAME(vectors_for)(lanes);
        t->lane_count = finite ? (ptrdiff_t)vectors * LC_LANES : lanes; /* box and stage have room behind the line, not inside it */
        for (ptrdiff_t i = 0, row = from, end; i < parts; ++i, row = end) {
            end = from + lc_share(to - from, parts, i + 1);
            t->rows = packed + row * g->group_filters;
            t->lanes = box + (m - first_m);
            t->out = stage + row * p->line + (m - first_m);
            LC_NAME(run_tile)(t, (int)(end - row), vectors);
        }
    }
}

/* One line of pixels, all groups. */
LC_NOINLINE void LC_NAME(narrow_line)(const lc_call *c, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at, const ptrdiff_t pixel[2],
                                      const void *packed, char *workspace, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const int finite = ((const LC_NAME(narrow_header) *)packed)->finite;
    const ptrdiff_t runs = g->kernel[0] * g->kernel[1] * p->turns, group_kernel = runs * p->rows * g->group_filters;
    const ptrdiff_t ends[3] = {0, (g->kernel[2] - (p->turns - 1) * p->phases) * g->group_channels, p->rows};
    const LC_REAL *kernel = (const LC_REAL *)((const char *)packed + LC_ALIGNMENT), *box = (const LC_REAL *)(workspace + p->box_at);
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    LC_REAL *out = (LC_REAL *)c->output + at->image * g->input_batch + pixel[0] * g->input_stride[0] + pixel[1] * g->input_stride[1];
    LC_NAME(narrow_stretch) stretch = {0, 0, {0, 0}, {(lc_run *)workspace, (lc_run *)workspace + runs}};
    for (ptrdiff_t group = 0; group < g->groups; ++group, kernel += group_kernel, box += g->group_filters * at->filter) {
        for (ptrdiff_t m = at->from[2]; m < at->to[2]; m = stretch.hi) {
            if (group == 0 || !finite) LC_NAME(find_stretch)(g, p, at, pixel, m, finite, &stretch);
            for (int kind = 0; kind < 2; ++kind) {
                t->runs = stretch.runs[kind];
                t->run_count = stretch.run_count[kind];
                LC_NAME(narrow_rows)(g, p, &stretch, at->from[2], ends[kind], ends[kind + 1], finite, kernel, box, stage, t);
            }
        }
        LC_NAME(deliver_narrow)(c, p, at, group, stage, out);
    }
}

LC_NOINLINE void LC_NAME(conv_narrow_task)(const lc_call *c, const lc_narrow_plan *p, ptrdiff_t task, const void *packed, char *workspace) {
    const lc_geometry *g = c->geometry;
    const LC_NAME(narrow_place) at = LC_NAME(find_narrow)(g, p, task);
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.row_stride = g->group_filters;
    t.row_step = 1;
    t.lane_step = at.filter;
    t.out_stride = p->line;
    t.prefetch = (const char *)box;
    LC_NAME(fill_narrow_box)(c, p, &at, box);
    for (ptrdiff_t i = at.from[0]; i < at.to[0]; ++i)
        for (ptrdiff_t j = at.from[1]; j < at.to[1]; ++j) {
            const ptrdiff_t pixel[2] = {i, j};
            LC_NAME(narrow_line)(c, p, &at, pixel, packed, workspace, &t);
        }
}
