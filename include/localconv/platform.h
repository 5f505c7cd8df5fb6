/* What differs between compilers, named once: inlining, unrolling, prefetch, alignment and the regions of code compiled
 * for an instruction set above the baseline. Everything else in these headers is C11 with intrinsics. */
#ifndef LOCALCONV_PLATFORM_H
#define LOCALCONV_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define LC_X86_64 1
#include <immintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#define LC_AARCH64 1
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#define LC_WASM128 1
#include <wasm_simd128.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define LC_INLINE   static __forceinline
#define LC_NOINLINE static __declspec(noinline)
#define LC_UNROLL
#define LC_UNROLL_TWICE
#else
#define LC_INLINE   static inline __attribute__((always_inline, unused))
#define LC_NOINLINE static __attribute__((noinline, unused))
#if defined(__clang__)
#define LC_UNROLL       _Pragma("clang loop unroll(full)")
#define LC_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define LC_UNROLL       _Pragma("GCC unroll 32")
#define LC_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
#endif

/* What only the files of one module see. */
#if defined(__GNUC__) && !defined(_WIN32)
#define LC_HIDDEN __attribute__((visibility("hidden")))
#else
#define LC_HIDDEN
#endif

#if defined(LC_X86_64)
#define LC_PREFETCH_L1(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define LC_PREFETCH_L2(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#elif defined(__GNUC__) || defined(__clang__)
#define LC_PREFETCH_L1(p) __builtin_prefetch((p), 0, 3)
#define LC_PREFETCH_L2(p) __builtin_prefetch((p), 0, 2)
#else
#define LC_PREFETCH_L1(p) ((void)(p))
#define LC_PREFETCH_L2(p) ((void)(p))
#endif

/* Hides from the optimizer where a pointer came from, so that it keeps its own register: left alone, compilers turn a
 * tile's row pointers into one pointer and a register for every row's offset, run out of registers and reload them at
 * every step. */
#if defined(__GNUC__) || defined(__clang__)
#define LC_OPAQUE(pointer) __asm__("" : "+r"(pointer))
#else
#define LC_OPAQUE(pointer) ((void)0)
#endif

/* A target region: LC_TARGET_BEGIN("avx2,fma") ... LC_TARGET_END. MSVC accepts every intrinsic everywhere. */
#define LC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define LC_TARGET_BEGIN(features) \
    LC_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define LC_TARGET_END LC_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define LC_TARGET_BEGIN(features) LC_PRAGMA(GCC push_options) LC_PRAGMA(GCC target(features))
#define LC_TARGET_END             LC_PRAGMA(GCC pop_options)
#else
#define LC_TARGET_BEGIN(features)
#define LC_TARGET_END
#endif

/* A number that several threads read and write without a lock. */
#if defined(__GNUC__) || defined(__clang__)
#define LC_LOAD(p)         __atomic_load_n((p), __ATOMIC_RELAXED)
#define LC_STORE(p, value) __atomic_store_n((p), (value), __ATOMIC_RELAXED)
#else /* Microsoft's compiler: aligned words of up to 64 bits are read and written as a whole */
#include <intrin.h>
#define LC_LOAD(p)         (*(const volatile int64_t *)(p))
#define LC_STORE(p, value) (*(volatile int64_t *)(p) = (value))
#endif

/* One step of several threads' agreement on a number, and on all that was written before it: adds, and returns what the
 * number was; or replaces what was expected and returns 1, else 0 and what there was in *expected. */
#if defined(__GNUC__) || defined(__clang__)
LC_INLINE int64_t lc_add(int64_t *p, int64_t n) { return __atomic_fetch_add(p, n, __ATOMIC_ACQ_REL); }
LC_INLINE int lc_compare_exchange(int64_t *p, int64_t *expected, int64_t value) {
    return __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#else
LC_INLINE int64_t lc_add(int64_t *p, int64_t n) { return _InterlockedExchangeAdd64(p, n); }
LC_INLINE int lc_compare_exchange(int64_t *p, int64_t *expected, int64_t value) {
    const int64_t wanted = *expected;
    *expected = _InterlockedCompareExchange64(p, value, wanted);
    return *expected == wanted;
}
#endif

/* op -> op_f32_avx512: how the words of simd/ carry their element type and instruction set. */
#define LC_JOIN3_(a, b, c) a##_##b##_##c
#define LC_JOIN3(a, b, c)  LC_JOIN3_(a, b, c)
#define LC_JOIN2_(a, b)    a##_##b
#define LC_JOIN2(a, b)     LC_JOIN2_(a, b)
#define LC_NAME(op)        LC_JOIN3(op, LC_DTYPE, LC_ISA)
#define LC_STRING_(text)   #text
#define LC_STRING(text)    LC_STRING_(text)

/* The first n <= 8 bytes at p in the low bytes of a word, 0 above; memory behind them is not touched. Every instruction
 * set above the baseline is little-endian. */
LC_INLINE uint64_t lc_first_bytes(const char *p, ptrdiff_t n) {
    uint64_t word = 0;
    uint32_t four;
    uint16_t two;
    int shift = 0;
    if (n & 8) {
        memcpy(&word, p, 8);
        return word;
    }
    if (n & 4) {
        memcpy(&four, p, 4);
        word = four;
        p += 4;
        shift = 32;
    }
    if (n & 2) {
        memcpy(&two, p, 2);
        word |= (uint64_t)two << shift;
        p += 2;
        shift += 16;
    }
    return n & 1 ? word | (uint64_t)*(const unsigned char *)p << shift : word;
}

/* For what `finish` (job.h) has made impossible: an output must never be left unwritten without a word. */
LC_NOINLINE void lc_impossible(const char *what) {
    fprintf(stderr, "localconv: %s\n", what);
    abort();
}

enum { LC_ALIGNMENT = 64 }; /* of workspaces and of the parts in them: a cache line */

LC_INLINE ptrdiff_t lc_align(ptrdiff_t bytes) { return (bytes + LC_ALIGNMENT - 1) / LC_ALIGNMENT * LC_ALIGNMENT; }
LC_INLINE ptrdiff_t lc_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
LC_INLINE ptrdiff_t lc_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
LC_INLINE ptrdiff_t lc_ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

LC_INLINE ptrdiff_t lc_round_up(ptrdiff_t n, ptrdiff_t unit) { return lc_ceil_div(n, unit) * unit; }

/* The size of the parts when n is cut into as few as possible, none larger than `limit`, as equal as can be. */
LC_INLINE ptrdiff_t lc_even(ptrdiff_t n, ptrdiff_t limit) { return n < 1 ? 1 : lc_ceil_div(n, lc_ceil_div(n, limit)); }

/* Start of part i of n cut into parts as equal as can be. */
LC_INLINE ptrdiff_t lc_share(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i) {
    if (parts == 1) return n * i; /* the usual case, without a division */
    const ptrdiff_t small = n / parts, extra = n % parts;
    return small * i + lc_min(i, extra);
}

#endif
