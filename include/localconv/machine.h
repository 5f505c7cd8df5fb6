/* The machine by way of its system. Of the processor's caches it tells the bytes of the first-level data cache, of the
 * second-level cache and of the last-level one, 0 where it does not tell; for fresh memory it is asked for huge pages.
 */
#ifndef LOCALCONV_MACHINE_H
#define LOCALCONV_MACHINE_H

#include "platform.h"

typedef struct lc_caches {
    ptrdiff_t first, second, last;
} lc_caches;

/* Takes note of one cache. */
static inline void lc_note_cache(lc_caches *caches, int level, ptrdiff_t bytes) {
    if (level == 1) caches->first = bytes;
    if (level == 2) caches->second = bytes;
    if (level >= 2 && bytes > caches->last) caches->last = bytes;
}

#if defined(__linux__)
/* The processor's own description: sysconf has it from CPUID on x86 alone. */
static inline int lc_read_cache_file(int index, const char *name, char *text, int size) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    const int complete = fgets(text, size, file) != NULL;
    fclose(file);
    return complete;
}

static lc_caches lc_read_caches(void) {
    lc_caches caches = {0, 0, 0};
    for (int index = 0; index < 16; ++index) {
        char type[32], level[32], size[32];
        if (!lc_read_cache_file(index, "type", type, sizeof type) ||
            !lc_read_cache_file(index, "level", level, sizeof level) ||
            !lc_read_cache_file(index, "size", size, sizeof size))
            break;
        if (strncmp(type, "Instruction", 11) == 0) continue;
        const ptrdiff_t unit = strchr(size, 'M') ? 1 << 20 : strchr(size, 'K') ? 1 << 10 : 1;
        lc_note_cache(&caches, atoi(level), (ptrdiff_t)atol(size) * unit);
    }
    return caches;
}

#elif defined(__APPLE__)
#include <sys/sysctl.h>

static inline ptrdiff_t lc_sysctl(const char *name) {
    int64_t value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value > 0 ? (ptrdiff_t)value : 0;
}

static lc_caches lc_read_caches(void) {
    lc_caches caches = {0, 0, 0};
    lc_note_cache(&caches, 1, lc_sysctl("hw.l1dcachesize"));
    lc_note_cache(&caches, 2, lc_sysctl("hw.l2cachesize"));
    lc_note_cache(&caches, 3, lc_sysctl("hw.l3cachesize"));
    return caches;
}

#elif defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

static lc_caches lc_read_caches(void) {
    lc_caches caches = {0, 0, 0};
    DWORD size = 0;
    GetLogicalProcessorInformation(NULL, &size);
    SYSTEM_LOGICAL_PROCESSOR_INFORMATION *table = (SYSTEM_LOGICAL_PROCESSOR_INFORMATION *)malloc(size ? size : 1);
    if (table && size && GetLogicalProcessorInformation(table, &size))
        for (DWORD i = 0; i < size / sizeof *table; ++i)
            if (table[i].Relationship == RelationCache && table[i].Cache.Type != CacheInstruction)
                lc_note_cache(&caches, table[i].Cache.Level, (ptrdiff_t)table[i].Cache.Size);
    free(table);
    return caches;
}

#else
static lc_caches lc_read_caches(void) {
    lc_caches caches = {0, 0, 0};
    return caches;
}
#endif

/* ------------------------------------------------------------------------------------------- fresh memory */

/* Asks for huge pages where a large array that nobody has touched will lie: each page is cleared when it is first
 * touched, and small ones cost as much again as the clearing does. NumPy does so for its own arrays. */
#if defined(__linux__)
#include <sys/mman.h>

static void lc_ask_for_huge_pages(uintptr_t address, size_t size) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t huge = (uintptr_t)1 << 21, first = (address + huge - 1) & ~(huge - 1),
                    last = (address + size) & ~(huge - 1);
    if (first < last)
        (void)madvise((void *)first, (size_t)(last - first), MADV_HUGEPAGE); /* advice: it may be refused */
#else
    (void)address, (void)size;
#endif
}
#else
static void lc_ask_for_huge_pages(uintptr_t address, size_t size) { (void)address, (void)size; }
#endif

#endif
