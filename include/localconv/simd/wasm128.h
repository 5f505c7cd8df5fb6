/* The vector vocabulary over WebAssembly's vectors of 128 bits. Each word exists for f32 (4 lanes) and f64 (2 lanes);
 * simd/scalar.h says what it means. */
#ifndef LOCALCONV_SIMD_WASM128_H
#define LOCALCONV_SIMD_WASM128_H

#include "vectors128.h"

#define LC_ISA wasm128
#define LC_FEATURES_BEGIN
#define LC_FEATURES_END

/* Engines translate to SSE's 16 registers or to NEON's 32: what fits the former. */
#define LC_ROWS1_wasm128 8
#define LC_ROWS2_wasm128 6
#define LC_ROWS3_wasm128 4
#define LC_ROWS4_wasm128 2

enum { lanes_f32_wasm128 = 4, lanes_f64_wasm128 = 2, columns_f32_wasm128 = 4, columns_f64_wasm128 = 2 };
typedef v128_t vec_f32_wasm128;
typedef v128_t vec_f64_wasm128;
typedef ptrdiff_t mask_f32_wasm128; /* no masked memory access: the mask is the count itself */
typedef ptrdiff_t mask_f64_wasm128;

/* A multiply-add is rounded twice: those instructions that round once need not do it on every machine. */
#define LC_WORDS_WASM128(T, REAL, SHAPE, BITS)                                                      \
    LC_INLINE v128_t zero_##T##_wasm128(void) { return wasm_##SHAPE##_splat(0); }                   \
    LC_INLINE v128_t splat_##T##_wasm128(const REAL *p) { return wasm_v128_load##BITS##_splat(p); } \
    LC_INLINE v128_t load_##T##_wasm128(const REAL *p) { return wasm_v128_load(p); }                \
    LC_INLINE void store_##T##_wasm128(REAL *p, v128_t v) { wasm_v128_store(p, v); }                \
    LC_INLINE ptrdiff_t first_##T##_wasm128(ptrdiff_t n) { return n; }                              \
    LC_INLINE v128_t add_##T##_wasm128(v128_t a, v128_t b) { return wasm_##SHAPE##_add(a, b); }     \
    LC_INLINE v128_t mul_##T##_wasm128(v128_t a, v128_t b) { return wasm_##SHAPE##_mul(a, b); }     \
    LC_INLINE v128_t fma_##T##_wasm128(v128_t a, v128_t b, v128_t c) {                              \
        return wasm_##SHAPE##_add(wasm_##SHAPE##_mul(a, b), c);                                     \
    }                                                                                               \
    LC_INLINE v128_t relu_##T##_wasm128(v128_t v) { return wasm_##SHAPE##_max(v, wasm_##SHAPE##_splat(0)); }

LC_WORDS_WASM128(f32, float, f32x4, 32)
LC_WORDS_WASM128(f64, double, f64x2, 64)

LC_INLINE v128_t load_first_f32_wasm128(const float *p, ptrdiff_t n) {
    if (n == 4) return wasm_v128_load(p);
    v128_t v = wasm_f32x4_splat(0);
    if (n > 0) v = wasm_v128_load32_lane(p, v, 0);
    if (n > 1) v = wasm_v128_load32_lane(p + 1, v, 1);
    if (n > 2) v = wasm_v128_load32_lane(p + 2, v, 2);
    return v;
}
LC_INLINE void store_first_f32_wasm128(float *p, ptrdiff_t n, v128_t v) {
    if (n == 4) {
        wasm_v128_store(p, v);
        return;
    }
    if (n > 0) wasm_v128_store32_lane(p, v, 0);
    if (n > 1) wasm_v128_store32_lane(p + 1, v, 1);
    if (n > 2) wasm_v128_store32_lane(p + 2, v, 2);
}
LC_INLINE v128_t load_first_f64_wasm128(const double *p, ptrdiff_t n) {
    if (n == 2) return wasm_v128_load(p);
    return n == 1 ? wasm_v128_load64_zero(p) : wasm_f64x2_splat(0);
}
LC_INLINE void store_first_f64_wasm128(double *p, ptrdiff_t n, v128_t v) {
    if (n == 2)
        wasm_v128_store(p, v);
    else if (n == 1)
        wasm_v128_store64_lane(p, v, 0);
}

