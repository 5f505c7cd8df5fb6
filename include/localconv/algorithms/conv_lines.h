/* Shared convolution to few filters, or of planes: the lanes are output positions.
 *
 * With filters in the lanes most lanes would be empty. Here the filters of a group are the rows of a register tile, the
 * positions of a line its lanes, and it sums over the taps and the channels:
 *
 *     y[filter][o] = sum over (depth tap, height tap, t, channel)  kernel[.., t, channel, filter]
 *                                                                * box[channel][phase of t][..][o + shift of t]
 *
 * A task brings the pixels that its block of positions meets into a box [channel][phase][depth][height][m]. Along the
 * width, stride s, dilation d, tap t meets pixel o*s + t*d of the padded input, which is m*s + phase with
 * phase = t*d mod s and m = o + shift, shift = t*d / s.
 *
 * Taps beyond the first or last depth or height are left out. Along the width zeros stand for padding, harmless against
 * finite weights; where the kernel holds others, the line is cut into stretches whose positions meet the same taps.
 */
#ifndef LOCALCONV_CONV_LINES_H
#define LOCALCONV_CONV_LINES_H

#include "../zones.h"

typedef struct lc_lines_plan {
    ptrdiff_t phases, line, channel; /* line: elements of a line of the box; channel: from one to the next */
    int along_taps;                  /* runs go along the width's taps, else along the channels */
    int clipped;                     /* some positions' windows reach over an end of their line */
    ptrdiff_t class_count;
    lc_zone *classes;           /* the stretches of a line: start[2], count[2] and clip[2] */
    ptrdiff_t box_at, stage_at; /* in a thread's workspace; in front lie the runs */
} lc_lines_plan;
LC_PLAN_FITS(lc_lines_plan);

static inline int lc_finish_conv_lines(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, width = lc_tile_lanes(job), s = g->strides[2];
    lc_lines_plan *p = LC_PLAN(lc_lines_plan, job);
    ptrdiff_t lines = 1;
    if (!lc_vectors_fit(job) || !lc_block_fits(job, g->output) || (s > 1 && g->dilation[2] > 1)) return LC_REFUSED;
    p->class_count = lc_axis_classes(g, 2, NULL);
    if (p->class_count > job->choices.zone_limit) return LC_REFUSED;
    job->memory_bytes = p->class_count * (ptrdiff_t)sizeof(lc_zone);
    job->memory = p->classes = (lc_zone *)calloc((size_t)p->class_count, sizeof(lc_zone));
    if (!p->classes) return LC_NO_MEMORY;
    lc_axis_classes(g, 2, p->classes);
    for (ptrdiff_t k = 0; k < p->class_count; ++k)
        p->clipped = p->clipped || p->classes[k].clip[2].hi - p->classes[k].clip[2].lo < g->kernel[2];
    p->phases = lc_min(s, g->kernel[2]);
    p->along_taps = s == 1 && g->group_channels < g->kernel[2];
    /* A dilation that other algorithms step over lies inside a line here. */
    const double line = (double)lc_reach(g, 2) / (double)s + (double)job->choices.block[2] + (double)width;
    double box = line * (double)p->phases * (double)g->channels * (double)itemsize;
    if (line * (double)g->group_filters * (double)itemsize > (double)LC_MOST_BYTES) return LC_REFUSED;
    for (int axis = 0; axis < 2; ++axis) {
        const ptrdiff_t extent = lc_box_extent(g, axis, job->choices.block[axis]);
        box *= (double)extent + 1;
        if (box > (double)LC_MOST_BYTES) return LC_REFUSED;
        lines *= extent;
    }
    p->line = lc_round_up(job->choices.block[2], width) + (lc_reach(g, 2) - 1) / s;
    p->channel = lc_spread(p->phases * lines * p->line, itemsize);
    p->box_at = job->list_bytes = lc_align(g->taps * g->group_channels * (ptrdiff_t)sizeof(lc_run));
    job->box_bytes = g->channels * p->channel * itemsize;
    p->stage_at = p->box_at + lc_align(job->box_bytes);
    const ptrdiff_t stage = g->channels_first ? 0 : g->group_filters * p->line;
    job->thread_bytes = p->stage_at + lc_align(stage * itemsize);
    job->shared_bytes = LC_ALIGNMENT + g->window * g->filters * itemsize;
    job->tasks[0] = 1;
    job->tasks[1] = lc_count_blocks(g->output, job->choices.block) * g->batch;
    return LC_OK;
}

