/* The bodies of columns.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Task: a share of the call's windows. */
LC_NOINLINE void gather_windows(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t last = lc_share(c->count, job->tasks[0], task + 1);
    if (task == 0) sign(c->ran);
    for (ptrdiff_t i = lc_share(c->count, job->tasks[0], task); i < last; ++i) {
        LC_REAL *row = (LC_REAL *)c->result + i * g->window;
        ptrdiff_t in_image, in_row;
        lc_copy copy;
        if (!lc_window_copy(g, c->first + i, 1, &in_image, &in_row, &copy))
            memset(row, 0, (size_t)g->window * sizeof(LC_REAL));
        move((const LC_REAL *)c->input + in_image, row + in_row, copy);
    }
}

/* Task: the call's windows of one image. */
LC_NOINLINE void scatter_windows(LC_TASK_ARGUMENTS) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t last = lc_min(c->first + c->count, (task + 1) * g->positions);
    if (task == 0) sign(c->ran);
    for (ptrdiff_t i = lc_max(c->first, task * g->positions); i < last; ++i) {
        ptrdiff_t in_image, in_row;
        lc_copy copy;
        lc_window_copy(g, i, 0, &in_image, &in_row, &copy);
        move_adding((const LC_REAL *)c->gradient + (i - c->first) * g->window + in_row, (LC_REAL *)c->result + in_image,
                    copy);
    }
}
