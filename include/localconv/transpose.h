/* Transposed copies, the way between the caller's layout and interleaved workspaces. (Body: included once per instance.) */

/* One block of at most LANES x LANES. pad: write whole vectors, the lanes behind the last row as 0. */
LC_INLINE void LC_NAME(transpose_block)(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                        LC_REAL *target, ptrdiff_t target_stride, int pad) {
    LC_VEC r[LC_LANES];
    const LC_MASK in = LC_NAME(first)(columns), out = LC_NAME(first)(pad ? LC_LANES : rows);
    LC_UNROLL for (int i = 0; i < LC_LANES; ++i) {
        r[i] = i < rows ? LC_NAME(load_first)(source + i * source_stride, in) : LC_NAME(zero)();
    }
    LC_NAME(transpose)(r);
    LC_UNROLL for (int i = 0; i < LC_LANES; ++i) {
        if (i < columns) LC_NAME(store_first)(target + i * target_stride, out, r[i]);
    }
}

LC_INLINE void LC_NAME(transpose_whole_block)(const LC_REAL *source, ptrdiff_t source_stride, LC_REAL *target,
                                              ptrdiff_t target_stride) {
    LC_VEC r[LC_LANES];
    LC_UNROLL for (int i = 0; i < LC_LANES; ++i) r[i] = LC_NAME(load)(source + i * source_stride);
    LC_NAME(transpose)(r);
    LC_UNROLL for (int i = 0; i < LC_LANES; ++i) LC_NAME(store)(target + i * target_stride, r[i]);
}

/* target[c * target_stride + r] = source[r * source_stride + c] for r < rows, c < columns. */
LC_NOINLINE void LC_NAME(transpose_copy)(const LC_REAL *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                         LC_REAL *target, ptrdiff_t target_stride, int pad) {
    for (ptrdiff_t r = 0; r < rows; r += LC_LANES) {
        const ptrdiff_t high = lc_min(rows - r, LC_LANES);
        ptrdiff_t c = 0;
        if (high == LC_LANES)
            for (; c + LC_LANES <= columns; c += LC_LANES)
                LC_NAME(transpose_whole_block)(source + r * source_stride + c, source_stride, target + c * target_stride + r,
                                               target_stride);
        for (; c < columns; c += LC_LANES)
            LC_NAME(transpose_block)(source + r * source_stride + c, source_stride, high, lc_min(columns - c, LC_LANES),
                                     target + c * target_stride + r, target_stride, pad);
    }
}
