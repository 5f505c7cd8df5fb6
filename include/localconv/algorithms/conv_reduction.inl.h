/* The bodies of conv_reduction.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Copies a panel's output gradients to [line][step][filter] and lets the runs read them there. */
LC_NOINLINE void pack_gradient(const lc_geometry *g, const lc_call *c, const lc_zone *z, const lc_block_lines *lines,
                               const lc_panel *panel, ptrdiff_t width, LC_REAL *target, lc_run *runs) {
    const LC_REAL *source = (const LC_REAL *)c->gradient + panel->first * g->y.channel;
    const lc_copy copy = lc_copy_plane(lines->steps, lc_output_spacing(g, z), width, panel->count, g->y.channel, 1);
    for (ptrdiff_t i = 0; i < lines->count; ++i) {
        runs[i] = lines->runs[i];
        runs[i].vector = i * lines->steps * width;
        move(source + lines->runs[i].vector, target + runs[i].vector, copy);
    }
}

/* The sums of a slice: levels of the tree, the last being the partial gradient. Rows lie `stride` elements apart. */
typedef struct lc_sum_tree {
    LC_REAL *sums[LC_TREE_LEVELS + 1];
    ptrdiff_t stride[LC_TREE_LEVELS + 1], levels, blocks; /* blocks: added so far */
} lc_sum_tree;

/* Adds a level's sums to those of the next one, and begins it anew. */
LC_NOINLINE void climb(const lc_sum_tree *tree, const lc_kernel_slice *slice, ptrdiff_t level) {
    const ptrdiff_t stride = tree->stride[level], above = tree->stride[level + 1];
    for (ptrdiff_t row = 0; row < slice->last_row - slice->first_row; ++row)
        for (ptrdiff_t i = 0; i < slice->filters; i += LC_LANES) {
            const LC_MASK there = v_first(lc_min(slice->filters - i, LC_LANES));
            LC_REAL *from = tree->sums[level] + row * stride + i, *to = tree->sums[level + 1] + row * above + i;
            const LC_VEC sum = v_add(v_load_first(to, there), v_load_first(from, there));
            v_store_first(to, there, sum);
            v_store_first(from, there, v_zero());
        }
}

/* Takes note of one more block in the lowest level. */
LC_INLINE void count_block(lc_sum_tree *tree, const lc_kernel_slice *slice) {
    ptrdiff_t sums = ++tree->blocks;
    for (ptrdiff_t level = 0; level < tree->levels && sums % LC_TREE_TERMS == 0; ++level, sums /= LC_TREE_TERMS)
        climb(tree, slice, level);
}

/* Sets a level's sums to 0. */
LC_INLINE void clear_level(const lc_sum_tree *tree, const lc_kernel_slice *slice, ptrdiff_t level) {
    clear(tree->sums[level],
          lc_copy_plane(slice->last_row - slice->first_row, 0, tree->stride[level], slice->filters, 0, 1));
}

/* A tree whose last level is the partial gradient of `partial`; the levels below it are 0. */
LC_INLINE lc_sum_tree sum_tree_of(const lc_job *job, const lc_kernel_slice *slice, LC_REAL *partial, char *workspace) {
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const ptrdiff_t filters = job->geometry.filters;
    lc_sum_tree tree;
    tree.levels = p->levels;
    tree.blocks = 0;
    for (ptrdiff_t level = 0; level < p->levels; ++level) {
        tree.sums[level] =
            (LC_REAL *)(workspace + p->levels_at + level * lc_align(p->slice_elements * (ptrdiff_t)sizeof(LC_REAL)));
        tree.stride[level] = slice->filters;
        clear_level(&tree, slice, level);
    }
    tree.sums[p->levels] = partial + slice->first_row * filters + slice->first_filter;
    tree.stride[p->levels] = filters;
    return tree;
}

/* One block for one panel: adds its products to the lowest level of the slice's sums. */
LC_NOINLINE void reduce_block(const lc_job *job, const lc_kernel_slice *slice, const lc_sum_tree *tree,
                              const lc_panel *panel, const lc_strip_layout *strip_layout, const lc_strip *strips,
                              ptrdiff_t strip_count, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const int vectors = vectors_for(panel->count);
    const ptrdiff_t limit = lc_rows(job, vectors);
    const ptrdiff_t group = panel->group * g->group_channels * g->x.channel;
    for (ptrdiff_t s = 0; s < strip_count; ++s) {
        const lc_strip *strip = strips + s;
        const ptrdiff_t from = lc_max(0, lc_ceil_div(lc_max(0, slice->first_row - strip->row), strip_layout->row_step));
        const ptrdiff_t to =
            lc_min(strip->n, lc_ceil_div(lc_max(0, slice->last_row - strip->row), strip_layout->row_step));
        const ptrdiff_t tiles = lc_ceil_div(lc_max(0, to - from), limit);
        for (ptrdiff_t i = 0, row = from, end; i < tiles; ++i, row = end) {
            end = from + lc_share(to - from, tiles, i + 1);
            t->row_base = strip->input + row * strip_layout->input_step + group;
            t->out = tree->sums[0] + (strip->row + row * strip_layout->row_step - slice->first_row) * tree->stride[0] +
                     (panel->first - slice->first_filter);
            run_tile(t, (int)(end - row), vectors);
        }
    }
}

