/* Gradient of a shared convolution for the kernel: a reduction over all positions of all images.
 *
 * Rows of a register tile are window elements, lanes filters; it sums over a block of at most LC_BLOCK_STEPS output
 * positions, lines of a zone (zones.h), and adds that to a partial gradient in memory. A task of the first pass has a
 * part of the blocks and a slice of the kernel; the second pass adds the partial gradients up, in order. How many there
 * are follows from the geometry alone, so the number of threads changes nothing.
 *
 * Of many terms a tree of sums is made, because each addition rounds: LC_TREE_TERMS blocks are summed in the workspace,
 * so many of these sums in the next level there, and so on; the last level is the partial gradient. No sum has more
 * terms than a block has positions, LC_TREE_TERMS, or the kernel parts.
 */
#ifndef LOCALCONV_CONV_REDUCTION_H
#define LOCALCONV_CONV_REDUCTION_H

#include "../zones.h"

/* Positions of a block; a width too short for lines along it; elements of the kernel that one task adds up; elements of
 * a window that read an output gradient so often that its vectors are brought to whole cache lines first. */
enum { LC_BLOCK_STEPS = 128, LC_LINE_STEPS = 16, LC_SUM_ELEMENTS = 4096, LC_PACKED_WINDOW = 32 };
/* Sums of one level of the tree that make one of the next, and levels that no count of blocks exceeds. */
enum { LC_TREE_TERMS = 16, LC_TREE_LEVELS = 16 };

typedef struct lc_reduction_plan {
    int pack; /* a panel's output gradients are brought together before they are read */
    ptrdiff_t panel_width, panels;
    ptrdiff_t position_parts, panel_parts, row_parts; /* the choices, as far as there is so much to cut */
    ptrdiff_t blocks, zone_count;
    lc_zone *zones;
    ptrdiff_t levels, slice_elements;        /* of the tree below the partial gradient, and of each at most */
    ptrdiff_t lines_at, stage_at, levels_at; /* in a thread's workspace; in front lie the strips */
} lc_reduction_plan;
LC_PLAN_FITS(lc_reduction_plan);

/* A slice of the kernel: panels and rows, and the filters of these panels. */
typedef struct lc_kernel_slice {
    ptrdiff_t first_panel, last_panel, first_row, last_row, first_filter, filters;
} lc_kernel_slice;

static inline lc_kernel_slice lc_slice_of(const lc_geometry *g, const lc_reduction_plan *p, ptrdiff_t panel_part,
                                          ptrdiff_t row_part) {
    lc_kernel_slice slice;
    slice.first_panel = lc_share(p->panels, p->panel_parts, panel_part);
    slice.last_panel = lc_share(p->panels, p->panel_parts, panel_part + 1);
    slice.first_row = lc_share(g->window, p->row_parts, row_part);
    slice.last_row = lc_share(g->window, p->row_parts, row_part + 1);
    const lc_panel last = lc_find_panel(g, p->panel_width, slice.last_panel - 1);
    slice.first_filter = lc_find_panel(g, p->panel_width, slice.first_panel).first;
    slice.filters = last.first + last.count - slice.first_filter;
    return slice;
}

/* Plans the tree of sums: so many levels that a part of the blocks has at most LC_TREE_TERMS sums at the last one. */
static inline void lc_plan_tree(const lc_geometry *g, lc_reduction_plan *p) {
    ptrdiff_t filters = 0;
    for (ptrdiff_t sums = lc_ceil_div(p->blocks, p->position_parts); sums > LC_TREE_TERMS;
         sums = lc_ceil_div(sums, LC_TREE_TERMS))
        ++p->levels;
    for (ptrdiff_t part = 0; part < p->panel_parts; ++part)
        filters = lc_max(filters, lc_slice_of(g, p, part, 0).filters);
    p->slice_elements = p->levels ? lc_ceil_div(g->window, p->row_parts) * filters : 0;
}

