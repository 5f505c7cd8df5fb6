/* Whether this process may be without the worker threads that its OpenMP runtime believes it has.
 *
 * fork copies the calling thread alone. GNU OpenMP keeps its pool of threads in the copy, and the next parallel region
 * waits for them for ever. Nobody can ask the runtime whether it had a pool: whoever else in the process uses it
 * (PyTorch) may have made one. So a process stays on one thread
 *   - after it was forked from one that had this module loaded, and
 *   - if it was forked without an exec, and the runtime was there before this module: a pool may have been made before
 * the fork.
 */
#ifndef LOCALCONV_FORKS_H
#define LOCALCONV_FORKS_H

#include <stdint.h>

static int lc_forked = 0;

#if defined(_WIN32)
static void lc_watch_forks_of(uintptr_t runtime) { (void)runtime; }
#else
#include <pthread.h>

static void lc_note_fork(void) { lc_forked = 1; }

#if defined(__linux__)
#include <link.h>
#include <stdio.h>
#include <string.h>

/* Linux marks a process that was forked and has not called exec, in the seventh number behind the name in
 * /proc/self/stat. Where that cannot be read, one thread is what is safe. */
static int lc_forked_without_exec(void) {
    enum { PF_FORKNOEXEC = 0x40 };
    char line[1024];
    unsigned flags = 0;
    FILE *file = fopen("/proc/self/stat", "r");
    if (!file) return 1;
    const char *name_end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return name_end && sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & PF_FORKNOEXEC);
}

/* Two addresses, and which of them lies in the shared object that was loaded first. */
typedef struct {
    uintptr_t address[2];
    int first; /* -1: neither was met yet */
} lc_load_order;

static int lc_visit_object(struct dl_phdr_info *object, size_t size, void *data) {
    lc_load_order *order = (lc_load_order *)data;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; ++i) {
        const uintptr_t start = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
        if (object->dlpi_phdr[i].p_type != PT_LOAD) continue;
        /* the module first: a runtime linked into it is no older */
        for (int k = 1; k >= 0 && order->first < 0; --k)
            if (order->address[k] - start < object->dlpi_phdr[i].p_memsz) order->first = k;
    }
    return order->first >= 0;
}

/* Whether the runtime was in the process before this module: the loader lists objects in the order in which it loaded
 * them, and those that an object needs behind it. */
static int lc_runtime_is_older(uintptr_t runtime) {
    lc_load_order order = {{runtime, (uintptr_t)lc_note_fork}, -1};
    dl_iterate_phdr(lc_visit_object, &order);
    return order.first == 0;
}
#else
/* Elsewhere the compilers' runtime is LLVM's, which makes its pool anew in a forked child. */
static int lc_forked_without_exec(void) { return 0; }
static int lc_runtime_is_older(uintptr_t runtime) { return runtime == 0; }
#endif

/* To be called once, when the module is loaded. runtime: the address of any function of the OpenMP runtime. */
static void lc_watch_forks_of(uintptr_t runtime) {
    pthread_atfork(NULL, NULL, lc_note_fork);
    if (lc_forked_without_exec() && lc_runtime_is_older(runtime)) lc_forked = 1;
}
#endif

#endif
