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

/* A whole block. ahead: rows further on of which as many elements are asked for, into the second-level cache; 0: of
 * none.
 */
LC_INLINE void transpose_whole_block(const LC_REAL *source, ptrdiff_t source_stride, LC_REAL *target,
                                     ptrdiff_t target_stride, ptrdiff_t ahead) {
    LC_VEC r[LC_LANES];
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) {
        if (ahead > 0) LC_PREFETCH_L2(source + (i + ahead) * source_stride);
        r[i] = v_load(source + i * source_stride);
    }
    v_transpose(r);
    LC_UNROLL
    for (int i = 0; i < LC_LANES; ++i) v_store(target + i * target_stride, r[i]);
}

/* Where the block behind the one at `at` begins. Rows that are multiples of 4096 bytes apart lie in one set of a cache,
 * so a line of theirs must be done with in one block: the blocks behind the first are aligned there. */
LC_INLINE ptrdiff_t next_block(ptrdiff_t at, const LC_REAL *row, ptrdiff_t stride) {
    const ptrdiff_t size = (ptrdiff_t)sizeof(LC_REAL);
    const ptrdiff_t offset = (ptrdiff_t)((size_t)(row + at) % (LC_LANES * sizeof(LC_REAL))) / size;
    return at + LC_LANES - (stride * size % 4096 == 0 ? offset : 0);
}

/* LANES rows of `count` columns, at most as many as fill 16 bytes; so many are read. */
LC_INLINE void transpose_few_columns(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t count, LC_REAL *target,
                                     ptrdiff_t target_stride) {
    LC_VEC r[LC_COLUMNS];
    v_load_columns(source, source_stride, r);
    LC_UNROLL
    for (int j = 0; j < LC_COLUMNS; ++j) {
        if (j < count) v_store(target + j * target_stride, r[j]);
    }
}

/* `count` rows of LANES columns, rows being at most as many as fill 16 bytes; so many are written. */
LC_INLINE void transpose_few_rows(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t count, LC_REAL *target,
                                  ptrdiff_t target_stride) {
    LC_VEC r[LC_COLUMNS];
    LC_UNROLL
    for (int j = 0; j < LC_COLUMNS; ++j) r[j] = j < count ? v_load(source + j * source_stride) : v_zero();
    v_store_columns(target, target_stride, r);
}

/* A transposed copy of some rows, at most LANES; `more` follow. Blocks at the end overlap those before: that is faster
 * than a part of a block. ahead: rows further on of which as many elements are asked for, or 0. */
LC_INLINE void transpose_rows(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                              LC_REAL *target, ptrdiff_t target_stride, int pad, int more, ptrdiff_t ahead) {
    ptrdiff_t c = 0;
    if (rows == LC_LANES && columns >= LC_LANES)
        for (; c < columns; c = next_block(c, source, source_stride)) {
            const ptrdiff_t at = lc_min(c, columns - LC_LANES);
            transpose_whole_block(source + at, source_stride, target + at * target_stride, target_stride, ahead);
        }
    else if (rows == LC_LANES && !pad && (columns >= LC_COLUMNS || (more && columns > 1 && source_stride >= columns)))
        for (; c < columns; c += LC_COLUMNS) { /* a row of fewer columns reads a little of the next row */
            const ptrdiff_t at = lc_max(0, lc_min(c, columns - LC_COLUMNS));
            transpose_few_columns(source + at, source_stride, columns, target + at * target_stride, target_stride);
        }
    else if (rows < LC_LANES && !pad && (rows >= LC_COLUMNS || (rows > 1 && target_stride == rows)))
        /* a row of the target that is shorter is written with the beginning of the next one, which is written next */
        for (; c + LC_LANES + (rows < LC_COLUMNS) <= columns; c += LC_LANES)
            for (ptrdiff_t r = 0; r < rows; r += LC_COLUMNS) {
                const ptrdiff_t at = lc_max(0, lc_min(r, rows - LC_COLUMNS));
                transpose_few_rows(source + at * source_stride + c, source_stride, rows,
                                   target + c * target_stride + at, target_stride);
            }
    for (; c < columns; c += LC_LANES)
        transpose_block(source + c, source_stride, rows, lc_min(columns - c, LC_LANES), target + c * target_stride,
                        target_stride, pad);
}

/* target[c * target_stride + r] = source[r * source_stride + c] for r < rows, c < columns. */
LC_NOINLINE void transpose_copy(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                LC_REAL *target, ptrdiff_t target_stride, int pad) {
    const int whole = !pad && rows >= LC_LANES;
    for (ptrdiff_t r = 0; r < rows; r = whole ? next_block(r, target, target_stride) : r + LC_LANES) {
        const ptrdiff_t at = whole ? lc_min(r, rows - LC_LANES) : r;
        transpose_rows(source + at * source_stride, source_stride, lc_min(rows - at, LC_LANES), columns, target + at,
                       target_stride, pad, at + LC_LANES < rows, 0);
    }
}

/* The same of rows that come from memory and are read once: those of the block after the next are asked for. */
LC_NOINLINE void transpose_stream(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                  LC_REAL *target, ptrdiff_t target_stride) {
    for (ptrdiff_t r = 0; r < rows; r += LC_LANES) {
        const ptrdiff_t at = rows < LC_LANES ? 0 : lc_min(r, rows - LC_LANES);
        transpose_rows(source + at * source_stride, source_stride, lc_min(rows - at, LC_LANES), columns, target + at,
                       target_stride, 0, at + LC_LANES < rows, 2 * LC_LANES);
    }
}

/* A copy of one row, which asks for as many bytes from `ahead` on: into the second-level cache. */
LC_INLINE void copy_row(const LC_REAL *source, LC_REAL *target, ptrdiff_t count, const char *ahead) {
    const ptrdiff_t whole = count / LC_LANES * LC_LANES;
    const LC_MASK mask = v_first(count - whole);
    for (ptrdiff_t i = 0; i < whole; i += LC_LANES) {
        LC_PREFETCH_L2(ahead + i * (ptrdiff_t)sizeof(LC_REAL));
        v_store(target + i, v_load(source + i));
    }
    if (whole < count) v_store_first(target + whole, mask, v_load_first(source + whole, mask));
}

/* A transposed copy that writes its target, which is much longer, in order: rows of it one after another. */
LC_NOINLINE void transpose_out(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                               LC_REAL *target, ptrdiff_t target_stride) {
    for (ptrdiff_t c = 0; c < columns; c += LC_LANES) {
        const ptrdiff_t wide = lc_min(columns - c, LC_LANES);
        for (ptrdiff_t r = 0; r < rows; r += LC_LANES) {
            const ptrdiff_t at = rows < LC_LANES ? 0 : lc_min(r, rows - LC_LANES);
            transpose_rows(source + at * source_stride + c, source_stride, lc_min(rows - at, LC_LANES), wide,
                           target + c * target_stride + at, target_stride, 0, 0, 0);
        }
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