/* Makes the zones and cuts them into blocks of lines along the width or, where it is short, along the longest axis. */
static inline int lc_make_blocks(lc_job *job, lc_reduction_plan *p) {
    const lc_geometry *g = &job->geometry;
    p->zone_count = lc_count_zones(g);
    if (p->zone_count > job->choices.zone_limit) return LC_REFUSED;
    job->memory_bytes = p->zone_count * (ptrdiff_t)sizeof(lc_zone);
    job->memory = p->zones = (lc_zone *)malloc((size_t)job->memory_bytes);
    if (!p->zones) return LC_NO_MEMORY;
    lc_fill_zones(g, p->zones);
    for (ptrdiff_t k = 0; k < p->zone_count; ++k) {
        lc_zone *z = p->zones + k;
        z->axis = 2;
        for (int axis = 0; axis < 3 && z->count[2] < LC_LINE_STEPS; ++axis)
            if (z->count[axis] > z->count[z->axis]) z->axis = axis;
        if (lc_zone_along(g, z) < LC_LINE_STEPS && g->batch > lc_zone_along(g, z)) z->axis = 3;
        const ptrdiff_t along = lc_zone_along(g, z), together = lc_max(1, LC_BLOCK_STEPS / along);
        z->pieces_along = lc_ceil_div(along, LC_BLOCK_STEPS);
        z->first_piece = p->blocks;
        p->blocks += lc_ceil_div(lc_zone_lines(g, z), together) * z->pieces_along;
        z->last_piece = p->blocks;
    }
    return LC_OK;
}

static inline int lc_finish_conv_reduction(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const lc_choices *choices = &job->choices;
    const ptrdiff_t itemsize = job->kernels->itemsize;
    lc_reduction_plan *p = LC_PLAN(lc_reduction_plan, job);
    if (!lc_vectors_fit(job) || choices->position_parts < 1 || choices->panel_parts < 1 || choices->row_parts < 1)
        return LC_REFUSED;
    const int status = lc_make_blocks(job, p);
    if (status != LC_OK) return status;
    p->panel_width = lc_tile_lanes(job);
    p->panels = lc_count_panels(g, p->panel_width);
    p->pack = g->filters > (g->channels_first ? 1 : p->panel_width) || g->window >= LC_PACKED_WINDOW;
    p->panel_parts = lc_min(choices->panel_parts, p->panels);
    p->row_parts = lc_min(choices->row_parts, g->window);
    p->position_parts = lc_min(choices->position_parts, p->blocks);
    p->lines_at = job->list_bytes = lc_align(lc_strip_limit(g) * (ptrdiff_t)sizeof(lc_strip));
    p->stage_at = p->lines_at + lc_align(2 * LC_BLOCK_STEPS * (ptrdiff_t)sizeof(lc_run));
    p->levels_at = p->stage_at + lc_align(p->pack ? LC_BLOCK_STEPS * p->panel_width * itemsize : 0);
    lc_plan_tree(g, p);
    job->thread_bytes = p->levels_at + p->levels * lc_align(p->slice_elements * itemsize);
    job->tasks[0] = p->position_parts * p->panel_parts * p->row_parts;
    if (p->position_parts > 1) {
        job->shared_bytes = p->position_parts * g->window * g->filters * itemsize;
        job->tasks[1] = lc_ceil_div(g->window * g->filters, LC_SUM_ELEMENTS);
    }
    return LC_OK;
}

/* The lines of one block: `count` of them, all `steps` long, as the runs of register tiles. */
typedef struct lc_block_lines {
    ptrdiff_t count, steps;
    lc_run *runs;
} lc_block_lines;

/* Offsets in the input and in the output gradient of line `line` of a zone, from step `first` of it on. */
LC_INLINE lc_run lc_zone_line(const lc_geometry *g, const lc_zone *z, ptrdiff_t line, ptrdiff_t first,
                              ptrdiff_t steps) {
    ptrdiff_t place[4], index[3];
    lc_run run;
    lc_zone_place(g, z, line, 1, place);
    place[z->axis] = first;
    for (int axis = 0; axis < 3; ++axis) index[axis] = z->start[axis] + place[axis];
    run.row = place[3] * g->x.image + lc_window_at(g, &g->x, index, NULL);
    run.vector = place[3] * g->y.image + lc_offset(&g->y, index);
    run.n = steps;
    return run;
}

static inline void lc_find_lines(const lc_geometry *g, const lc_zone *z, ptrdiff_t block, lc_block_lines *lines) {
    const ptrdiff_t along = lc_zone_along(g, z), all = lc_zone_lines(g, z),
                    together = lc_max(1, LC_BLOCK_STEPS / along);
    const ptrdiff_t start = block / z->pieces_along * together, segment = block % z->pieces_along;
    const ptrdiff_t first = lc_share(along, z->pieces_along, segment),
                    last = lc_share(along, z->pieces_along, segment + 1);
    lines->count = lc_min(together, all - start);
    lines->steps = last - first;
    for (ptrdiff_t i = 0; i < lines->count; ++i) lines->runs[i] = lc_zone_line(g, z, start + i, first, last - first);
}

#endif
