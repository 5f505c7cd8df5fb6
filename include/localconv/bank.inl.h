/* Kernels of a position that are sums of a bank's filters (lc_bank), made where they are read. */
#ifndef LC_INSTANCE
#include "editor.h"
#endif

/* Terms that are summed in one go: their weights and the sum stay in registers. */
enum { LC_TERMS = 4 };

/* Sums of T filters' rows, added to what the target holds unless they are the first. */
LC_INLINE void sum_terms_body(const LC_REAL *const *filters, const LC_REAL *weights, ptrdiff_t stride, ptrdiff_t rows,
                              ptrdiff_t columns, LC_REAL *target, ptrdiff_t target_stride, int first, const int T) {
    const ptrdiff_t whole = columns / LC_LANES * LC_LANES;
    const LC_MASK mask = v_first(columns - whole);
    const LC_REAL *source[LC_TERMS];
    LC_VEC weight[LC_TERMS];
    LC_UNROLL
    for (int m = 0; m < T; ++m) {
        source[m] = filters[m];
        weight[m] = v_splat(weights + m);
    }
    for (; rows > 0; --rows, target += target_stride) {
        for (ptrdiff_t i = 0; i < whole; i += LC_LANES) {
            LC_VEC sum = first ? v_zero() : v_load(target + i);
            LC_UNROLL
            for (int m = 0; m < T; ++m) sum = v_fma(weight[m], v_load(source[m] + i), sum);
            v_store(target + i, sum);
        }
        if (whole < columns) {
            LC_VEC sum = first ? v_zero() : v_load_first(target + whole, mask);
            LC_UNROLL
            for (int m = 0; m < T; ++m) sum = v_fma(weight[m], v_load_first(source[m] + whole, mask), sum);
            v_store_first(target + whole, mask, sum);
        }
        LC_UNROLL
        for (int m = 0; m < T; ++m) source[m] += stride;
    }
}

/* Rows of a position's kernel, `stride` elements apart from element `at` on. Terms are summed in their order. */
LC_NOINLINE void sum_filters(const lc_job *job, const lc_call *c, ptrdiff_t position, ptrdiff_t at, ptrdiff_t stride,
                             ptrdiff_t rows, ptrdiff_t columns, LC_REAL *target, ptrdiff_t target_stride) {
    const ptrdiff_t size = job->geometry.window * job->geometry.filters, terms = job->bank.terms;
    const LC_REAL *weights = (const LC_REAL *)c->weights + position * terms;
    if (stride == columns && target_stride == columns) { /* one row */
        columns *= rows;
        rows = lc_min(rows, 1);
    }
    for (ptrdiff_t m = 0; m < terms; m += LC_TERMS) {
        const ptrdiff_t count = lc_min(LC_TERMS, terms - m);
        const LC_REAL *filters[LC_TERMS];
        for (ptrdiff_t i = 0; i < count; ++i)
            filters[i] = (const LC_REAL *)c->kernel + lc_filter_of(job, c, position, m + i) * size + at;
        switch (count) {
#define LC_TERMS_CASE(T) \
    case T: sum_terms_body(filters, weights + m, stride, rows, columns, target, target_stride, m == 0, T); break;
            LC_TERMS_CASE(1)
            LC_TERMS_CASE(2)
            LC_TERMS_CASE(3)
            LC_TERMS_CASE(4)
#undef LC_TERMS_CASE
            default: lc_impossible("a sum of more filters than are compiled");
        }
    }
}
