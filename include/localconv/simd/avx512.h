/* The vector vocabulary over AVX-512 F, BW and VL. Each word exists for f32 (16 lanes) and f64 (8 lanes); simd/scalar.h
 * says what it means. */
#ifndef LOCALCONV_SIMD_AVX512_H
#define LOCALCONV_SIMD_AVX512_H

#include "../platform.h"

#define LC_ISA            avx512
#define LC_FEATURES_BEGIN LC_TARGET_BEGIN("avx512f,avx512bw,avx512vl")
#define LC_FEATURES_END   LC_TARGET_END

/* 32 registers: rows * vectors accumulators, the vectors themselves and one broadcast. */
#define LC_ROWS1_avx512 14
#define LC_ROWS2_avx512 14
#define LC_ROWS3_avx512 9
#define LC_ROWS4_avx512 6

enum { lanes_f32_avx512 = 16, lanes_f64_avx512 = 8, columns_f32_avx512 = 4, columns_f64_avx512 = 2 };
typedef __m512 vec_f32_avx512;
typedef __m512d vec_f64_avx512;
typedef __mmask16 mask_f32_avx512;
typedef __mmask8 mask_f64_avx512;

LC_FEATURES_BEGIN

#define LC_WORDS_AVX512(T, REAL, SUFFIX)                                                                        \
    LC_INLINE vec_##T##_avx512 zero_##T##_avx512(void) { return _mm512_setzero_##SUFFIX(); }                    \
    LC_INLINE vec_##T##_avx512 splat_##T##_avx512(const REAL *p) { return _mm512_set1_##SUFFIX(*p); }           \
    LC_INLINE vec_##T##_avx512 load_##T##_avx512(const REAL *p) { return _mm512_loadu_##SUFFIX(p); }            \
    LC_INLINE void store_##T##_avx512(REAL *p, vec_##T##_avx512 v) { _mm512_storeu_##SUFFIX(p, v); }            \
    LC_INLINE mask_##T##_avx512 first_##T##_avx512(ptrdiff_t n) { return (mask_##T##_avx512)((1u << n) - 1u); } \
    LC_INLINE vec_##T##_avx512 load_first_##T##_avx512(const REAL *p, mask_##T##_avx512 m) {                    \
        return _mm512_maskz_loadu_##SUFFIX(m, p);                                                               \
    }                                                                                                           \
    LC_INLINE void store_first_##T##_avx512(REAL *p, mask_##T##_avx512 m, vec_##T##_avx512 v) {                 \
        _mm512_mask_storeu_##SUFFIX(p, m, v);                                                                   \
    }                                                                                                           \
    LC_INLINE vec_##T##_avx512 fma_##T##_avx512(vec_##T##_avx512 a, vec_##T##_avx512 b, vec_##T##_avx512 c) {   \
        return _mm512_fmadd_##SUFFIX(a, b, c);                                                                  \
    }                                                                                                           \
    LC_INLINE vec_##T##_avx512 add_##T##_avx512(vec_##T##_avx512 a, vec_##T##_avx512 b) {                       \
        return _mm512_add_##SUFFIX(a, b);                                                                       \
    }                                                                                                           \
    LC_INLINE vec_##T##_avx512 mul_##T##_avx512(vec_##T##_avx512 a, vec_##T##_avx512 b) {                       \
        return _mm512_mul_##SUFFIX(a, b);                                                                       \
    }                                                                                                           \
    LC_INLINE vec_##T##_avx512 relu_##T##_avx512(vec_##T##_avx512 v) {                                          \
        return _mm512_max_##SUFFIX(_mm512_setzero_##SUFFIX(), v);                                               \
    }                                                                                                           \
    LC_INLINE REAL sum_##T##_avx512(vec_##T##_avx512 v) { return _mm512_reduce_add_##SUFFIX(v); }

LC_WORDS_AVX512(f32, float, ps)
LC_WORDS_AVX512(f64, double, pd)

#define LC_WIDEN_AVX512(STORE, HALF, LOADED, MASKED, WIDENED)                      \
    LC_INLINE __m512 load_##STORE##_f32_avx512(const char *p) {                    \
        const HALF v = LOADED((const HALF *)p);                                    \
        return WIDENED;                                                            \
    }                                                                              \
    LC_INLINE __m512 load_first_##STORE##_f32_avx512(const char *p, ptrdiff_t n) { \
        const HALF v = MASKED((__mmask16)((1u << n) - 1u), p);                     \
        return WIDENED;                                                            \
    }
LC_WIDEN_AVX512(f16, __m256i, _mm256_loadu_si256, _mm256_maskz_loadu_epi16, _mm512_cvtph_ps(v))
LC_WIDEN_AVX512(bf16, __m256i, _mm256_loadu_si256, _mm256_maskz_loadu_epi16,
                _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)))
LC_WIDEN_AVX512(i8, __m128i, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v)))

/* Two rounds interleave within 128-bit blocks (pairs, then fours), two rounds exchange the blocks. */
LC_INLINE void transpose_f32_avx512(__m512 r[16]) {
    __m512 t[16];
    LC_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    LC_UNROLL
    for (int i = 0; i < 16; i += 4) {
        LC_UNROLL
        for (int h = 0; h < 2; ++h) {
            const __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + 2 + h]);
            r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    LC_UNROLL
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    LC_UNROLL
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

LC_INLINE void transpose_f64_avx512(__m512d r[8]) {
    __m512d t[8];
    LC_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
    LC_UNROLL
    for (int i = 0; i < 2; ++i) {
        r[i] = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88);
        r[i + 2] = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
        r[i + 4] = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88);
        r[i + 6] = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
    }
    LC_UNROLL
    for (int i = 0; i < 2; ++i) {
        t[i] = _mm512_shuffle_f64x2(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f64x2(r[i], r[i + 4], 0xdd);
        t[i + 2] = _mm512_shuffle_f64x2(r[i + 2], r[i + 6], 0x88);
        t[i + 6] = _mm512_shuffle_f64x2(r[i + 2], r[i + 6], 0xdd);
    }
    LC_UNROLL
    for (int i = 0; i < 8; ++i) r[i] = t[i];
}

