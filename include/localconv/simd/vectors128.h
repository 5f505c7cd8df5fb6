/* Words that are made of others in the same way wherever vectors have 16 bytes. */
#ifndef LOCALCONV_SIMD_VECTORS128_H
#define LOCALCONV_SIMD_VECTORS128_H

#include "../platform.h"

/* Loads of a stored type, of which `widen` takes the bits in a word. */
#define LC_WIDEN_128(STORE, SIZE, VECTOR, ISA)                                    \
    LC_INLINE VECTOR load_##STORE##_f32_##ISA(const char *p) {                    \
        return widen_##STORE##_##ISA(lc_first_bytes(p, 4 * SIZE));                \
    }                                                                             \
    LC_INLINE VECTOR load_first_##STORE##_f32_##ISA(const char *p, ptrdiff_t n) { \
        return widen_##STORE##_##ISA(lc_first_bytes(p, n * SIZE));                \
    }

/* A block of columns is a whole block. */
#define LC_COLUMNS_128(T, REAL, VECTOR, LANES, ISA)                                         \
    LC_INLINE void load_columns_##T##_##ISA(const REAL *p, ptrdiff_t s, VECTOR r[LANES]) {  \
        LC_UNROLL                                                                           \
        for (int i = 0; i < LANES; ++i) r[i] = load_##T##_##ISA(p + i * s);                 \
        transpose_##T##_##ISA(r);                                                           \
    }                                                                                       \
    LC_INLINE void store_columns_##T##_##ISA(REAL *p, ptrdiff_t s, const VECTOR r[LANES]) { \
        VECTOR t[LANES];                                                                    \
        LC_UNROLL                                                                           \
        for (int i = 0; i < LANES; ++i) t[i] = r[i];                                        \
        transpose_##T##_##ISA(t);                                                           \
        LC_UNROLL                                                                           \
        for (int i = 0; i < LANES; ++i) store_##T##_##ISA(p + i * s, t[i]);                 \
    }

#endif
