/* The vector vocabulary over AVX2 with FMA3 and F16C. Each word exists for f32 (8 lanes) and f64 (4 lanes);
 * simd/scalar.h says what it means. */
#ifndef LOCALCONV_SIMD_AVX2_H
#define LOCALCONV_SIMD_AVX2_H

#include "../platform.h"

#define LC_ISA            avx2
#define LC_FEATURES_BEGIN LC_TARGET_BEGIN("avx2,fma,f16c")
#define LC_FEATURES_END   LC_TARGET_END

/* 16 registers: rows * vectors accumulators, the vectors themselves and one broadcast. */
#define LC_ROWS1_avx2 6
#define LC_ROWS2_avx2 6
#define LC_ROWS3_avx2 4
#define LC_ROWS4_avx2 2

enum { lanes_f32_avx2 = 8, lanes_f64_avx2 = 4, columns_f32_avx2 = 4, columns_f64_avx2 = 2 };
typedef __m256 vec_f32_avx2;
typedef __m256d vec_f64_avx2;
typedef __m256i mask_f32_avx2;
typedef __m256i mask_f64_avx2;

LC_FEATURES_BEGIN

LC_INLINE __m256i first_f32_avx2(ptrdiff_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LC_INLINE __m256i first_f64_avx2(ptrdiff_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}

#define LC_WORDS_AVX2(T, REAL, SUFFIX)                                                                                \
    LC_INLINE vec_##T##_avx2 zero_##T##_avx2(void) { return _mm256_setzero_##SUFFIX(); }                              \
    LC_INLINE vec_##T##_avx2 splat_##T##_avx2(const REAL *p) { return _mm256_set1_##SUFFIX(*p); }                     \
    LC_INLINE vec_##T##_avx2 load_##T##_avx2(const REAL *p) { return _mm256_loadu_##SUFFIX(p); }                      \
    LC_INLINE void store_##T##_avx2(REAL *p, vec_##T##_avx2 v) { _mm256_storeu_##SUFFIX(p, v); }                      \
    LC_INLINE vec_##T##_avx2 load_first_##T##_avx2(const REAL *p, __m256i m) {                                        \
        return _mm256_maskload_##SUFFIX(p, m);                                                                        \
    }                                                                                                                 \
    LC_INLINE void store_first_##T##_avx2(REAL *p, __m256i m, vec_##T##_avx2 v) {                                     \
        _mm256_maskstore_##SUFFIX(p, m, v);                                                                           \
    }                                                                                                                 \
    LC_INLINE vec_##T##_avx2 fma_##T##_avx2(vec_##T##_avx2 a, vec_##T##_avx2 b, vec_##T##_avx2 c) {                   \
        return _mm256_fmadd_##SUFFIX(a, b, c);                                                                        \
    }                                                                                                                 \
    LC_INLINE vec_##T##_avx2 add_##T##_avx2(vec_##T##_avx2 a, vec_##T##_avx2 b) { return _mm256_add_##SUFFIX(a, b); } \
    LC_INLINE vec_##T##_avx2 mul_##T##_avx2(vec_##T##_avx2 a, vec_##T##_avx2 b) { return _mm256_mul_##SUFFIX(a, b); } \
    LC_INLINE vec_##T##_avx2 relu_##T##_avx2(vec_##T##_avx2 v) {                                                      \
        return _mm256_max_##SUFFIX(_mm256_setzero_##SUFFIX(), v);                                                     \
    }

LC_WORDS_AVX2(f32, float, ps)
LC_WORDS_AVX2(f64, double, pd)

LC_INLINE float sum_f32_avx2(__m256 v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LC_INLINE double sum_f64_avx2(__m256d v) {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

LC_INLINE __m256 widen_f16_avx2(__m128i v) { return _mm256_cvtph_ps(v); }
LC_INLINE __m256 widen_bf16_avx2(__m128i v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
LC_INLINE __m256 widen_i8_avx2(__m128i v) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)); }

/* The first n elements of two bytes. */
LC_INLINE __m128i first_halves_avx2(const char *p, ptrdiff_t n) {
    const uint64_t low = lc_first_bytes(p, lc_min(2 * n, 8)), high = n > 4 ? lc_first_bytes(p + 8, 2 * n - 8) : 0;
    return _mm_set_epi64x((long long)high, (long long)low);
}

#define LC_WIDEN_AVX2(STORE, LOADED, FIRST)                      \
    LC_INLINE __m256 load_##STORE##_f32_avx2(const char *p) {    \
        return widen_##STORE##_avx2(LOADED((const __m128i *)p)); \
    }                                                            \
    LC_INLINE __m256 load_first_##STORE##_f32_avx2(const char *p, ptrdiff_t n) { return widen_##STORE##_avx2(FIRST); }
