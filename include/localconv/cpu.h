/* Which instruction sets can run here: the processor's feature bits, and that the operating system saves the registers.
 */
#ifndef LOCALCONV_CPU_H
#define LOCALCONV_CPU_H

#include "platform.h"

enum { LC_HAS_SCALAR = 1, LC_HAS_AVX2 = 2, LC_HAS_AVX512 = 4, LC_HAS_NEON = 8, LC_HAS_WASM128 = 16 };

#if defined(LC_X86_64)

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

static void lc_cpuid(unsigned leaf, unsigned subleaf, unsigned r[4]) {
#if defined(_MSC_VER)
    __cpuidex((int *)r, (int)leaf, (int)subleaf);
#else
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
#endif
}

/* XCR0: the register states that the operating system saves. Only to be read where CPUID says OSXSAVE. */
static uint64_t lc_xgetbv(void) {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

/* Whether XCR0 can be read, by CPUID's leaf 1. */
static int lc_tells_saved(unsigned ecx_1) {
    const unsigned OSXSAVE = 1u << 27;
    return (ecx_1 & OSXSAVE) != 0;
}

/* What can run by CPUID's leaves 1 and 7 and XCR0. */
static int lc_features_of(unsigned ecx_1, unsigned ebx_7, uint64_t saved) {
    const unsigned FMA = 1u << 12, AVX = 1u << 28, F16C = 1u << 29, AVX2 = 1u << 5;
    const unsigned AVX512F = 1u << 16, AVX512BW = 1u << 30, AVX512VL = 1u << 31, AVX512 = AVX512F | AVX512BW | AVX512VL;
    const uint64_t YMM_SAVED = 0x6, ZMM_SAVED = 0xe6; /* XCR0: SSE, AVX; and opmask, both halves of ZMM */
    int features = LC_HAS_SCALAR;
    const unsigned avx2 = AVX | FMA | F16C;
    if ((saved & YMM_SAVED) == YMM_SAVED && (ecx_1 & avx2) == avx2 && (ebx_7 & AVX2)) {
        features |= LC_HAS_AVX2;
        if ((saved & ZMM_SAVED) == ZMM_SAVED && (ebx_7 & AVX512) == AVX512) features |= LC_HAS_AVX512;
    }
    return features;
}

static inline int lc_cpu_features(void) {
    enum { EAX, EBX, ECX, EDX };
    unsigned top[4], one[4], seven[4] = {0, 0, 0, 0};
    lc_cpuid(0, 0, top);
    lc_cpuid(1, 0, one);
    if (top[EAX] >= 7) lc_cpuid(7, 0, seven);
    return lc_features_of(one[ECX], seven[EBX], lc_tells_saved(one[ECX]) ? lc_xgetbv() : 0);
}

#elif defined(LC_AARCH64)
/* NEON is part of the architecture. */
static inline int lc_cpu_features(void) { return LC_HAS_SCALAR | LC_HAS_NEON; }
#elif defined(LC_WASM128)
/* An engine without vectors does not load a module that has them. */
static inline int lc_cpu_features(void) { return LC_HAS_SCALAR | LC_HAS_WASM128; }
#else
static inline int lc_cpu_features(void) { return LC_HAS_SCALAR; }
#endif

#endif
