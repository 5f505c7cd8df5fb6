/* Gradient of a shared convolution for an input of few channels.
 *
 * With channels in the lanes most lanes would be empty, so the lanes are pixels here. Along the width, stride s, pixel
 * q of the padded input meets tap t in the window of output o when q = o*s + t. With q = m*s + phase and t = u*s +
 * phase that is m = o + u: the s phases and the channels together are the rows of a register tile, the m its lanes, and
 * it sums over the filters and the u:
 *
 *     stage[phase, channel][m] = sum over (depth tap, height tap, u, filter)  kernel[.., u*s + phase, channel, filter]
 *                                                                           * gradient[filter][.., m - u]
 *
 * A task brings the output gradients that its block of pixels meets into a box [filter][depth][height][m], zero where
 * there is no output, so that no tile has a border; a row of pixels then goes from its stage to the caller. (Undilated
 * where s > 1; with s = 1 and dilation d, u counts taps and m = o + u*d.)
 *
 * What is not in the sum must not be multiplied, or inf and NaN would spread. A zero that stands for no output is
 * harmless against finite weights; where the kernel holds others, the line is cut into stretches of m that meet outputs
 * with the same u, and each sums over these alone. A zero that stands for no tap, in phases that have none for the last
 * u, is harmless against finite gradients; where the box holds others, these phases are tiles of their own, without it.
 */
#ifndef LOCALCONV_CONV_NARROW_H
#define LOCALCONV_CONV_NARROW_H

typedef struct lc_narrow_plan {
    ptrdiff_t phases, turns, shift, rows; /* s; the u; m from one u to the next; phases * channels of a group */
    ptrdiff_t full_rows;                  /* rows of the phases that have a tap for every u */
    ptrdiff_t first_m;                    /* of the input's first pixel */
    ptrdiff_t size[3];          /* what is cut into blocks: pixels along depth and height, m along the width */
    ptrdiff_t line;             /* elements of a line of the box, and of a row of the stage */
    ptrdiff_t box_at, stage_at; /* in a thread's workspace; in front lie the runs */
} lc_narrow_plan;
LC_PLAN_FITS(lc_narrow_plan);

/* In front of a packed kernel. */
typedef struct lc_packed_header {
    int finite;
} lc_packed_header;

static inline int lc_finish_conv_narrow(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t width = lc_tile_lanes(job), itemsize = job->kernels->itemsize;
    lc_narrow_plan *p = LC_PLAN(lc_narrow_plan, job);
    ptrdiff_t lines = 1;
    if (g->strides[2] > 1 && g->dilation[2] > 1) return LC_REFUSED;
    p->phases = g->strides[2];
    p->turns = lc_ceil_div(g->kernel[2], p->phases);
    p->shift = p->phases == 1 ? g->dilation[2] : 1;
    p->full_rows = (g->kernel[2] - (p->turns - 1) * p->phases) * g->group_channels;
    p->first_m = g->before[2] / p->phases;
    p->size[0] = g->input[0];
    p->size[1] = g->input[1];
    p->size[2] = (g->before[2] + g->input[2] - 1) / p->phases + 1 - p->first_m;
    if (!lc_vectors_fit(job) || !lc_block_fits(job, p->size)) return LC_REFUSED;
    for (int axis = 0; axis < 2; ++axis)
        lines *= lc_min(g->output[axis], (job->choices.block[axis] + lc_reach(g, axis) - 2) / g->strides[axis] + 1);
    /* A dilation that other algorithms step over lies inside a line here, and a stride is as many rows. */
    const double line = (double)(p->turns - 1) * (double)p->shift + (double)job->choices.block[2] + (double)width;
    const double rows = (double)p->phases * (double)g->group_channels;
    const ptrdiff_t runs = g->kernel[0] * g->kernel[1] * p->turns;
    if (line * (double)(g->filters * lines) * (double)itemsize > (double)LC_MOST_BYTES ||
        rows * (line + (double)(runs * g->filters)) * (double)itemsize > (double)LC_MOST_BYTES)
        return LC_REFUSED;
    p->rows = p->phases * g->group_channels;
    p->line = (p->turns - 1) * p->shift + lc_round_up(job->choices.block[2], width);
    p->box_at = job->list_bytes = lc_align(2 * runs * (ptrdiff_t)sizeof(lc_run));
    job->box_bytes = g->filters * lines * p->line * itemsize;
    p->stage_at = p->box_at + lc_align(job->box_bytes);
    job->thread_bytes = p->stage_at + lc_align(p->rows * p->line * itemsize);
    job->shared_bytes = LC_ALIGNMENT + g->groups * runs * p->rows * g->group_filters * itemsize;
    job->tasks[0] = 1;
    job->tasks[1] = lc_count_blocks(p->size, job->choices.block) * g->batch;
    return LC_OK;
}

