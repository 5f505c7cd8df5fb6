/* Which instruction sets can run here: the processor's feature bits, and that the operating system saves the registers.
 */
#ifndef LOCALCONV_CPU_H
#define LOCALCONV_CPU_H

#include "platform.h"

enum { LC_HAS_SCALAR = 1, LC_HAS_AVX2 = 2, LC_HAS_AVX512 = 4, LC_HAS_NEON = 8 };

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

static int lc_cpu_features(void) {
    enum { EAX, EBX, ECX, EDX };
    const unsigned FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, AVX2 = 1u << 5, AVX512F = 1u << 16;
    const uint64_t YMM_SAVED = 0x6, ZMM_SAVED = 0xe6; /* XCR0: SSE, AVX; and opmask, both halves of ZMM */
    unsigned top[4], one[4], seven[4] = {0, 0, 0, 0};
    int features = LC_HAS_SCALAR;
    lc_cpuid(0, 0, top);
    lc_cpuid(1, 0, one);
    if (top[EAX] >= 7) lc_cpuid(7, 0, seven);
    if (!(one[ECX] & OSXSAVE) || !(one[ECX] & AVX)) return features;
    const uint64_t saved = lc_xgetbv();
    if ((saved & YMM_SAVED) == YMM_SAVED && (one[ECX] & FMA) && (seven[EBX] & AVX2)) {
        features |= LC_HAS_AVX2;
        if ((saved & ZMM_SAVED) == ZMM_SAVED && (seven[EBX] & AVX512F)) features |= LC_HAS_AVX512;
    }
    return features;
}

#elif defined(LC_AARCH64)
/* NEON is part of the architecture. */
static int lc_cpu_features(void) { return LC_HAS_SCALAR | LC_HAS_NEON; }
#else
static int lc_cpu_features(void) { return LC_HAS_SCALAR; }
#endif

#endif