/* Where a kernel value of a group lies in the packed kernel, in rows of filters: in the order of the runs. */
LC_INLINE ptrdiff_t lc_lines_row(const lc_geometry *g, const lc_lines_plan *p, ptrdiff_t tap, ptrdiff_t channel) {
    const ptrdiff_t line = tap / g->kernel[2], t = tap % g->kernel[2];
    return p->along_taps ? (line * g->group_channels + channel) * g->kernel[2] + t : tap * g->group_channels + channel;
}

/* A task's place: the image, its output positions lo .. hi-1, and the box. */
typedef struct lc_lines_place {
    ptrdiff_t image, lo[3], hi[3], from[2], extent[2]; /* from, extent: the box's depths and heights */
    ptrdiff_t pixel[2], phase; /* elements of the box from one depth, height, phase to the next */
} lc_lines_place;

LC_INLINE lc_lines_place lc_find_lines_place(const lc_job *job, ptrdiff_t task) {
    const lc_geometry *g = &job->geometry;
    lc_lines_place at;
    at.image = lc_find_block(g->output, job->choices.block, task, at.lo, at.hi);
    for (int axis = 0; axis < 2; ++axis)
        lc_input_box(g, axis, at.lo[axis], at.hi[axis], at.from + axis, at.extent + axis);
    at.pixel[1] = LC_CONST_PLAN(lc_lines_plan, job)->line;
    at.pixel[0] = at.extent[1] * at.pixel[1];
    at.phase = at.extent[0] * at.pixel[0];
    return at;
}

/* The runs of positions whose windows are clipped so; their vector offsets are those of the first clipped tap's line
 * and of the position's own m. */
static inline ptrdiff_t lc_lines_runs(const lc_job *job, const lc_lines_place *at, const lc_range clip[3],
                                      lc_run *runs) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const ptrdiff_t s = g->strides[2], taps = clip[2].hi - clip[2].lo;
    ptrdiff_t count = 0;
    for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
        for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
            for (ptrdiff_t k = 0; k < (p->along_taps ? lc_min(taps, 1) * g->group_channels : taps); ++k) {
                const ptrdiff_t t = p->along_taps ? clip[2].lo : clip[2].lo + k, channel = p->along_taps ? k : 0;
                const ptrdiff_t step = t * g->dilation[2];
                lc_run *run = runs + count++;
                run->broadcast =
                    lc_lines_row(g, p, (i * g->kernel[1] + j) * g->kernel[2] + t, channel) * g->group_filters;
                run->vector = (i - clip[0].lo) * g->dilation[0] * at->pixel[0] +
                              (j - clip[1].lo) * g->dilation[1] * at->pixel[1] + step % s * at->phase + step / s +
                              channel * p->channel;
                run->n = p->along_taps ? taps : g->group_channels;
            }
    return count;
}

#else

/* Packs the kernel, [group][row][filter], behind a header. */
LC_TASK(lines_pack) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    lc_packed_header *header = (lc_packed_header *)shared;
    LC_REAL *packed = (LC_REAL *)(shared + LC_ALIGNMENT);
    const ptrdiff_t channel = p->along_taps ? g->kernel[2] * g->group_filters : g->group_filters;
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
            const ptrdiff_t first = (tap * g->group_channels) * g->filters + group * g->group_filters;
            LC_REAL *target = packed + (group * g->window + lc_lines_row(g, p, tap, 0)) * g->group_filters;
            if (job->store == LC_plain)
                LC_NAME(move)((const LC_REAL *)c->kernel + first, target,
                              lc_copy_plane(g->group_channels, g->filters, channel, g->group_filters, 1, 1));
            else
                LC_NAME(widen)(job->store, (const char *)c->kernel + first * lc_kernel_size(job), g->filters,
                               g->group_channels, g->group_filters,
                               lc_scales_from(c, tap * g->filters + group * g->group_filters), target, channel);
        }
    header->finite = !p->clipped || LC_NAME(all_finite)(packed, g->window * g->filters);
}

