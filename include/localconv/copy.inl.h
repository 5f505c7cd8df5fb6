/* Copies between the caller's layouts and those of the workspaces. Once for each instance. */
#ifndef LC_INSTANCE
#include "editor.h"
#endif

/* One block of at most LANES x LANES. pad: write whole vectors, the lanes behind the last row as 0. */
LC_INLINE void transpose_block(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                               LC_REAL *target, ptrdiff_t target_stride, int pad) {
    LC_VEC r[LC_LANES];
    const LC_MASK in = v_first(columns), out = v_first(pad ? LC_LANES : rows);
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) {
        r[i] = i < rows ? v_load_first(source + i * source_stride, in) : v_zero();
    }
    v_transpose(r);
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) {
        if (i < columns) v_store_first(target + i * target_stride, out, r[i]);
    }
}

LC_INLINE void transpose_whole_block(const LC_REAL *source, ptrdiff_t source_stride, LC_REAL *target,
                                     ptrdiff_t target_stride) {
    LC_VEC r[LC_LANES];
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) r[i] = v_load(source + i * source_stride);
    v_transpose(r);
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) v_store(target + i * target_stride, r[i]);
}

/* target[c * target_stride + r] = source[r * source_stride + c] for r < rows, c < columns. */
LC_NOINLINE void transpose_copy(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                LC_REAL *target, ptrdiff_t target_stride, int pad) {
    for (ptrdiff_t r = 0; r < rows; r += LC_LANES) {
        const ptrdiff_t high = lc_min(rows - r, LC_LANES);
        ptrdiff_t c = 0;
        if (high == LC_LANES)
            for (; c + LC_LANES <= columns; c += LC_LANES)
                transpose_whole_block(source + r * source_stride + c, source_stride, target + c * target_stride + r,
                                      target_stride);
        if (!pad && columns - c <= LC_LANES / 4) { /* a few columns are a small part of a block */
            for (; c < columns; ++c)
                for (ptrdiff_t i = r; i < r + high; ++i) target[c * target_stride + i] = source[i * source_stride + c];
        }
        for (; c < columns; c += LC_LANES)
            transpose_block(source + r * source_stride + c, source_stride, high, lc_min(columns - c, LC_LANES),
                            target + c * target_stride + r, target_stride, pad);
    }
}

/* Two dimensions: `row` is contiguous in the source if it is longer than one element, `column` in the target. */
LC_INLINE void copy_plane(const LC_REAL *source, LC_REAL *target, lc_dim row, lc_dim column) {
    if (row.target == 1 && column.count == 1)
        memcpy(target, source, (size_t)row.count * sizeof(LC_REAL));
    else if (column.count > 1)
        transpose_copy(source, column.source, column.count, row.count, target, row.target, 0);
    else
        for (ptrdiff_t i = 0; i < row.count; ++i) target[i * row.target] = source[i];
}

/* Copies from one layout to another. */
LC_NOINLINE void move(const LC_REAL *source, LC_REAL *target, lc_copy copy) {
    ptrdiff_t index[LC_DIMS] = {0}, from = 0, to = 0;
    if (!lc_join_dims(&copy)) return;
    const lc_dim row = lc_take_contiguous(&copy, 0), column = lc_take_contiguous(&copy, 1);
    do copy_plane(source + from, target + to, row, column);
    while (lc_next(&copy, index, &from, &to));
}

/* Adds what lies in one layout to what lies in another. */
LC_NOINLINE void move_adding(const LC_REAL *source, LC_REAL *target, lc_copy copy) {
    ptrdiff_t index[LC_DIMS] = {0}, from = 0, to = 0;
    if (!lc_join_dims(&copy)) return;
    const lc_dim row = lc_take_contiguous(&copy, 0);
    do {
        for (ptrdiff_t i = 0; i < row.count; ++i) target[to + i * row.target] += source[from + i];
    } while (lc_next(&copy, index, &from, &to));
}

/* Copies `images` images, `stride` elements apart in the source, side by side in the target. `copy`: the dimensions of
 * one image. pad: whole vectors are written, 0 behind the last image. */
LC_NOINLINE void interleave(const LC_REAL *source, LC_REAL *target, ptrdiff_t images, ptrdiff_t stride, lc_copy copy,
                            int pad) {
    ptrdiff_t index[LC_DIMS] = {0}, from = 0, to = 0;
    if (!lc_join_dims(&copy)) return;
    const lc_dim row = lc_take_contiguous(&copy, 0);
    do transpose_copy(source + from, stride, images, row.count, target + to, row.target, pad);
    while (lc_next(&copy, index, &from, &to));
}

/* Sets what a copy would write to 0. */
LC_NOINLINE void clear(LC_REAL *target, lc_copy copy) {
    ptrdiff_t index[LC_DIMS] = {0}, from = 0, to = 0;
    for (int i = 0; i < copy.count; ++i) copy.dims[i].source = copy.dims[i].target;
    if (!lc_join_dims(&copy)) return;
    const lc_dim row = lc_take_contiguous(&copy, 1);
    do memset(target + to, 0, (size_t)row.count * sizeof(LC_REAL));
    while (lc_next(&copy, index, &from, &to));
}

#if LC_WIDENS
LC_INLINE void widen_body(const char *source, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns, const float *scales,
                          LC_REAL *target, ptrdiff_t target_stride, const int storage) {
    const ptrdiff_t size = stored_size(storage), whole = columns / LC_LANES * LC_LANES, left = columns - whole;
    const LC_MASK mask = v_first(left);
    for (; rows > 0; --rows, source += stride * size, target += target_stride) {
        for (ptrdiff_t i = 0; i < whole; i += LC_LANES) {
            const LC_VEC v = load_stored(source + i * size, storage);
            v_store(target + i, has_scales(storage) ? v_mul(v, v_load(scales + i)) : v);
        }
        if (left == 0) continue;
        const LC_VEC v = load_stored_first(source + whole * size, left, mask, storage);
        v_store_first(target + whole, mask, has_scales(storage) ? v_mul(v, v_load_first(scales + whole, mask)) : v);
    }
}
#endif

/* Rows of a stored kernel, `stride` elements apart, as elements of this type; of int8 times a scale for each column. */
LC_NOINLINE void widen(int storage, const char *source, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns,
                       const float *scales, LC_REAL *target, ptrdiff_t target_stride) {
#if LC_WIDENS
    if (!has_scales(storage) && stride == columns && target_stride == columns) { /* one row */
        columns *= rows;
        rows = lc_min(rows, 1);
    }
    switch (storage) {
#define LC_ROW(name, size, numpy, scaled, more) \
    case LC_##name: widen_body(source, stride, rows, columns, scales, target, target_stride, LC_##name); return;
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
        default: break;
    }
#else
    (void)storage, (void)source, (void)stride, (void)rows, (void)columns, (void)scales, (void)target,
        (void)target_stride;
#endif
    lc_impossible("a kernel stored in a way that this element type has not");
}