LC_WIDEN_AVX2(f16, _mm_loadu_si128, first_halves_avx2(p, n))
LC_WIDEN_AVX2(bf16, _mm_loadu_si128, first_halves_avx2(p, n))
LC_WIDEN_AVX2(i8, _mm_loadl_epi64, _mm_set_epi64x(0, (long long)lc_first_bytes(p, n)))

LC_INLINE void transpose_f32_avx2(__m256 r[8]) {
    __m256 t[8];
    LC_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    LC_UNROLL
    for (int i = 0; i < 8; i += 4) {
        LC_UNROLL
        for (int h = 0; h < 2; ++h) {
            r[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + 2 + h], 0x44);
            r[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + 2 + h], 0xee);
        }
    }
    LC_UNROLL
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    LC_UNROLL
    for (int i = 0; i < 8; ++i) r[i] = t[i];
}

LC_INLINE void transpose_f64_avx2(__m256d r[4]) {
    const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20);
    r[1] = _mm256_permute2f128_pd(b, d, 0x20);
    r[2] = _mm256_permute2f128_pd(a, c, 0x31);
    r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

/* Within the 128-bit blocks: row i of each is in r[i]. */
LC_INLINE void transpose_blocks_f32_avx2(__m256 r[4]) {
    const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(a, c, 0x44);
    r[1] = _mm256_shuffle_ps(a, c, 0xee);
    r[2] = _mm256_shuffle_ps(b, d, 0x44);
    r[3] = _mm256_shuffle_ps(b, d, 0xee);
}

LC_INLINE void load_columns_f32_avx2(const float *p, ptrdiff_t s, __m256 r[4]) {
    LC_UNROLL
    for (int i = 0; i < 4; ++i) r[i] = _mm256_loadu2_m128(p + (4 + i) * s, p + i * s);
    transpose_blocks_f32_avx2(r);
}

LC_INLINE void store_columns_f32_avx2(float *p, ptrdiff_t s, const __m256 r[4]) {
    __m256 t[4] = {r[0], r[1], r[2], r[3]};
    transpose_blocks_f32_avx2(t);
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + i * s, _mm256_castps256_ps128(t[i]));
    LC_UNROLL
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + (4 + i) * s, _mm256_extractf128_ps(t[i], 1));
}

LC_INLINE void load_columns_f64_avx2(const double *p, ptrdiff_t s, __m256d r[2]) {
    const __m256d a = _mm256_loadu2_m128d(p + 2 * s, p), b = _mm256_loadu2_m128d(p + 3 * s, p + s);
    r[0] = _mm256_unpacklo_pd(a, b);
    r[1] = _mm256_unpackhi_pd(a, b);
}

LC_INLINE void store_columns_f64_avx2(double *p, ptrdiff_t s, const __m256d r[2]) {
    const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    _mm_storeu_pd(p, _mm256_castpd256_pd128(a));
    _mm_storeu_pd(p + s, _mm256_castpd256_pd128(b));
    _mm_storeu_pd(p + 2 * s, _mm256_extractf128_pd(a, 1));
    _mm_storeu_pd(p + 3 * s, _mm256_extractf128_pd(b, 1));
}

/* Halving: a round adds the halves of two vectors' blocks into one vector, so the lanes come to be shared by 2, 4, 8
 * vectors. */
LC_INLINE __m256 sums_f32_avx2(const __m256 r[8]) {
    __m256 t[4];
    LC_UNROLL
    for (int i = 0; i < 4; ++i) t[i] = _mm256_hadd_ps(r[2 * i], r[2 * i + 1]);
    const __m256 a = _mm256_hadd_ps(t[0], t[1]), b = _mm256_hadd_ps(t[2], t[3]);
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

LC_INLINE __m256d sums_f64_avx2(const __m256d r[4]) {
    const __m256d a = _mm256_hadd_pd(r[0], r[1]), b = _mm256_hadd_pd(r[2], r[3]);
    return _mm256_add_pd(_mm256_permute2f128_pd(a, b, 0x20), _mm256_permute2f128_pd(a, b, 0x31));
}

/* A horizontal addition has the halves of both in turns. */
LC_INLINE __m256 pairs_f32_avx2(__m256 a, __m256 b) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(a, b)), 0xd8));
}
LC_INLINE __m256d pairs_f64_avx2(__m256d a, __m256d b) { return _mm256_permute4x64_pd(_mm256_hadd_pd(a, b), 0xd8); }

LC_FEATURES_END

#endif
