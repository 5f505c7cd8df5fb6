/* Dimensions of a copy between two layouts; copy.inl.h makes the copies. */
#ifndef LOCALCONV_VIEW_H
#define LOCALCONV_VIEW_H

#include "geometry.h"

/* One dimension of a copy: how many elements, and from one to the next in the source and in the target. */
typedef struct lc_dim {
    ptrdiff_t count, source, target;
} lc_dim;

/* A copy: its dimensions, those that vary faster in memory behind the others. */
enum { LC_DIMS = 6 };
typedef struct lc_copy {
    lc_dim dims[LC_DIMS];
    int count;
} lc_copy;

LC_INLINE void lc_add_dim(lc_copy *copy, ptrdiff_t count, ptrdiff_t source, ptrdiff_t target) {
    lc_dim *dim = copy->dims + copy->count++;
    dim->count = count;
    dim->source = source;
    dim->target = target;
}

/* Two dimensions, each by its count and its steps in the source and in the target. */
LC_INLINE lc_copy lc_copy_plane(ptrdiff_t count, ptrdiff_t source, ptrdiff_t target, ptrdiff_t inner_count,
                                ptrdiff_t inner_source, ptrdiff_t inner_target) {
    const lc_copy copy = {{{count, source, target}, {inner_count, inner_source, inner_target}}, 2};
    return copy;
}

/* A box of pixels with some of their channels. */
LC_INLINE lc_copy lc_copy_box(const ptrdiff_t extent[3], ptrdiff_t channels, const lc_layout *source,
                              const lc_layout *target) {
    lc_copy copy;
    copy.count = 0;
    for (int axis = 0; axis < 3; ++axis) lc_add_dim(&copy, extent[axis], source->pixel[axis], target->pixel[axis]);
    lc_add_dim(&copy, channels, source->channel, target->channel);
    return copy;
}

/* Leaves out dimensions of one element, and joins neighbours of which one continues the other on both sides. Returns
 * whether there is anything to copy. */
static inline int lc_join_dims(lc_copy *copy) {
    int left = 0;
    for (int i = 0; i < copy->count; ++i) {
        lc_dim dim = copy->dims[i];
        if (dim.count == 0) return 0;
        if (dim.count == 1) continue;
        if (left > 0) {
            const lc_dim *before = copy->dims + left - 1;
            if (before->source == dim.count * dim.source && before->target == dim.count * dim.target) {
                dim.count *= before->count;
                --left;
            }
        }
        copy->dims[left++] = dim;
    }
    copy->count = left;
    return 1;
}

/* Takes out the dimension that is contiguous in the source (or in the target); one element if there is none. */
static inline lc_dim lc_take_contiguous(lc_copy *copy, int in_target) {
    lc_dim dim = {1, 1, 1};
    for (int i = 0; i < copy->count; ++i)
        if ((in_target ? copy->dims[i].target : copy->dims[i].source) == 1) {
            dim = copy->dims[i];
            for (--copy->count; i < copy->count; ++i) copy->dims[i] = copy->dims[i + 1];
        }
    return dim;
}

/* Steps to the next combination of all dimensions, the last one fastest. Returns 0 behind the last combination. */
LC_INLINE int lc_next(const lc_copy *copy, ptrdiff_t index[LC_DIMS], ptrdiff_t *source, ptrdiff_t *target) {
    for (int i = copy->count - 1; i >= 0; --i) {
        const lc_dim dim = copy->dims[i];
        *source += dim.source;
        *target += dim.target;
        if (++index[i] < dim.count) return 1;
        *source -= dim.count * dim.source;
        *target -= dim.count * dim.target;
        index[i] = 0;
    }
    return 0;
}

#endif
