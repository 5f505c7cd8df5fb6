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
 */

/* A task's place: the image, its pixels' depths and heights from[axis] .. to[axis]-1 and its m from[2] .. to[2]-1, and the box. */
typedef struct {
    ptrdiff_t image, from[3], to[3];
    lc_range outputs[2];            /* depths and heights of the output in the box */
    ptrdiff_t line, height, filter; /* elements of the box from one line, one depth, one filter to the next */
} LC_NAME(narrow_place);

/* Packs the kernel, [group][depth tap][height tap][u][phase][channel][filter], zero where a phase has no tap u. */
LC_NOINLINE void LC_NAME(narrow_pack)(const lc_call *c, const lc_narrow_plan *p, void *packed) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t taps = g->kernel[0] * g->kernel[1], block = g->group_channels * g->group_filters;
    LC_REAL *target = (LC_REAL *)packed;
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

/* The runs of the pixels of one depth and height. */
LC_NOINLINE ptrdiff_t LC_NAME(narrow_runs)(const lc_geometry *g, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at,
                                           const ptrdiff_t pixel[2], lc_run *runs) {
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
            for (ptrdiff_t u = 0; meets && u < p->turns; ++u) {
                lc_run *run = runs + count++;
                run->rows = ((i * g->kernel[1] + j) * p->turns + u) * p->rows * g->group_filters;
                run->lanes = (output[0] - at->outputs[0].lo) * at->height + (output[1] - at->outputs[1].lo) * at->line +
                             (p->turns - 1 - u) * p->shift;
                run->n = g->group_filters;
            }
        }
    return count;
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

LC_NOINLINE void LC_NAME(narrow_line)(const lc_call *c, const lc_narrow_plan *p, const LC_NAME(narrow_place) *at, const LC_REAL *packed,
                                      const LC_REAL *box, LC_REAL *stage, lc_tile *t) {
    const lc_geometry *g = c->geometry;
    const ptrdiff_t parts = lc_ceil_div(p->rows, LC_NAME(rows_limit)(p->vectors)), width = (ptrdiff_t)p->vectors * LC_LANES;
    for (ptrdiff_t m = 0; m < at->to[2] - at->from[2]; m += width) {
        const int vectors = (int)lc_min(p->vectors, LC_NAME(vectors_for)(at->to[2] - at->from[2] - m));
        t->lane_count = (ptrdiff_t)vectors * LC_LANES;
        for (ptrdiff_t i = 0, row = 0, end; i < parts; ++i, row = end) {
            end = lc_share(p->rows, parts, i + 1);
            t->rows = packed + row * g->group_filters;
            t->lanes = box + m;
            t->out = stage + row * p->line + m;
            LC_NAME(run_tile)(t, (int)(end - row), vectors);
        }
    }
}

LC_NOINLINE void LC_NAME(conv_narrow_task)(const lc_call *c, const lc_narrow_plan *p, ptrdiff_t task, const void *packed, char *workspace) {
    const lc_geometry *g = c->geometry;
    const LC_NAME(narrow_place) at = LC_NAME(find_narrow)(g, p, task);
    const ptrdiff_t group_kernel = g->kernel[0] * g->kernel[1] * p->turns * p->rows * g->group_filters;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at), *stage = (LC_REAL *)(workspace + p->stage_at);
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.runs = (const lc_run *)workspace;
    t.row_stride = g->group_filters;
    t.row_step = 1;
    t.lane_step = at.filter;
    t.out_stride = p->line;
    t.prefetch = (const char *)box;
    LC_NAME(fill_narrow_box)(c, p, &at, box);
    for (ptrdiff_t i = at.from[0]; i < at.to[0]; ++i)
        for (ptrdiff_t j = at.from[1]; j < at.to[1]; ++j) {
            const ptrdiff_t pixel[2] = {i, j};
            LC_REAL *out = (LC_REAL *)c->output + at.image * g->input_batch + i * g->input_stride[0] + j * g->input_stride[1];
            t.run_count = LC_NAME(narrow_runs)(g, p, &at, pixel, (lc_run *)workspace);
            for (ptrdiff_t group = 0; group < g->groups; ++group) {
                LC_NAME(narrow_line)(c, p, &at, (const LC_REAL *)packed + group * group_kernel, box + group * g->group_filters * at.filter, stage, &t);
                LC_NAME(deliver_narrow)(c, p, &at, group, stage, out);
            }
        }
}