/* The u first .. last-1 for which m - u * shift is an output, and in *end the m up to which they are the same. */
static inline lc_range lc_narrow_turns(const lc_geometry *g, const lc_narrow_plan *p, ptrdiff_t m, ptrdiff_t *end) {
    const ptrdiff_t outputs = g->output[2], over = m - outputs;
    lc_range u;
    u.lo = over < 0 ? 0 : lc_min(p->turns, over / p->shift + 1);
    u.hi = lc_max(u.lo, lc_min(p->turns, m / p->shift + 1));
    *end = lc_min((m / p->shift + 1) * p->shift, over < 0 ? outputs : outputs + (over / p->shift + 1) * p->shift);
    return u;
}

/* A task's place: the image, its pixels' depths and heights from[axis] .. to[axis]-1 and its m from[2] .. to[2]-1, and
 * the box. */
typedef struct lc_narrow_place {
    ptrdiff_t image, from[3], to[3];
    lc_range outputs[2]; /* depths and heights of the output in the box */
    lc_layout box;       /* its pixels are outputs, its channels filters */
    int finite;          /* whether what the box holds is */
} lc_narrow_place;

LC_INLINE lc_narrow_place lc_find_narrow(const lc_job *job, ptrdiff_t task) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_narrow_place at;
    ptrdiff_t extent[3];
    at.image = lc_find_block(p->size, job->choices.block, task, at.from, at.to);
    at.from[2] += p->first_m;
    at.to[2] += p->first_m;
    for (int axis = 0; axis < 2; ++axis) {
        at.outputs[axis] = lc_positions_meeting(g, axis, at.from[axis], at.to[axis]);
        extent[axis] = at.outputs[axis].hi - at.outputs[axis].lo;
    }
    extent[2] = p->line;
    at.box = lc_layout_of(extent, g->filters, 1);
    at.finite = 0; /* not looked at yet */
    return at;
}

/* The runs of the pixels of one depth and height, over the u first .. last-1. */
static inline ptrdiff_t lc_narrow_runs(const lc_job *job, const lc_narrow_place *at, const ptrdiff_t pixel[2],
                                       ptrdiff_t first, ptrdiff_t last, lc_run *runs) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < g->kernel[0]; ++i)
        for (ptrdiff_t j = 0; j < g->kernel[1]; ++j) {
            const ptrdiff_t tap[2] = {i, j};
            ptrdiff_t line = 0;
            int meets = 1;
            for (int axis = 0; axis < 2; ++axis) {
                const ptrdiff_t reach = pixel[axis] + g->before[axis] - tap[axis] * g->dilation[axis];
                const ptrdiff_t output = reach / g->strides[axis];
                meets = meets && reach >= 0 && reach % g->strides[axis] == 0 && output < g->output[axis];
                line += (output - at->outputs[axis].lo) * at->box.pixel[axis];
            }
            for (ptrdiff_t u = first; meets && u < last; ++u) {
                lc_run *run = runs + count++;
                run->broadcast = ((i * g->kernel[1] + j) * p->turns + u) * p->rows * g->group_filters;
                run->vector = line + (p->turns - 1 - u) * p->shift;
                run->n = g->group_filters;
            }
        }
    return count;
}

/* A stretch of a line of pixels: m lo .. hi-1 that meet outputs with the same u, and the runs of their two kinds of
 * rows: those of phases that have a tap for every u, and those behind them, which have none for the last. */
typedef struct lc_narrow_stretch {
    ptrdiff_t lo, hi, run_count[2];
    lc_run *runs[2];
} lc_narrow_stretch;

/* Finds the stretch that begins at m: all of the line where zeros may stand for outputs that are not there. */
static inline void lc_find_stretch(const lc_job *job, const lc_narrow_place *at, const ptrdiff_t pixel[2], ptrdiff_t m,
                                   int finite, lc_narrow_stretch *stretch) {
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_range turns = {0, p->turns};
    stretch->lo = m;
    stretch->hi = at->to[2];
    if (!finite) {
        turns = lc_narrow_turns(&job->geometry, p, m, &stretch->hi);
        stretch->hi = lc_min(stretch->hi, at->to[2]);
    }
    stretch->run_count[0] = lc_narrow_runs(job, at, pixel, turns.lo, turns.hi, stretch->runs[0]);
    stretch->run_count[1] = lc_narrow_runs(job, at, pixel, turns.lo, lc_min(turns.hi, p->turns - 1), stretch->runs[1]);
}

