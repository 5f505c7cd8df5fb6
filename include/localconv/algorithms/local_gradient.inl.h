/* The bodies of local_gradient.h, once for each instance. */
#ifndef LC_INSTANCE
#include "../editor.h"
#endif

/* Copies the output gradient of `count` positions from `index` on to [image][position][filter], images `stride`
 * elements apart. */
LC_NOINLINE void gather_gradient(const lc_geometry *g, const lc_call *c, ptrdiff_t index, ptrdiff_t count,
                                 ptrdiff_t first, ptrdiff_t images, LC_REAL *target, ptrdiff_t stride) {
    lc_copy copy;
    copy.count = 0;
    lc_add_dim(&copy, images, g->y.image, stride);
    lc_add_dim(&copy, count, g->y.pixel[2], g->filters);
    lc_add_dim(&copy, g->filters, g->y.channel, 1);
    move((const LC_REAL *)c->gradient + first * g->y.image + index * g->y.pixel[2], target, copy);
}