/* A half float's bits below its sign, moved to a float's place, are a float 2^-112 times as large; but infinity and
 * NaN, whose exponent is the largest there is. */
LC_INLINE v128_t widen_f16_wasm128(uint64_t bits) {
    const v128_t half = wasm_u32x4_extend_low_u16x8(wasm_i64x2_splat((int64_t)bits));
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_splat(0x8000)), 16);
    const v128_t size = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_splat(0x7fff)), 13);
    const v128_t finite = wasm_f32x4_mul(size, wasm_f32x4_splat(0x1p112f));
    const v128_t other = wasm_v128_or(size, wasm_i32x4_splat(0x7f800000));
    const v128_t is_finite = wasm_i32x4_lt(size, wasm_i32x4_splat(0x7c00 << 13));
    return wasm_v128_or(sign, wasm_v128_bitselect(finite, other, is_finite));
}
LC_INLINE v128_t widen_bf16_wasm128(uint64_t bits) {
    return wasm_i32x4_shl(wasm_u32x4_extend_low_u16x8(wasm_i64x2_splat((int64_t)bits)), 16);
}
LC_INLINE v128_t widen_i8_wasm128(uint64_t bits) {
    const v128_t words = wasm_i16x8_extend_low_i8x16(wasm_i64x2_splat((int64_t)bits));
    return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(words));
}

LC_WIDEN_128(f16, 2, v128_t, wasm128)
LC_WIDEN_128(bf16, 2, v128_t, wasm128)
LC_WIDEN_128(i8, 1, v128_t, wasm128)

LC_INLINE void transpose_f32_wasm128(v128_t r[4]) {
    const v128_t a = wasm_i32x4_shuffle(r[0], r[1], 0, 4, 1, 5), b = wasm_i32x4_shuffle(r[2], r[3], 0, 4, 1, 5);
    const v128_t c = wasm_i32x4_shuffle(r[0], r[1], 2, 6, 3, 7), d = wasm_i32x4_shuffle(r[2], r[3], 2, 6, 3, 7);
    r[0] = wasm_i64x2_shuffle(a, b, 0, 2);
    r[1] = wasm_i64x2_shuffle(a, b, 1, 3);
    r[2] = wasm_i64x2_shuffle(c, d, 0, 2);
    r[3] = wasm_i64x2_shuffle(c, d, 1, 3);
}
LC_INLINE void transpose_f64_wasm128(v128_t r[2]) {
    const v128_t a = wasm_i64x2_shuffle(r[0], r[1], 0, 2);
    r[1] = wasm_i64x2_shuffle(r[0], r[1], 1, 3);
    r[0] = a;
}

LC_COLUMNS_128(f32, float, v128_t, 4, wasm128)
LC_COLUMNS_128(f64, double, v128_t, 2, wasm128)

LC_INLINE v128_t pairs_f32_wasm128(v128_t a, v128_t b) {
    return wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
}
LC_INLINE v128_t pairs_f64_wasm128(v128_t a, v128_t b) {
    return wasm_f64x2_add(wasm_i64x2_shuffle(a, b, 0, 2), wasm_i64x2_shuffle(a, b, 1, 3));
}

LC_INLINE v128_t sums_f32_wasm128(const v128_t r[4]) {
    return pairs_f32_wasm128(pairs_f32_wasm128(r[0], r[1]), pairs_f32_wasm128(r[2], r[3]));
}
LC_INLINE v128_t sums_f64_wasm128(const v128_t r[2]) { return pairs_f64_wasm128(r[0], r[1]); }

LC_INLINE float sum_f32_wasm128(v128_t v) {
    const v128_t two = pairs_f32_wasm128(v, v);
    return wasm_f32x4_extract_lane(two, 0) + wasm_f32x4_extract_lane(two, 1);
}
LC_INLINE double sum_f64_wasm128(v128_t v) { return wasm_f64x2_extract_lane(v, 0) + wasm_f64x2_extract_lane(v, 1); }

#endif
