/* cpu.h with imagined processors: a set runs only where every bit that it needs is there. */
#ifndef LOCALCONV_TEST_PROCESSORS_H
#define LOCALCONV_TEST_PROCESSORS_H

#include "testing.h"

#if defined(LC_X86_64)
/* Bits as Intel's manual numbers them (volume 1, 14.3 and 15.2): of CPUID leaf 1 ECX, leaf 7 EBX, and XCR0. */
static int check_imagined(void) {
    enum { ECX, EBX, XCR0, NONE = LC_HAS_SCALAR, YMM = NONE | LC_HAS_AVX2, ZMM = YMM | LC_HAS_AVX512 };
    static const struct {
        int from, bit, left; /* what is left without this bit */
    } without[] = {{ECX, 12, NONE}, {ECX, 28, NONE}, {EBX, 5, NONE},  {ECX, 29, NONE}, {EBX, 16, YMM},
                   {EBX, 30, YMM},  {EBX, 31, YMM},  {XCR0, 1, NONE}, {XCR0, 2, NONE}, {XCR0, 5, YMM},
                   {XCR0, 6, YMM},  {XCR0, 7, YMM},  {XCR0, 0, ZMM}};
    const uint64_t all[3] = {1u << 12 | 7u << 27, 1u << 5 | 1u << 16 | 3u << 30, 0xe7};
    int failures = lc_features_of((unsigned)all[ECX], (unsigned)all[EBX], all[XCR0]) != ZMM;
    for (size_t i = 0; i < sizeof without / sizeof *without; ++i) {
        uint64_t r[3] = {all[ECX], all[EBX], all[XCR0]};
        r[without[i].from] ^= (uint64_t)1 << without[i].bit;
        failures += lc_features_of((unsigned)r[ECX], (unsigned)r[EBX], r[XCR0]) != without[i].left;
    }
    failures += !lc_tells_saved((unsigned)all[ECX]) + lc_tells_saved((unsigned)all[ECX] ^ 1u << 27);
    return failures;
}
#else
static int check_imagined(void) { return 0; }
#endif

/* Every set needs a bit of its own, and the last one, which needs what all machines have, runs here. */
static int check_features(void) {
    int failures = check_imagined(), seen = 0;
    for (int i = 0; i < lc_isa_count; ++i) {
        failures += lc_isas[i].needs == 0 || (seen & lc_isas[i].needs) != 0;
        seen |= lc_isas[i].needs;
    }
    failures += (lc_isas[lc_isa_count - 1].needs & lc_cpu_features()) == 0;
    if (failures) fprintf(stderr, "processors.h: %d wrong\n", failures);
    return failures;
}

#endif
