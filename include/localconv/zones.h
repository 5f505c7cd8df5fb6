/* Zones: the rectangles of output positions that meet the same taps, because padding clips them alike. A convolution
 * without padding is one zone; otherwise there is the interior, and the borders around it.
 */
#ifndef LOCALCONV_ZONES_H
#define LOCALCONV_ZONES_H

#include "geometry.h"

/* A zone, and how it is cut into pieces (register tiles, or blocks of a reduction) along one axis, 3 being the batch.
 * Pieces are counted over all zones: this one's are first_piece .. last_piece-1. */
typedef struct lc_zone {
    ptrdiff_t start[3], count[3];
    lc_range clip[3];
    int axis;
    ptrdiff_t pieces_along, first_piece, last_piece;
} lc_zone;

/* The output ranges of an axis that meet the same taps: writes start, count and clip of each into that axis; returns
 * how many. With classes == NULL it only counts. Both ends of the taps inside fall with the position, so equal taps are
 * one stretch, and its end is found by bisection: the time does not grow with the axis. */
static inline ptrdiff_t lc_axis_classes(const lc_geometry *g, int axis, lc_zone *classes) {
    ptrdiff_t count = 0;
    for (ptrdiff_t start = 0, end; start < g->output[axis]; start = end, ++count) {
        const lc_range clip = lc_taps_inside(g, axis, start);
        ptrdiff_t same = start, other = g->output[axis];
        while (other - same > 1) {
            const ptrdiff_t middle = same + (other - same) / 2;
            const lc_range there = lc_taps_inside(g, axis, middle);
            if (there.lo == clip.lo && there.hi == clip.hi)
                same = middle;
            else
                other = middle;
        }
        end = other;
        if (!classes) continue;
        classes[count].start[axis] = start;
        classes[count].count[axis] = end - start;
        classes[count].clip[axis] = clip;
    }
    return count;
}

static inline ptrdiff_t lc_count_zones(const lc_geometry *g) {
    return lc_axis_classes(g, 0, NULL) * lc_axis_classes(g, 1, NULL) * lc_axis_classes(g, 2, NULL);
}

/* Makes the zones, every combination of the three axes' classes, into `zones`, which has room for lc_count_zones. */
static inline void lc_fill_zones(const lc_geometry *g, lc_zone *zones) {
    ptrdiff_t n[3];
    /* The classes lie in the first places; from the back, a combination reads only places up to its own, not yet
     * overwritten. */
    for (int axis = 0; axis < 3; ++axis) n[axis] = lc_axis_classes(g, axis, zones);
    for (ptrdiff_t k = n[0] * n[1] * n[2] - 1; k >= 0; --k) {
        const ptrdiff_t class_of[3] = {k / (n[1] * n[2]), k / n[2] % n[1], k % n[2]};
        lc_zone z;
        memset(&z, 0, sizeof z);
        for (int axis = 0; axis < 3; ++axis) {
            z.start[axis] = zones[class_of[axis]].start[axis];
            z.count[axis] = zones[class_of[axis]].count[axis];
            z.clip[axis] = zones[class_of[axis]].clip[axis];
        }
        zones[k] = z;
    }
}

/* Elements of a zone along its axis, and lines of that length in it. */
LC_INLINE ptrdiff_t lc_zone_along(const lc_geometry *g, const lc_zone *z) {
    return z->axis == 3 ? g->batch : z->count[z->axis];
}

LC_INLINE ptrdiff_t lc_zone_lines(const lc_geometry *g, const lc_zone *z) {
    return g->batch * z->count[0] * z->count[1] * z->count[2] / lc_zone_along(g, z);
}

/* From one position along a zone's axis to the next, in the input and in the output. */
LC_INLINE ptrdiff_t lc_input_spacing(const lc_geometry *g, const lc_zone *z) {
    return z->axis == 3 ? g->x.image : g->strides[z->axis] * g->x.pixel[z->axis];
}

LC_INLINE ptrdiff_t lc_output_spacing(const lc_geometry *g, const lc_zone *z) {
    return z->axis == 3 ? g->y.image : g->y.pixel[z->axis];
}

/* Takes a number apart into coordinates inside a zone, width fastest, then height, depth and batch (place 3); along its
 * own axis a zone counts `along`. */
LC_INLINE void lc_zone_place(const lc_geometry *g, const lc_zone *z, ptrdiff_t number, ptrdiff_t along,
                             ptrdiff_t place[4]) {
    for (int k = 2; k >= -1; --k) {
        const int axis = k < 0 ? 3 : k;
        const ptrdiff_t extent = axis == z->axis ? along : axis == 3 ? g->batch : z->count[axis];
        place[axis] = number % extent;
        number /= extent;
    }
}

#endif
