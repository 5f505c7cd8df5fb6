/* What _core.pyx asks of OpenMP and the operating system, with answers where there is no OpenMP. */
#ifndef LOCALCONV_THREADS_H
#define LOCALCONV_THREADS_H

#if defined(_OPENMP)
#include <omp.h>
static int lc_openmp_version(void) { return _OPENMP; }
static int lc_openmp_threads(void) { return omp_get_max_threads(); } /* OMP_NUM_THREADS, threadpoolctl */
static int lc_processors(void) { return omp_get_num_procs(); }      /* those that this process may use */
static int lc_thread(void) { return omp_get_thread_num(); }
#else
static int lc_openmp_version(void) { return 0; }
static int lc_openmp_threads(void) { return 1; }
static int lc_processors(void) { return 1; }
static int lc_thread(void) { return 0; }
#endif

/* GNU OpenMP's pool of threads does not survive a fork, and its next parallel region in the child waits for it for ever. So
 * the process that first ran in parallel is remembered, and another one (a forked child) stays on one thread. */
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__) && !defined(_WIN32)
#include <unistd.h>
static long lc_process(void) { return (long)getpid(); }
#else
static long lc_process(void) { return 1; }
#endif

#endif
