/* The bodies of local_grad_kernel.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Copies the cursor's box of images first .. first+count-1, one image behind the other, channels inside. */
LC_NOINLINE void fill_pixel_box(const lc_geometry *g, const lc_call *c, const lc_cursor *w, ptrdiff_t first,
                                ptrdiff_t count, LC_REAL *box) {
    const LC_REAL *source = (const LC_REAL *)c->input + first * g->x.image + lc_offset(&g->x, w->from);
    const lc_copy copy = lc_copy_box(w->extent, g->channels, &g->x, &w->layout);
    for (ptrdiff_t image = 0; image < count; ++image)
        move(source + image * g->x.image, box + image * w->elements, copy);
}

/* One position's gradient, all tiles of the panels. gradient: of the first image, at filter 0. */
LC_NOINLINE void kernel_gradient_at(const lc_job *job, const lc_call *c, const lc_cursor *w, ptrdiff_t index,
                                    const ptrdiff_t panels[2], const LC_REAL *gradient, lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    LC_REAL *out = (LC_REAL *)c->result + index * g->window * g->filters;
    const ptrdiff_t ahead = w->strip_layout.row_step == 1 ? job->choices.rows_ahead * g->filters : 0;
    t->out_stride = w->strip_layout.row_step * g->filters;
    for (ptrdiff_t k = panels[0]; k < panels[1]; ++k) {
        const lc_panel panel = lc_find_panel(g, lc_tile_lanes(job), k);
        const int vectors = vectors_for(panel.count);
        const ptrdiff_t limit = lc_rows(job, vectors);
        t->lane_count = panel.count;
        t->vector = gradient + panel.first;
        for (ptrdiff_t s = 0; s < w->strip_count; ++s) {
            const lc_strip *strip = w->strips + s;
            const ptrdiff_t tiles = lc_ceil_div(strip->n, limit);
            const ptrdiff_t base = w->window + strip->input + panel.group * g->group_channels * w->layout.channel;
            for (ptrdiff_t i = 0, row = 0, end; i < tiles; ++i, row = end) {
                end = lc_share(strip->n, tiles, i + 1);
                t->row_base = base + row * w->strip_layout.input_step;
                LC_REAL *target = out + (strip->row + row * w->strip_layout.row_step) * g->filters + panel.first;
                t->out = target;
                t->prefetch = ahead > 0 ? (const char *)(target + ahead) : NULL;
                run_tile(t, (int)(end - row), vectors);
            }
        }
    }
}

/* Sets one position's gradient to 0 in the panels: the rows that meet padding stay so. */
LC_NOINLINE void clear_panels(const lc_job *job, const lc_call *c, ptrdiff_t index, const ptrdiff_t panels[2]) {
    const lc_geometry *g = &job->geometry;
    const lc_panel last = lc_find_panel(g, lc_tile_lanes(job), panels[1] - 1);
    const ptrdiff_t first = lc_find_panel(g, lc_tile_lanes(job), panels[0]).first;
    const lc_copy copy = lc_copy_plane(g->window, 0, g->filters, last.first + last.count - first, 0, 1);
    clear((LC_REAL *)c->result + index * g->window * g->filters + first, copy);
}

/* A line of the cursor's positions, for the images of one chunk. */
LC_NOINLINE void kernel_gradient_line(const lc_job *job, const lc_call *c, lc_cursor *w, const ptrdiff_t line[2],
                                      const ptrdiff_t panels[2], ptrdiff_t first, ptrdiff_t images, LC_REAL *stage,
                                      lc_tile *t) {
    const lc_geometry *g = &job->geometry;
    const int packed = LC_CONST_PLAN(lc_local_kernel_plan, job)->packed;
    const ptrdiff_t start = (line[0] * g->output[1] + line[1]) * g->output[2], segment = job->choices.segment;
    const ptrdiff_t stride = lc_padded_stride(segment * g->filters, (ptrdiff_t)sizeof(LC_REAL));
    t->vector_step = packed ? stride : g->y.image;
    for (ptrdiff_t k = w->lo[2]; k < w->hi[2]; k += segment) {
        const ptrdiff_t count = lc_min(segment, w->hi[2] - k);
        const LC_REAL *gradient = stage;
        if (packed)
            gather_gradient(g, c, start + k, count, first, images, stage, stride);
        else
            gradient = (const LC_REAL *)c->gradient + first * g->y.image + (start + k) * g->filters;
        for (ptrdiff_t i = 0; i < count; ++i) {
            const ptrdiff_t index[3] = {line[0], line[1], k + i};
            const int clipped = lc_move_cursor(g, index, w);
            if (clipped && !t->accumulate) clear_panels(job, c, start + k + i, panels);
            kernel_gradient_at(job, c, w, start + k + i, panels, gradient + i * g->filters, t);
        }
    }
}

LC_NOINLINE void local_grad_kernel_task(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const lc_local_kernel_plan *p = LC_CONST_PLAN(lc_local_kernel_plan, job);
    const ptrdiff_t parts = job->choices.filter_parts, part = task % parts, chunk = job->choices.batch_chunk;
    const ptrdiff_t panels[2] = {lc_share(p->panels, parts, part), lc_share(p->panels, parts, part + 1)};
    LC_REAL *box = (LC_REAL *)(workspace + p->box_at), *stage = (LC_REAL *)(workspace + p->stage_at);
    lc_cursor w;
    lc_layout layout = g->x;
    lc_run batch = {0, 0, 0};
    lc_tile t;
    if (task == 0) sign(c->ran);
    memset(&t, 0, sizeof t);
    lc_find_block(g->output, job->choices.block, task / parts, w.lo, w.hi);
    for (int axis = 0; axis < 3; ++axis) {
        lc_input_box(g, axis, w.lo[axis], w.hi[axis], w.from + axis, w.extent + axis);
        w.corner[axis] = p->buffered ? w.from[axis] : 0;
    }
    if (p->buffered) layout = lc_layout_of(w.extent, g->channels, 0);
    w.elements = lc_padded_stride(layout.image, (ptrdiff_t)sizeof(LC_REAL));
    lc_begin_cursor(g, &layout, workspace, &w);
    t.runs = &batch;
    t.run_count = 1;
    t.row_stride = w.strip_layout.input_step;
    t.prefetch_far = 1;
    t.channel_lanes = g->channel_lanes;
    t.row_step = p->buffered ? w.elements : g->x.image;
    for (ptrdiff_t first = 0; first < g->batch; first += chunk) {
        const ptrdiff_t images = lc_min(chunk, g->batch - first);
        batch.n = images;
        if (job->choices.rows_ahead > 0)
            t.prefetch_step = lc_rows_asked_for(job, images) * g->filters * (ptrdiff_t)sizeof(LC_REAL);
        t.row_data = p->buffered ? box : (const LC_REAL *)c->input + first * g->x.image;
        t.accumulate = c->accumulate || first > 0;
        if (p->buffered) fill_pixel_box(g, c, &w, first, images, box);
        for (ptrdiff_t i = w.lo[0]; i < w.hi[0]; ++i)
            for (ptrdiff_t j = w.lo[1]; j < w.hi[1]; ++j) {
                const ptrdiff_t line[2] = {i, j};
                kernel_gradient_line(job, c, &w, line, panels, first, images, stage, &t);
            }
    }
}
