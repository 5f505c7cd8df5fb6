/* Every kernel of the library for every element type and instruction set, and jobs made of them.
 *
 * The bodies (tile.h, copy.h, algorithms/) are written once over the vocabulary of simd/ and instantiated here. To add
 * an instruction set: its words in simd/, its bit in cpu.h, one region and one row below.
 */
#ifndef LOCALCONV_KERNELS_H
#define LOCALCONV_KERNELS_H

#include "cpu.h"
#include "job.h"
#include "platform.h"
#include "simd/shapes.h"
#include "tile.h"
#include "zones.h"

#include "bodies.h"

#define LC_ISA scalar
#include "simd/scalar.h"
#include "instances.h"
#undef LC_ISA

#if defined(LC_X86_64)
LC_TARGET_BEGIN("avx2,fma,f16c")
#define LC_ISA avx2
#include "simd/avx2.h"
#include "instances.h"
#undef LC_ISA
LC_TARGET_END

LC_TARGET_BEGIN("avx512f,avx512bw,avx512vl")
#define LC_ISA avx512
#include "simd/avx512.h"
#include "instances.h"
#undef LC_ISA
LC_TARGET_END
#endif

#if defined(LC_AARCH64)
#define LC_ISA neon
#include "simd/neon.h"
#include "instances.h"
#undef LC_ISA
#endif

/* Best first. `needs`: the bits of cpu.h that must be there. */
typedef struct lc_isa {
    const char *name;
    int needs;
    const lc_kernels *kernels[lc_dtype_count];
} lc_isa;

static const lc_isa lc_isas[] = {
#define LC_ROW(name, real, numpy) &LC_JOIN3(kernels, name, LC_ISA),
#if defined(LC_X86_64)
#define LC_ISA avx512
    {"avx512", LC_HAS_AVX512, {LC_DTYPES(LC_ROW)}},
#undef LC_ISA
#define LC_ISA avx2
    {"avx2", LC_HAS_AVX2, {LC_DTYPES(LC_ROW)}},
#undef LC_ISA
#endif
#if defined(LC_AARCH64)
#define LC_ISA neon
    {"neon", LC_HAS_NEON, {LC_DTYPES(LC_ROW)}},
#undef LC_ISA
#endif
#define LC_ISA scalar
    {"scalar", LC_HAS_SCALAR, {LC_DTYPES(LC_ROW)}},
#undef LC_ISA
#undef LC_ROW
};
enum { lc_isa_count = (int)(sizeof lc_isas / sizeof lc_isas[0]) };

/* ----------------------------------------------------------------------------------------- making jobs */

/* Makes a job of a geometry, an algorithm, kernels and choices that are in it already: LC_OK, LC_NO_MEMORY, or
 * LC_REFUSED if the algorithm cannot do this geometry with these choices. In any case lc_free_job must follow. */
static inline int lc_make_job(lc_job *job) {
    static int (*const finish[])(lc_job *) = {
#define LC_ROW(name, operation, finish, first, second) lc_finish_##finish,
        LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
    };
    lc_derive(&job->geometry);
    job->geometry.lanewise = job->geometry.lanewise && lc_can_be_lanewise(job->algorithm);
    job->memory = NULL;
    job->memory_bytes = job->shared_bytes = job->thread_bytes = job->list_bytes = job->box_bytes = 0;
    for (int pass = 0; pass < LC_PASSES; ++pass) job->tasks[pass] = 0;
    memset(job->plan, 0, sizeof job->plan);
    const int status = finish[job->algorithm](job);
    return status == LC_OK && lc_max(job->shared_bytes, job->thread_bytes) > LC_MOST_BYTES ? LC_NO_MEMORY : status;
}

static inline void lc_free_job(lc_job *job) {
    free(job->memory);
    job->memory = NULL;
}

/* Runs one task of a pass. workspace: the thread's own. */
LC_INLINE void lc_run_task(const lc_job *job, const lc_call *call, int pass, ptrdiff_t task, char *shared,
                           char *workspace) {
    job->kernels->passes[job->algorithm][pass](job, call, task, shared, workspace);
}

#endif