#else

/* Whether n values are all finite. */
LC_INLINE int LC_NAME(all_finite)(const LC_REAL *values, ptrdiff_t n) {
    const LC_VEC zero = LC_NAME(zero)();
    LC_VEC acc[4] = {zero, zero, zero, zero}; /* inf * 0 and NaN * 0 are NaN; one chain of sums would wait for itself */
    ptrdiff_t i = 0;
    for (; i + 4 * LC_LANES <= n; i += 4 * LC_LANES) {
        LC_UNROLL
        for (int v = 0; v < 4; ++v) {
            acc[v] = LC_NAME(fma)(LC_NAME(load)(values + i + v * LC_LANES), zero, acc[v]);
        }
    }
    for (; i < n; i += LC_LANES)
        acc[0] = LC_NAME(fma)(LC_NAME(load_first)(values + i, LC_NAME(first)(lc_min(LC_LANES, n - i))), zero, acc[0]);
    return LC_NAME(sum)(LC_NAME(add)(LC_NAME(add)(acc[0], acc[1]), LC_NAME(add)(acc[2], acc[3]))) == 0;
}

/* Packs the kernel, [group][depth tap][height tap][u][phase][channel][filter], zero where a phase has no tap u, behind
 * a header. */
LC_TASK(narrow_pack) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t taps = g->kernel[0] * g->kernel[1], block = g->group_channels * g->group_filters;
    LC_REAL *target = (LC_REAL *)(shared + LC_ALIGNMENT);
    lc_packed_header *header = (lc_packed_header *)shared;
    const lc_copy copy = lc_copy_plane(g->group_channels, g->filters, g->group_filters, g->group_filters, 1, 1);
    header->finite = 1;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t tap = 0; tap < taps; ++tap)
            for (ptrdiff_t t = 0; t < p->turns * p->phases; ++t, target += block) {
                const ptrdiff_t scale = (tap * g->kernel[2] + t) * g->filters + group * g->group_filters;
                const ptrdiff_t first = scale + (tap * g->kernel[2] + t) * (g->group_channels - 1) * g->filters;
                if (t >= g->kernel[2])
                    memset(target, 0, (size_t)block * sizeof(LC_REAL));
                else if (job->store == LC_plain)
                    LC_NAME(move)((const LC_REAL *)c->kernel + first, target, copy);
                else
                    LC_NAME(widen)(job->store, (const char *)c->kernel + first * lc_kernel_size(job), g->filters,
                                   g->group_channels, g->group_filters, lc_scales_from(c, scale), target,
                                   g->group_filters);
                header->finite = header->finite && LC_NAME(all_finite)(target, block);
            }
}

/* Fills the box: outputs first .. last-1 of every line, the rest 0. */
LC_NOINLINE void LC_NAME(fill_narrow_box)(const lc_job *job, const lc_call *c, const lc_narrow_place *at,
                                          LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t start = at->from[2] - (p->turns - 1) * p->shift;
    const ptrdiff_t first = lc_max(0, start), last = lc_min(g->output[2], at->to[2]);
    const ptrdiff_t corner[3] = {at->outputs[0].lo, at->outputs[1].lo, first};
    const ptrdiff_t extent[3] = {at->outputs[0].hi - corner[0], at->outputs[1].hi - corner[1], last - first};
    memset(box, 0, (size_t)at->box.image * sizeof(LC_REAL));
    if (first >= last) return;
    LC_NAME(move)((const LC_REAL *)c->gradient + at->image * g->y.image + lc_offset(&g->y, corner),
                  box + (first - start), lc_copy_box(extent, g->filters, &g->y, &at->box));
}

/* Pixels whose m are lo .. hi-1 and whose phases are first .. last-1, of one group, from their stage
 * [phase][channel][m]. out: the caller's line, at its first pixel. */
