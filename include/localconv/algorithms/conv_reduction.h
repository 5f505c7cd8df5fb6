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
    run.broadcast = place[3] * g->x.image + lc_window_at(g, &g->x, index, NULL);
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

#else

/* Copies a panel's output gradients to [line][step][filter] and lets the runs read them there. */
LC_NOINLINE void LC_NAME(pack_gradient)(const lc_geometry *g, const lc_call *c, const lc_zone *z,
                                        const lc_block_lines *lines, const lc_panel *panel, ptrdiff_t width,
                                        LC_REAL *target, lc_run *runs) {
    const LC_REAL *source = (const LC_REAL *)c->gradient + panel->first * g->y.channel;
    const lc_copy copy = lc_copy_plane(lines->steps, lc_output_spacing(g, z), width, panel->count, g->y.channel, 1);
    for (ptrdiff_t i = 0; i < lines->count; ++i) {
        runs[i] = lines->runs[i];
        runs[i].vector = i * lines->steps * width;
        LC_NAME(move)(source + lines->runs[i].vector, target + runs[i].vector, copy);
    }
}

/* The sums of a slice: levels of the tree, the last being the partial gradient. Rows lie `stride` elements apart. */
typedef struct LC_NAME(tree) {
    LC_REAL *sums[LC_TREE_LEVELS + 1];
    ptrdiff_t stride[LC_TREE_LEVELS + 1], levels, blocks; /* blocks: added so far */
} LC_NAME(tree);

/* Adds a level's sums to those of the next one, and begins it anew. */
LC_NOINLINE void LC_NAME(climb)(const LC_NAME(tree) * tree, const lc_kernel_slice *slice, ptrdiff_t level) {
    const ptrdiff_t stride = tree->stride[level], above = tree->stride[level + 1];
    for (ptrdiff_t row = 0; row < slice->last_row - slice->first_row; ++row)
        for (ptrdiff_t i = 0; i < slice->filters; i += LC_LANES) {
            const LC_MASK there = LC_NAME(first)(lc_min(slice->filters - i, LC_LANES));
            LC_REAL *from = tree->sums[level] + row * stride + i, *to = tree->sums[level + 1] + row * above + i;
            const LC_VEC sum = LC_NAME(add)(LC_NAME(load_first)(to, there), LC_NAME(load_first)(from, there));
            LC_NAME(store_first)(to, there, sum);
            LC_NAME(store_first)(from, there, LC_NAME(zero)());
        }
}

/* Takes note of one more block in the lowest level. */
LC_INLINE void LC_NAME(count_block)(LC_NAME(tree) * tree, const lc_kernel_slice *slice) {
    ptrdiff_t sums = ++tree->blocks;
    for (ptrdiff_t level = 0; level < tree->levels && sums % LC_TREE_TERMS == 0; ++level, sums /= LC_TREE_TERMS)
        LC_NAME(climb)(tree, slice, level);
}

/* Sets a level's sums to 0. */
LC_INLINE void LC_NAME(clear_level)(const LC_NAME(tree) * tree, const lc_kernel_slice *slice, ptrdiff_t level) {
    LC_NAME(clear)(tree->sums[level],
                   lc_copy_plane(slice->last_row - slice->first_row, 0, tree->stride[level], slice->filters, 0, 1));
}

/* A tree whose last level is the partial gradient of `partial`; the levels below it are 0. */
LC_INLINE LC_NAME(tree)
    LC_NAME(tree_of)(const lc_job *job, const lc_kernel_slice *slice, LC_REAL *partial, char *workspace) {
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const ptrdiff_t filters = job->geometry.filters;
    LC_NAME(tree) tree;
    tree.levels = p->levels;
    tree.blocks = 0;
    for (ptrdiff_t level = 0; level < p->levels; ++level) {
        tree.sums[level] =
            (LC_REAL *)(workspace + p->levels_at + level * lc_align(p->slice_elements * (ptrdiff_t)sizeof(LC_REAL)));
        tree.stride[level] = slice->filters;
        LC_NAME(clear_level)(&tree, slice, level);
    }
    tree.sums[p->levels] = partial + slice->first_row * filters + slice->first_filter;
    tree.stride[p->levels] = filters;
    return tree;
}

/* One block for one panel: adds its products to the lowest level of the slice's sums. */
LC_NOINLINE void LC_NAME(reduce_block)(const lc_job *job, const lc_kernel_slice *slice, const LC_NAME(tree) * tree,
                                       const lc_panel *panel, const lc_strips *way, const lc_strip *strips,
                                       ptrdiff_t strip_count, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const int vectors = LC_NAME(vectors_for)(panel->count);
    const ptrdiff_t limit = lc_rows(job, vectors);
    const ptrdiff_t group = panel->group * g->group_channels * g->x.channel;
    for (ptrdiff_t s = 0; s < strip_count; ++s) {
        const lc_strip *strip = strips + s;
        const ptrdiff_t from = lc_max(0, lc_ceil_div(lc_max(0, slice->first_row - strip->row), way->row_step));
        const ptrdiff_t to = lc_min(strip->n, lc_ceil_div(lc_max(0, slice->last_row - strip->row), way->row_step));
        const ptrdiff_t tiles = lc_ceil_div(lc_max(0, to - from), limit);
        for (ptrdiff_t i = 0, row = from, end; i < tiles; ++i, row = end) {
            end = from + lc_share(to - from, tiles, i + 1);
            t->broadcast_base = strip->input + row * way->input_step + group;
            t->out = tree->sums[0] + (strip->row + row * way->row_step - slice->first_row) * tree->stride[0] +
                     (panel->first - slice->first_filter);
            LC_NAME(run_tile)(t, (int)(end - row), vectors);
        }
    }
}

