/* The vector vocabulary in plain C with one lane: it runs anywhere, and says what each word means.
 *
 *   lanes                     how many elements a vec holds
 *   zero, splat(p)            all lanes 0; all lanes *p
 *   load(p), store(p, v)      lanes elements at p, any alignment
 *   first(n)                  the mask of the lanes 0 .. n-1, 0 <= n <= lanes
 *   load_first(p, m)          those lanes from p, 0 elsewhere; memory behind the others is not touched
 *   store_first(p, m, v)      those lanes to p; memory behind the others is not touched
 *   fma(a, b, c)              a * b + c, rounded once where the instruction set has it
 *   add(a, b), mul(a, b), relu(v)   lane by lane; relu(v) = v < 0 ? 0 : v, so NaN stays NaN
 *   sum(v)                    of all lanes, always in the same order
 *   sums(r)                   lane i holds the sum of r[i], always in the same order
 *   pairs(a, b)               the sums of neighbouring lanes, of a and then of b; with two lanes or more
 *   transpose(r)              lanes x lanes elements in place: r[i] lane j <-> r[j] lane i
 *   columns                   how many elements fill 16 bytes, or 1 if there is one lane
 *   load_columns(p, s, r)     r[j] lane i = p[i * s + j], for all lanes i and columns j
 *   store_columns(p, s, r)    p[i * s + j] = r[j] lane i, with i ascending: s may be less than columns
 *   load_f16(p), ..bf16, ..i8 for f32 alone: lanes elements at p of that stored type, widened exactly
 *   load_first_f16(p, n), ..   the first n of them, 0 elsewhere; memory behind them is not touched
 *   LC_ROWS1 .. LC_ROWS4      rows of the largest register tile that is 1 .. 4 vectors wide
 */
#ifndef LOCALCONV_SIMD_SCALAR_H
#define LOCALCONV_SIMD_SCALAR_H

#include "../platform.h"

#define LC_ISA scalar
#define LC_FEATURES_BEGIN
#define LC_FEATURES_END

#define LC_ROWS1_scalar 4
#define LC_ROWS2_scalar 4
#define LC_ROWS3_scalar 3
#define LC_ROWS4_scalar 2

enum { lanes_f32_scalar = 1, lanes_f64_scalar = 1, columns_f32_scalar = 1, columns_f64_scalar = 1 };
typedef float vec_f32_scalar;
typedef double vec_f64_scalar;
typedef ptrdiff_t mask_f32_scalar;
typedef ptrdiff_t mask_f64_scalar;

#define LC_WORDS_SCALAR(T, REAL)                                                                  \
    LC_INLINE REAL zero_##T##_scalar(void) { return 0; }                                          \
    LC_INLINE REAL splat_##T##_scalar(const REAL *p) { return *p; }                               \
    LC_INLINE REAL load_##T##_scalar(const REAL *p) { return *p; }                                \
    LC_INLINE void store_##T##_scalar(REAL *p, REAL v) { *p = v; }                                \
    LC_INLINE ptrdiff_t first_##T##_scalar(ptrdiff_t n) { return n; }                             \
    LC_INLINE REAL load_first_##T##_scalar(const REAL *p, ptrdiff_t n) { return n > 0 ? *p : 0; } \
    LC_INLINE void store_first_##T##_scalar(REAL *p, ptrdiff_t n, REAL v) {                       \
        if (n > 0) *p = v;                                                                        \
    }                                                                                             \
    LC_INLINE REAL fma_##T##_scalar(REAL a, REAL b, REAL c) { return a * b + c; }                 \
    LC_INLINE REAL add_##T##_scalar(REAL a, REAL b) { return a + b; }                             \
    LC_INLINE REAL mul_##T##_scalar(REAL a, REAL b) { return a * b; }                             \
    LC_INLINE REAL relu_##T##_scalar(REAL v) { return v < 0 ? 0 : v; }                            \
    LC_INLINE REAL sum_##T##_scalar(REAL v) { return v; }                                         \
    LC_INLINE REAL sums_##T##_scalar(const REAL r[1]) { return r[0]; }                            \
    LC_INLINE REAL pairs_##T##_scalar(REAL a, REAL b) { return a + b; }                           \
    LC_INLINE void transpose_##T##_scalar(REAL r[1]) { (void)r; }                                 \
    LC_INLINE void load_columns_##T##_scalar(const REAL *p, ptrdiff_t s, REAL r[1]) {             \
        (void)s;                                                                                  \
        r[0] = *p;                                                                                \
    }                                                                                             \
    LC_INLINE void store_columns_##T##_scalar(REAL *p, ptrdiff_t s, const REAL r[1]) {            \
        (void)s;                                                                                  \
        *p = r[0];                                                                                \
    }

LC_WORDS_SCALAR(f32, float)
LC_WORDS_SCALAR(f64, double)

LC_INLINE float lc_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

LC_INLINE float load_f16_f32_scalar(const char *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 1023u;
    if (exponent == 31) return lc_float_of_bits(sign | 0x7f800000u | fraction << 13); /* inf and NaN */
    if (exponent == 0) return (sign ? -0x1p-24f : 0x1p-24f) * (float)fraction;        /* 0 and subnormals */
    return lc_float_of_bits(sign | (exponent + (127 - 15)) << 23 | fraction << 13);
}
LC_INLINE float load_bf16_f32_scalar(const char *p) {
    uint16_t high;
    memcpy(&high, p, sizeof high);
    return lc_float_of_bits((uint32_t)high << 16);
}
LC_INLINE float load_i8_f32_scalar(const char *p) { return *(const signed char *)p; }
LC_INLINE float load_first_f16_f32_scalar(const char *p, ptrdiff_t n) { return n > 0 ? load_f16_f32_scalar(p) : 0; }
LC_INLINE float load_first_bf16_f32_scalar(const char *p, ptrdiff_t n) { return n > 0 ? load_bf16_f32_scalar(p) : 0; }
LC_INLINE float load_first_i8_f32_scalar(const char *p, ptrdiff_t n) { return n > 0 ? load_i8_f32_scalar(p) : 0; }

#endif