/* Blocks first .. last-1 of zone z, counted in the zone. */
LC_NOINLINE void reduce_zone(const lc_job *job, const lc_call *c, const lc_zone *z, ptrdiff_t first, ptrdiff_t last,
                             const lc_kernel_slice *slice, lc_sum_tree *tree, char *workspace, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const lc_strip_layout strip_layout = lc_strip_layout_of(g, &g->x, 0);
    lc_strip *strips = (lc_strip *)workspace;
    lc_run *packed_runs = (lc_run *)(workspace + p->lines_at) + LC_BLOCK_STEPS;
    LC_REAL *stage = (LC_REAL *)(workspace + p->stage_at);
    lc_block_lines lines = {0, 0, (lc_run *)(workspace + p->lines_at)};
    const ptrdiff_t strip_count = lc_build_strips(g, &g->x, &strip_layout, z->clip, strips);
    t->row_stride = strip_layout.input_step;
    t->row_step = lc_input_spacing(g, z);
    t->out_stride = strip_layout.row_step * tree->stride[0];
    for (ptrdiff_t block = first; block < last; ++block) {
        lc_find_lines(g, z, block, &lines);
        t->run_count = lines.count;
        for (ptrdiff_t i = slice->first_panel; i < slice->last_panel; ++i) {
            const lc_panel panel = lc_find_panel(g, p->panel_width, i);
            t->lane_count = panel.count;
            if (p->pack) {
                pack_gradient(g, c, z, &lines, &panel, p->panel_width, stage, packed_runs);
                t->vector = stage;
                t->runs = packed_runs;
                t->vector_step = p->panel_width;
            } else {
                t->vector = (const LC_REAL *)c->gradient + panel.first;
                t->runs = lines.runs;
                t->vector_step = lc_output_spacing(g, z);
            }
            reduce_block(job, slice, tree, &panel, &strip_layout, strips, strip_count, t);
        }
        count_block(tree, slice);
    }
}

/* Task: [part of the positions][part of the panels][part of the rows]. */
LC_NOINLINE void reduce_part(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_reduction_plan *p = LC_CONST_PLAN(lc_reduction_plan, job);
    const ptrdiff_t rows = task % p->row_parts, panels = task / p->row_parts % p->panel_parts;
    const ptrdiff_t part = task / (p->row_parts * p->panel_parts);
    const ptrdiff_t from = lc_share(p->blocks, p->position_parts, part),
                    to = lc_share(p->blocks, p->position_parts, part + 1);
    const int partial = p->position_parts > 1;
    const lc_kernel_slice slice = lc_slice_of(g, p, panels, rows);
    LC_REAL *sums = partial ? (LC_REAL *)shared + part * g->window * g->filters : (LC_REAL *)c->result;
    lc_sum_tree tree = sum_tree_of(job, &slice, sums, workspace);
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    t.row_data = c->input;
    t.channel_lanes = g->channel_lanes;
    t.accumulate = 1;
    if (partial || !c->accumulate) clear_level(&tree, &slice, tree.levels);
    for (ptrdiff_t i = 0; i < p->zone_count; ++i) {
        const lc_zone *z = p->zones + i;
        const ptrdiff_t lo = lc_max(from, z->first_piece), hi = lc_min(to, z->last_piece);
        if (lo < hi) reduce_zone(job, c, z, lo - z->first_piece, hi - z->first_piece, &slice, &tree, workspace, &t);
    }
    for (ptrdiff_t level = 0; level < tree.levels; ++level) climb(&tree, &slice, level);
}

/* Adds up some elements of the partial gradients of all parts. */
LC_NOINLINE void sum_parts(LC_TASK_ARGUMENTS) {
    const ptrdiff_t size = job->geometry.window * job->geometry.filters;
    const ptrdiff_t parts = LC_CONST_PLAN(lc_reduction_plan, job)->position_parts;
    const ptrdiff_t last = lc_min(size, (task + 1) * LC_SUM_ELEMENTS);
    const LC_REAL *partial = (const LC_REAL *)shared;
    for (ptrdiff_t i = task * LC_SUM_ELEMENTS; i < last; i += LC_LANES) {
        const LC_MASK there = v_first(lc_min(last - i, LC_LANES));
        LC_REAL *out = (LC_REAL *)c->result + i;
        LC_VEC sum = v_load_first(partial + i, there);
        for (ptrdiff_t part = 1; part < parts; ++part) sum = v_add(sum, v_load_first(partial + part * size + i, there));
        if (c->accumulate) sum = v_add(v_load_first(out, there), sum);
        v_store_first(out, there, sum);
    }
}
