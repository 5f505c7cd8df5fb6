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
    const double line = (double)lc_effective_size(g, 2) / (double)s + (double)job->choices.block[2] + (double)width;
    double box = line * (double)p->phases * (double)g->channels * (double)itemsize;
    if (line * (double)g->group_filters * (double)itemsize > (double)LC_MOST_BYTES) return LC_REFUSED;
    for (int axis = 0; axis < 2; ++axis) {
        const ptrdiff_t extent = lc_box_extent(g, axis, job->choices.block[axis]);
        box *= (double)extent + 1;
        if (box > (double)LC_MOST_BYTES) return LC_REFUSED;
        lines *= extent;
    }
    p->line = lc_round_up(job->choices.block[2], width) + (lc_effective_size(g, 2) - 1) / s;
    p->channel = lc_padded_stride(p->phases * lines * p->line, itemsize);
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
                run->row = lc_lines_row(g, p, (i * g->kernel[1] + j) * g->kernel[2] + t, channel) * g->group_filters;
                run->vector = (i - clip[0].lo) * g->dilation[0] * at->pixel[0] +
                              (j - clip[1].lo) * g->dilation[1] * at->pixel[1] + step % s * at->phase + step / s +
                              channel * p->channel;
                run->n = p->along_taps ? taps : g->group_channels;
            }
    return count;
}

#endif