/* 16 bytes of four rows, `step` bytes apart, as one vector: loads alone, no exchange between its blocks. */
LC_INLINE __m512 load_blocks_avx512(const char *p, ptrdiff_t step) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)p));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps((const float *)(p + step)));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps((const float *)(p + 2 * step)));
    return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps((const float *)(p + 3 * step)));
}

/* Within the blocks: row i of each is in r[i]. */
LC_INLINE void transpose_blocks_f32_avx512(__m512 r[4]) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    r[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

LC_INLINE void load_columns_f32_avx512(const float *p, ptrdiff_t s, __m512 r[4]) {
    LC_UNROLL
    for (int i = 0; i < 4; ++i) r[i] = load_blocks_avx512((const char *)(p + i * s), 16 * s);
    transpose_blocks_f32_avx512(r);
}

LC_INLINE void store_columns_f32_avx512(float *p, ptrdiff_t s, const __m512 r[4]) {
    __m512 t[4] = {r[0], r[1], r[2], r[3]};
    transpose_blocks_f32_avx512(t);
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + i * s, _mm512_castps512_ps128(t[i]));
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + (4 + i) * s, _mm512_extractf32x4_ps(t[i], 1));
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + (8 + i) * s, _mm512_extractf32x4_ps(t[i], 2));
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + (12 + i) * s, _mm512_extractf32x4_ps(t[i], 3));
}

LC_INLINE void load_columns_f64_avx512(const double *p, ptrdiff_t s, __m512d r[2]) {
    const __m512d a = _mm512_castps_pd(load_blocks_avx512((const char *)p, 16 * s));
    const __m512d b = _mm512_castps_pd(load_blocks_avx512((const char *)(p + s), 16 * s));
    r[0] = _mm512_unpacklo_pd(a, b);
    r[1] = _mm512_unpackhi_pd(a, b);
}

LC_INLINE void store_columns_f64_avx512(double *p, ptrdiff_t s, const __m512d r[2]) {
    const __m512d a = _mm512_unpacklo_pd(r[0], r[1]), b = _mm512_unpackhi_pd(r[0], r[1]);
    const __m512 low = _mm512_castpd_ps(a), high = _mm512_castpd_ps(b);
    _mm_storeu_pd(p, _mm512_castpd512_pd128(a));
    _mm_storeu_pd(p + s, _mm512_castpd512_pd128(b));
    _mm_storeu_pd(p + 2 * s, _mm_castps_pd(_mm512_extractf32x4_ps(low, 1)));
    _mm_storeu_pd(p + 3 * s, _mm_castps_pd(_mm512_extractf32x4_ps(high, 1)));
    _mm_storeu_pd(p + 4 * s, _mm_castps_pd(_mm512_extractf32x4_ps(low, 2)));
    _mm_storeu_pd(p + 5 * s, _mm_castps_pd(_mm512_extractf32x4_ps(high, 2)));
    _mm_storeu_pd(p + 6 * s, _mm_castps_pd(_mm512_extractf32x4_ps(low, 3)));
    _mm_storeu_pd(p + 7 * s, _mm_castps_pd(_mm512_extractf32x4_ps(high, 3)));
}

/* Halving: a round adds the halves of two vectors' blocks into one vector, so the lanes come to be shared by 2, 4, 8,
 * 16 vectors. */
LC_INLINE __m512 sums_f32_avx512(const __m512 r[16]) {
    __m512 t[8];
    LC_UNROLL
    for (int i = 0; i < 8; ++i)
        t[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
    LC_UNROLL
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        t[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    LC_UNROLL
    for (int i = 0; i < 2; ++i) {
        t[i] = _mm512_add_ps(_mm512_shuffle_f32x4(t[2 * i], t[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(t[2 * i], t[2 * i + 1], 0xdd));
    }
    return _mm512_add_ps(_mm512_shuffle_f32x4(t[0], t[1], 0x88), _mm512_shuffle_f32x4(t[0], t[1], 0xdd));
}

LC_INLINE __m512d sums_f64_avx512(const __m512d r[8]) {
    __m512d t[4];
    LC_UNROLL
    for (int i = 0; i < 4; ++i)
        t[i] = _mm512_add_pd(_mm512_unpacklo_pd(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_pd(r[2 * i], r[2 * i + 1]));
    LC_UNROLL
    for (int i = 0; i < 2; ++i) {
        t[i] = _mm512_add_pd(_mm512_shuffle_f64x2(t[2 * i], t[2 * i + 1], 0x88),
                             _mm512_shuffle_f64x2(t[2 * i], t[2 * i + 1], 0xdd));
    }
    return _mm512_add_pd(_mm512_shuffle_f64x2(t[0], t[1], 0x88), _mm512_shuffle_f64x2(t[0], t[1], 0xdd));
}

LC_INLINE __m512 pairs_f32_avx512(__m512 a, __m512 b) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b));
}

LC_INLINE __m512d pairs_f64_avx512(__m512d a, __m512d b) {
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i odd = _mm512_add_epi64(even, _mm512_set1_epi64(1));
    return _mm512_add_pd(_mm512_permutex2var_pd(a, even, b), _mm512_permutex2var_pd(a, odd, b));
}

LC_FEATURES_END

#endif
