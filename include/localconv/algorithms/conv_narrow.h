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
    ptrdiff_t phases, phase_taps, shift, rows; /* s; the u; m from one u to the next; phases * channels of a group */
    ptrdiff_t full_rows;                       /* rows of the phases that have a tap for every u */
    ptrdiff_t first_m;                         /* of the input's first pixel */
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
    p->phase_taps = lc_ceil_div(g->kernel[2], p->phases);
    p->shift = p->phases == 1 ? g->dilation[2] : 1;
    p->full_rows = (g->kernel[2] - (p->phase_taps - 1) * p->phases) * g->group_channels;
    p->first_m = g->pad_before[2] / p->phases;
    p->size[0] = g->input[0];
    p->size[1] = g->input[1];
    p->size[2] = (g->pad_before[2] + g->input[2] - 1) / p->phases + 1 - p->first_m;
    if (!lc_vectors_fit(job) || !lc_block_fits(job, p->size)) return LC_REFUSED;
    for (int axis = 0; axis < 2; ++axis)
        lines *=
            lc_min(g->output[axis], (job->choices.block[axis] + lc_effective_size(g, axis) - 2) / g->strides[axis] + 1);
    /* A dilation that other algorithms step over lies inside a line here, and a stride is as many rows. */
    const double line = (double)(p->phase_taps - 1) * (double)p->shift + (double)job->choices.block[2] + (double)width;
    const double rows = (double)p->phases * (double)g->group_channels;
    const ptrdiff_t runs = g->kernel[0] * g->kernel[1] * p->phase_taps;
    if (line * (double)(g->filters * lines) * (double)itemsize > (double)LC_MOST_BYTES ||
        rows * (line + (double)(runs * g->filters)) * (double)itemsize > (double)LC_MOST_BYTES)
        return LC_REFUSED;
    p->rows = p->phases * g->group_channels;
    p->line = (p->phase_taps - 1) * p->shift + lc_round_up(job->choices.block[2], width);
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
    u.lo = over < 0 ? 0 : lc_min(p->phase_taps, over / p->shift + 1);
    u.hi = lc_max(u.lo, lc_min(p->phase_taps, m / p->shift + 1));
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
                const ptrdiff_t reach = pixel[axis] + g->pad_before[axis] - tap[axis] * g->dilation[axis];
                const ptrdiff_t output = reach / g->strides[axis];
                meets = meets && reach >= 0 && reach % g->strides[axis] == 0 && output < g->output[axis];
                line += (output - at->outputs[axis].lo) * at->box.pixel[axis];
            }
            for (ptrdiff_t u = first; meets && u < last; ++u) {
                lc_run *run = runs + count++;
                run->row = ((i * g->kernel[1] + j) * p->phase_taps + u) * p->rows * g->group_filters;
                run->vector = line + (p->phase_taps - 1 - u) * p->shift;
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
    lc_range phase_taps = {0, p->phase_taps};
    stretch->lo = m;
    stretch->hi = at->to[2];
    if (!finite) {
        phase_taps = lc_narrow_turns(&job->geometry, p, m, &stretch->hi);
        stretch->hi = lc_min(stretch->hi, at->to[2]);
    }
    stretch->run_count[0] = lc_narrow_runs(job, at, pixel, phase_taps.lo, phase_taps.hi, stretch->runs[0]);
    stretch->run_count[1] =
        lc_narrow_runs(job, at, pixel, phase_taps.lo, lc_min(phase_taps.hi, p->phase_taps - 1), stretch->runs[1]);
}

#endif