LC_INLINE void LC_NAME(deliver_pixels)(const lc_job *job, ptrdiff_t group, lc_range m, lc_range phase,
                                       ptrdiff_t first_m, const LC_REAL *stage, LC_REAL *out) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_copy copy;
    copy.count = 0;
    lc_add_dim(&copy, m.hi - m.lo, 1, p->phases * g->x.pixel[2]);
    lc_add_dim(&copy, phase.hi - phase.lo, g->group_channels * p->line, g->x.pixel[2]);
    lc_add_dim(&copy, g->group_channels, p->line, g->x.channel);
    LC_NAME(move)(stage + phase.lo * g->group_channels * p->line + (m.lo - first_m),
                  out + (m.lo * p->phases + phase.lo - g->before[2]) * g->x.pixel[2] +
                      group * g->group_channels * g->x.channel,
                  copy);
}

/* One line of pixels of one group to the caller: in the middle all phases of an m are pixels, at the ends some. */
LC_NOINLINE void LC_NAME(deliver_narrow)(const lc_job *job, const lc_narrow_place *at, ptrdiff_t group,
                                         const LC_REAL *stage, LC_REAL *out) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t phases = LC_CONST_PLAN(lc_narrow_plan, job)->phases, end = g->before[2] + g->input[2];
    for (ptrdiff_t m = at->from[2], next; m < at->to[2]; m = next) {
        const lc_range phase = {lc_max(0, g->before[2] - m * phases), lc_min(phases, end - m * phases)};
        const int whole = phase.lo == 0 && phase.hi == phases;
        next = whole ? lc_min(at->to[2], end / phases) : m + 1;
        const lc_range ms = {m, next};
        LC_NAME(deliver_pixels)(job, group, ms, phase, at->from[2], stage, out);
    }
}

/* One kind of rows of a stretch, those rows.lo .. rows.hi-1 of the stage. packed, box and stage: of the group, from the
 * line's first m on. */
LC_NOINLINE void LC_NAME(narrow_rows)(const lc_job *job, const lc_narrow_stretch *stretch, ptrdiff_t first_m,
                                      lc_range rows, int finite, const LC_REAL *packed, const LC_REAL *box,
                                      LC_REAL *stage, lc_tile *t) {
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const ptrdiff_t count = rows.hi - rows.lo, width = lc_tile_lanes(job);
    const ptrdiff_t parts = lc_ceil_div(count, job->kernels->rows[job->choices.vectors]);
    for (ptrdiff_t m = stretch->lo; m < stretch->hi; m += width) {
        const ptrdiff_t lanes = lc_min(width, stretch->hi - m);
        const int vectors = LC_NAME(vectors_for)(lanes);
        t->lane_count =
            finite ? (ptrdiff_t)vectors * LC_LANES : lanes; /* box and stage have room behind the line, not inside it */
        for (ptrdiff_t i = 0, row = rows.lo, end; i < parts; ++i, row = end) {
            end = rows.lo + lc_share(count, parts, i + 1);
            t->broadcast = packed + row * job->geometry.group_filters;
            t->vector = box + (m - first_m);
            t->out = stage + row * p->line + (m - first_m);
            LC_NAME(run_tile)(t, (int)(end - row), vectors);
        }
    }
}

/* One line of pixels, all groups. */
LC_NOINLINE void LC_NAME(narrow_line)(const lc_job *job, const lc_call *c, const lc_narrow_place *at,
                                      const ptrdiff_t pixel[2], const char *shared, char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    const int finite = ((const lc_packed_header *)shared)->finite;
    const ptrdiff_t runs = g->kernel[0] * g->kernel[1] * p->turns, group_kernel = runs * p->rows * g->group_filters;
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
                LC_NAME(narrow_rows)(job, &stretch, at->from[2], rows[kind], finite, kernel, box, stage, t);
            }
        }
        LC_NAME(deliver_narrow)(job, at, group, stage, out);
    }
}

LC_TASK(narrow_lines) {
    const lc_geometry *g = &job->geometry;
    const lc_narrow_plan *p = LC_CONST_PLAN(lc_narrow_plan, job);
    lc_narrow_place at = lc_find_narrow(job, task);
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.row_stride = g->group_filters;
    t.broadcast_step = 1;
    t.vector_step = at.box.channel;
    t.out_stride = p->line;
    LC_NAME(fill_narrow_box)(job, c, &at, box);
    at.finite = p->full_rows == p->rows || LC_NAME(all_finite)(box, at.box.image);
    for (ptrdiff_t i = at.from[0]; i < at.to[0]; ++i)
        for (ptrdiff_t j = at.from[1]; j < at.to[1]; ++j) {
            const ptrdiff_t pixel[2] = {i, j};
            LC_NAME(narrow_line)(job, c, &at, pixel, shared, workspace, &t);
        }
}

#endif
