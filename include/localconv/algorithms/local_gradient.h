/* What both gradients of a locally connected convolution share: going from position to position, the taps clipped to a
 * box of pixels, and the two ways to hold those.
 *
 *   direct   pixels are read or written where the caller's arrays are
 *   buffered    through a box of pixels in the thread's workspace
 *
 * Rows of a register tile are window elements here, a strip of them (geometry.h).
 */
#ifndef LOCALCONV_LOCAL_GRADIENT_H
#define LOCALCONV_LOCAL_GRADIENT_H

/* Elements from one image to the next in a workspace whose images lie one behind the other: an odd number of cache
 * lines, so that the same pixel of all images does not crowd into a few sets of the cache. */
LC_INLINE ptrdiff_t lc_padded_stride(ptrdiff_t elements, ptrdiff_t itemsize) {
    const ptrdiff_t lines = lc_align(elements * itemsize) / LC_ALIGNMENT;
    return (lines | 1) * (LC_ALIGNMENT / itemsize);
}

/* Where a task is: its output positions and input pixels, the operand in which windows lie, and the strips of the
 * window in hand. */
typedef struct lc_cursor {
    ptrdiff_t lo[3], hi[3];        /* output positions */
    ptrdiff_t from[3], extent[3];  /* input pixels: those that the windows' taps are clipped to */
    ptrdiff_t corner[3], elements; /* the pixel at the operand's start; elements of one image in the box */
    lc_layout layout;
    lc_strip_layout strip_layout;
    lc_range clip[3]; /* of the strips */
    lc_strip *strips;
    ptrdiff_t strip_count, window; /* window: offset of its unclipped origin */
} lc_cursor;

/* Begins a cursor; strip_count < 0: there are no strips yet. */
LC_INLINE void lc_begin_cursor(const lc_geometry *g, const lc_layout *layout, char *workspace, lc_cursor *w) {
    w->layout = *layout;
    w->strip_layout = lc_strip_layout_of(g, layout, g->channels_first);
    w->strips = (lc_strip *)workspace;
    w->strip_count = -1;
}

/* Moves to an output position; its taps are clipped to the cursor's pixels. Returns whether any tap is left out. */
LC_INLINE int lc_move_cursor(const lc_geometry *g, const ptrdiff_t index[3], lc_cursor *w) {
    lc_range now[3];
    ptrdiff_t present = 1;
    for (int axis = 0; axis < 3; ++axis) {
        now[axis] = lc_taps_within(g, axis, index[axis], w->from[axis], w->from[axis] + w->extent[axis]);
        present *= now[axis].hi - now[axis].lo;
    }
    w->window = lc_window_at(g, &w->layout, index, w->corner);
    if (w->strip_count < 0 || memcmp(now, w->clip, sizeof now) != 0) {
        memcpy(w->clip, now, sizeof now);
        w->strip_count = lc_build_strips(g, &w->layout, &w->strip_layout, now, w->strips);
    }
    return present < g->taps;
}

#endif
