/* Every kernel of the library for every element type and instruction set, and jobs made of them.
 *
 * The bodies (*.inl.h) are written once over the vocabulary of simd/. Each instance of them is a C file of its own in
 * src/kernels/, and jobs.c there has the plans. To add an instruction set: its words in simd/, its bit in cpu.h, its
 * row in LC_ISAS, and a file for each element type.
 */
#ifndef LOCALCONV_KERNELS_H
#define LOCALCONV_KERNELS_H

#include "cpu.h"
#include "job.h"
#include "platform.h"
#include "tile.h"

/* Every instruction set that is compiled for this processor, best first, and the bits of cpu.h that must be there. */
#if defined(LC_X86_64)
#define LC_ISAS(X)           \
    X(avx512, LC_HAS_AVX512) \
    X(avx2, LC_HAS_AVX2)     \
    X(scalar, LC_HAS_SCALAR)
#elif defined(LC_AARCH64)
#define LC_ISAS(X)       \
    X(neon, LC_HAS_NEON) \
    X(scalar, LC_HAS_SCALAR)
#elif defined(LC_WASM128)
#define LC_ISAS(X)             \
    X(wasm128, LC_HAS_WASM128) \
    X(scalar, LC_HAS_SCALAR)
#else
#define LC_ISAS(X) X(scalar, LC_HAS_SCALAR)
#endif

enum {
#define LC_ROW(name, needs) LC_ISA_##name,
    LC_ISAS(LC_ROW)
#undef LC_ROW
        lc_isa_count
};

#define LC_INSTANCE_ROW(dtype, real, numpy, isa) extern LC_HIDDEN const lc_kernels lc_kernels_##dtype##_##isa;
#define LC_ROW(name, needs)                      LC_DTYPES(LC_INSTANCE_ROW, name)
LC_ISAS(LC_ROW)
#undef LC_ROW
#undef LC_INSTANCE_ROW

/* `needs`: the bits of cpu.h that must be there. */
typedef struct lc_isa {
    const char *name;
    int needs;
    const lc_kernels *kernels[lc_dtype_count];
} lc_isa;

extern LC_HIDDEN const lc_isa lc_isas[lc_isa_count];

/* Makes a job of a geometry, an algorithm, kernels and choices that are in it already: LC_OK, LC_NO_MEMORY, or
 * LC_REFUSED if the algorithm cannot do this geometry with these choices. In any case lc_free_job must follow. */
LC_HIDDEN int lc_make_job(lc_job *job);
LC_HIDDEN void lc_free_job(lc_job *job);

/* Runs one task of a pass. workspace: the thread's own. */
LC_INLINE void lc_run_task(const lc_job *job, const lc_call *call, int pass, ptrdiff_t task, char *shared,
                           char *workspace) {
    job->kernels->passes[job->algorithm][pass](job, call, task, shared, workspace);
}

#endif
