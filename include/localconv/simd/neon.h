/* The vector vocabulary over AArch64 NEON. Each word exists for f32 (4 lanes) and f64 (2 lanes); simd/scalar.h says
 * what it means. */
#ifndef LOCALCONV_SIMD_NEON_H
#define LOCALCONV_SIMD_NEON_H

#include "vectors128.h"

#define LC_ISA neon
#define LC_FEATURES_BEGIN
#define LC_FEATURES_END

/* 32 registers: rows * vectors accumulators, the vectors themselves and one broadcast. */
#define LC_ROWS1_neon 12
#define LC_ROWS2_neon 12
#define LC_ROWS3_neon 8
#define LC_ROWS4_neon 6

enum { lanes_f32_neon = 4, lanes_f64_neon = 2, columns_f32_neon = 4, columns_f64_neon = 2 };
typedef float32x4_t vec_f32_neon;
typedef float64x2_t vec_f64_neon;
typedef ptrdiff_t mask_f32_neon; /* NEON has no masked memory access: the mask is the count itself */
typedef ptrdiff_t mask_f64_neon;

#define LC_WORDS_NEON(T, REAL, ABI)                                                                           \
    LC_INLINE vec_##T##_neon zero_##T##_neon(void) { return vdupq_n_##ABI(0); }                               \
    LC_INLINE vec_##T##_neon splat_##T##_neon(const REAL *p) { return vld1q_dup_##ABI(p); }                   \
    LC_INLINE vec_##T##_neon load_##T##_neon(const REAL *p) { return vld1q_##ABI(p); }                        \
    LC_INLINE void store_##T##_neon(REAL *p, vec_##T##_neon v) { vst1q_##ABI(p, v); }                         \
    LC_INLINE ptrdiff_t first_##T##_neon(ptrdiff_t n) { return n; }                                           \
    LC_INLINE vec_##T##_neon fma_##T##_neon(vec_##T##_neon a, vec_##T##_neon b, vec_##T##_neon c) {           \
        return vfmaq_##ABI(c, a, b);                                                                          \
    }                                                                                                         \
    LC_INLINE vec_##T##_neon add_##T##_neon(vec_##T##_neon a, vec_##T##_neon b) { return vaddq_##ABI(a, b); } \
    LC_INLINE vec_##T##_neon mul_##T##_neon(vec_##T##_neon a, vec_##T##_neon b) { return vmulq_##ABI(a, b); } \
    LC_INLINE vec_##T##_neon relu_##T##_neon(vec_##T##_neon v) { return vmaxq_##ABI(vdupq_n_##ABI(0), v); }   \
    LC_INLINE REAL sum_##T##_neon(vec_##T##_neon v) { return vaddvq_##ABI(v); }

LC_WORDS_NEON(f32, float, f32)
LC_WORDS_NEON(f64, double, f64)

LC_INLINE float32x4_t load_first_f32_neon(const float *p, ptrdiff_t n) {
    if (n == 4) return vld1q_f32(p);
    float32x4_t v = vdupq_n_f32(0);
    if (n > 0) v = vld1q_lane_f32(p, v, 0);
    if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
    if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
    return v;
}
LC_INLINE void store_first_f32_neon(float *p, ptrdiff_t n, float32x4_t v) {
    if (n == 4) {
        vst1q_f32(p, v);
        return;
    }
    if (n > 0) vst1q_lane_f32(p, v, 0);
    if (n > 1) vst1q_lane_f32(p + 1, v, 1);
    if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}
LC_INLINE float64x2_t load_first_f64_neon(const double *p, ptrdiff_t n) {
    if (n == 2) return vld1q_f64(p);
    return n == 1 ? vld1q_lane_f64(p, vdupq_n_f64(0), 0) : vdupq_n_f64(0);
}
LC_INLINE void store_first_f64_neon(double *p, ptrdiff_t n, float64x2_t v) {
    if (n == 2)
        vst1q_f64(p, v);
    else if (n == 1)
        vst1q_lane_f64(p, v, 0);
}

LC_INLINE float32x4_t widen_f16_neon(uint64_t bits) { return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(bits))); }
LC_INLINE float32x4_t widen_bf16_neon(uint64_t bits) {
    return vreinterpretq_f32_u32(vshll_n_u16(vcreate_u16(bits), 16));
}
LC_INLINE float32x4_t widen_i8_neon(uint64_t bits) {
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bits)))));
}

LC_WIDEN_128(f16, 2, float32x4_t, neon)
LC_WIDEN_128(bf16, 2, float32x4_t, neon)
LC_WIDEN_128(i8, 1, float32x4_t, neon)

LC_INLINE void transpose_f32_neon(float32x4_t r[4]) {
    const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
LC_INLINE void transpose_f64_neon(float64x2_t r[2]) {
    const float64x2_t a = vzip1q_f64(r[0], r[1]);
    r[1] = vzip2q_f64(r[0], r[1]);
    r[0] = a;
}

LC_COLUMNS_128(f32, float, float32x4_t, 4, neon)
LC_COLUMNS_128(f64, double, float64x2_t, 2, neon)

LC_INLINE float32x4_t sums_f32_neon(const float32x4_t r[4]) {
    return vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3]));
}
LC_INLINE float64x2_t sums_f64_neon(const float64x2_t r[2]) { return vpaddq_f64(r[0], r[1]); }

LC_INLINE float32x4_t pairs_f32_neon(float32x4_t a, float32x4_t b) { return vpaddq_f32(a, b); }
LC_INLINE float64x2_t pairs_f64_neon(float64x2_t a, float64x2_t b) { return vpaddq_f64(a, b); }

#endif