/* Blocks first .. last-1 of zone z, counted in the zone. */
LC_NOINLINE void LC_NAME(reduce_zone)(const lc_job *job, const lc_call *c, const lc_zone *z, ptrdiff_t first,
                                      ptrdiff_t last, const lc_kernel_slice *slice, LC_NAME(tree) * tree,
                                      char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const lc_strips way = lc_strips_of(g, &g->x, 0);
    lc_strip *strips = (lc_strip *)workspace;
    lc_run *packed_runs = (lc_run *)(workspace + p->lines_at) + LC_BLOCK_STEPS;
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    lc_block_lines lines = {0, 0, (lc_run *)(workspace + p->lines_at)};
    const ptrdiff_t strip_count = lc_build_strips(g, &g->x, &way, z->clip, strips);
    t->row_stride = way.input_step;
    t->broadcast_step = lc_input_spacing(g, z);
    t->out_stride = way.row_step * tree->stride[0];
    for (ptrdiff_t block = first; block < last; ++block) {
        lc_find_lines(g, z, block, &lines);
        t->run_count = lines.count;
        for (ptrdiff_t i = slice->first_panel; i < slice->last_panel; ++i) {
            const lc_panel panel = lc_find_panel(g, p->panel_width, i);
            t->lane_count = panel.count;
            if (p->pack) {
                LC_NAME(pack_gradient)(g, c, z, &lines, &panel, p->panel_width, stage, packed_runs);
                t->vector = stage;
                t->runs = packed_runs;
                t->vector_step = p->panel_width;
            } else {
                t->vector = (const LC_REAL *)c->gradient + panel.first;
                t->runs = lines.runs;
                t->vector_step = lc_output_spacing(g, z);
            }
            LC_NAME(reduce_block)(job, slice, tree, &panel, &way, strips, strip_count, t);
        }
        LC_NAME(count_block)(tree, slice);
    }
}

/* Task: [part of the positions][part of the panels][part of the rows]. */
LC_TASK(reduce_part) {
    const lc_geometry *g = &job->geometry;
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const ptrdiff_t rows = task % p->row_parts, panels = task / p->row_parts % p->panel_parts;
    const ptrdiff_t part = task / (p->row_parts * p->panel_parts);
    const ptrdiff_t from = lc_share(p->blocks, p->position_parts, part),
                    to = lc_share(p->blocks, p->position_parts, part + 1);
    const int partial = p->position_parts > 1;
    const lc_kernel_slice slice = lc_slice_of(g, p, panels, rows);
    LC_REAL *sums = partial ? (LC_REAL *)shared + part * g->window * g->filters : (LC_REAL *)c->result;
    LC_NAME(tree) tree = LC_NAME(tree_of)(job, &slice, sums, workspace);
    lc_tile t;
    if (task == 0) LC_NAME(sign)(c->ran);
    memset(&t, 0, sizeof t);
    t.broadcast = c->input;
    t.lanewise = g->lanewise;
    t.accumulate = 1;
    if (partial || !c->accumulate) LC_NAME(clear_level)(&tree, &slice, tree.levels);
    for (ptrdiff_t i = 0; i < p->zone_count; ++i) {
        const lc_zone *z = p->zones + i;
        const ptrdiff_t lo = lc_max(from, z->first_piece), hi = lc_min(to, z->last_piece);
        if (lo < hi)
            LC_NAME(reduce_zone)(job, c, z, lo - z->first_piece, hi - z->first_piece, &slice, &tree, workspace, &t);
    }
    for (ptrdiff_t level = 0; level < tree.levels; ++level) LC_NAME(climb)(&tree, &slice, level);
}

/* Adds up some elements of the partial gradients of all parts. */
LC_TASK(sum_parts) {
    const ptrdiff_t size = job->geometry.window * job->geometry.filters;
    const ptrdiff_t parts = LC_CONST_PLAN(lc_reduction_plan, job)->position_parts;
    const ptrdiff_t last = lc_min(size, (task + 1) * LC_SUM_ELEMENTS);
    const LC_REAL *partial = (const LC_REAL *)shared;
    for (ptrdiff_t i = task * LC_SUM_ELEMENTS; i < last; i += LC_LANES) {
        const LC_MASK there = LC_NAME(first)(lc_min(last - i, LC_LANES));
        LC_REAL *out = (LC_REAL *)c->result + i;
        LC_VEC sum = LC_NAME(load_first)(partial + i, there);
        for (ptrdiff_t part = 1; part < parts; ++part)
            sum = LC_NAME(add)(sum, LC_NAME(load_first)(partial + part * size + i, there));
        if (c->accumulate) sum = LC_NAME(add)(LC_NAME(load_first)(out, there), sum);
        LC_NAME(store_first)(out, there, sum);
    }
}

#endif