/* Fills the box: what is behind an end of the input is 0. */
LC_NOINLINE void LC_NAME(fill_lines_box)(const lc_job *job, const lc_call *c, const lc_lines_place *at, LC_REAL *box) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const ptrdiff_t s = g->strides[2];
    const LC_REAL *source =
        (const LC_REAL *)c->input + at->image * g->x.image + at->from[0] * g->x.pixel[0] + at->from[1] * g->x.pixel[1];
    for (ptrdiff_t phase = 0; phase < p->phases; ++phase, box += at->phase) {
        /* Element e of a line is pixel (lo + e) * s + phase - before. */
        const ptrdiff_t origin = at->lo[2] * s + phase - g->before[2];
        const ptrdiff_t first = lc_min(p->line, origin < 0 ? lc_ceil_div(-origin, s) : 0);
        const ptrdiff_t end = g->input[2] > origin ? lc_min(p->line, lc_ceil_div(g->input[2] - origin, s)) : 0;
        const ptrdiff_t count = lc_max(0, end - first);
        lc_copy copy;
        copy.count = 0;
        lc_add_dim(&copy, g->channels, g->x.channel, p->channel);
        lc_add_dim(&copy, at->extent[0], g->x.pixel[0], at->pixel[0]);
        lc_add_dim(&copy, at->extent[1], g->x.pixel[1], at->pixel[1]);
        lc_add_dim(&copy, first, 1, 1);
        LC_NAME(clear)(box, copy);
        copy.dims[3].count = p->line - first - count;
        LC_NAME(clear)(box + first + count, copy);
        copy.dims[3].count = count;
        copy.dims[3].source = s * g->x.pixel[2];
        if (count > 0) LC_NAME(move)(source + (origin + first * s) * g->x.pixel[2], box + first, copy);
    }
}

/* Positions from .. to-1 of a line, all filters of a group: tiles of some rows. whole: lanes behind `to` may be
 * written, which is so in the stage. kernel, box, out: of the group and of the block's first position. */
LC_INLINE void LC_NAME(lines_stretch)(const lc_job *job, lc_range positions, ptrdiff_t lo, int whole,
                                      const LC_REAL *kernel, const LC_REAL *box, const LC_REAL *bias, LC_REAL *out,
                                      lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t width = lc_tile_lanes(job);
    for (ptrdiff_t o = positions.lo; o < positions.hi; o += width) {
        const ptrdiff_t lanes = lc_min(width, positions.hi - o);
        const int vectors = LC_NAME(vectors_for)(lanes);
        const ptrdiff_t parts = lc_ceil_div(g->group_filters, job->kernels->rows[vectors]);
        t->lane_count = whole ? (ptrdiff_t)vectors * LC_LANES : lanes;
        t->vector = box + (o - lo);
        for (ptrdiff_t i = 0, row = 0, end; i < parts; ++i, row = end) {
            end = lc_share(g->group_filters, parts, i + 1);
            t->broadcast = kernel + row;
            t->bias = bias ? bias + row : NULL;
            t->out = out + row * t->out_stride + (o - lo);
            LC_NAME(run_tile)(t, (int)(end - row), vectors);
        }
    }
}

/* One line of positions of a group; line: its depth and height. */
LC_NOINLINE void LC_NAME(lines_line)(const lc_job *job, const lc_call *c, const lc_lines_place *at,
                                     const ptrdiff_t line[2], ptrdiff_t group, int finite, char *shared,
                                     char *workspace, lc_tile *t) {
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
        LC_NAME(lines_stretch)(job, positions, at->lo[2], finite && !g->channels_first, kernel, box, bias,
                               g->channels_first ? out : stage, t);
    }
    if (!g->channels_first)
        LC_NAME(move)(stage, out, lc_copy_plane(at->hi[2] - at->lo[2], 1, g->y.pixel[2], g->group_filters, p->line, 1));
}

LC_TASK(lines_block) {
    const lc_geometry *g = &job->geometry;
    const lc_lines_plan *p = LC_CONST_PLAN(lc_lines_plan, job);
    const lc_lines_place at = lc_find_lines_place(job, task);
    const int finite = ((const lc_packed_header *)shared)->finite;
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at);
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.row_stride = 1;
    t.broadcast_step = g->group_filters;
    t.vector_step = p->along_taps ? g->dilation[2] : p->channel;
    t.bias_axis = c->bias ? LC_BIAS_ROWS : LC_BIAS_NONE;
    t.relu = c->relu;
    LC_NAME(fill_lines_box)(job, c, &at, box);
    for (ptrdiff_t group = 0; group < g->groups; ++group)
        for (ptrdiff_t i = at.lo[0]; i < at.hi[0]; ++i)
            for (ptrdiff_t j = at.lo[1]; j < at.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                LC_NAME(lines_line)(job, c, &at, line, group, finite, shared, workspace, &t);
            }
}

#endif
