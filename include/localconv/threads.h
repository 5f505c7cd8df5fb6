/* What _core.pyx asks of OpenMP, with answers where there is no OpenMP. */
#ifndef LOCALCONV_THREADS_H
#define LOCALCONV_THREADS_H

#include "forks.h"

#if defined(_OPENMP)
#include <omp.h>
static int lc_openmp_version(void) { return _OPENMP; }
static int lc_openmp_threads(void) { return omp_get_max_threads(); } /* OMP_NUM_THREADS, threadpoolctl */
static int lc_processors(void) { return omp_get_num_procs(); }       /* those that this process may use */
static int lc_thread(void) { return omp_get_thread_num(); }
static int64_t lc_now(void) { return (int64_t)(omp_get_wtime() * 1e9); } /* nanoseconds since some moment */
/* Where the runtime is that this module was bound to. */
static uintptr_t lc_openmp_address(void) { return (uintptr_t)omp_get_max_threads; }
static void lc_watch_forks(void) { lc_watch_forks_of(lc_openmp_address()); }
#else
static int lc_openmp_version(void) { return 0; }
static int lc_openmp_threads(void) { return 1; }
static int lc_processors(void) { return 1; }
static int lc_thread(void) { return 0; }
static int64_t lc_now(void) { return 0; }
static uintptr_t lc_openmp_address(void) { return 0; }
static void lc_watch_forks(void) {}
#endif

/* When the first thread of a team began its first task, and ended its last one. */
typedef struct lc_first_thread {
    int64_t began, ended;
} lc_first_thread;

#endif
