/* The instruction sets that there are, and the plans of all algorithms. */
#include "localconv/kernels.h"
#include "localconv/plans.h"

const lc_isa lc_isas[lc_isa_count] = {
#define LC_INSTANCE_ROW(dtype, real, numpy, isa) &lc_kernels_##dtype##_##isa,
#define LC_ROW(name, needs)                      {#name, needs, {LC_DTYPES(LC_INSTANCE_ROW, name)}},
    LC_ISAS(LC_ROW)
#undef LC_ROW
#undef LC_INSTANCE_ROW
};

int lc_make_job(lc_job *job) {
    static int (*const finish[])(lc_job *) = {
#define LC_ROW(name, operation, finish, first, second) lc_finish_##finish,
        LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
    };
    lc_derive(&job->geometry);
    job->geometry.channel_lanes = job->geometry.channel_lanes && lc_can_have_channel_lanes(job->algorithm);
    job->memory = NULL;
    job->memory_bytes = job->shared_bytes = job->thread_bytes = job->list_bytes = job->box_bytes = 0;
    for (int pass = 0; pass < LC_PASSES; ++pass) job->tasks[pass] = 0;
    memset(job->plan, 0, sizeof job->plan);
    const int status = finish[job->algorithm](job);
    return status == LC_OK && lc_max(job->shared_bytes, job->thread_bytes) > LC_MOST_BYTES ? LC_NO_MEMORY : status;
}

void lc_free_job(lc_job *job) {
    free(job->memory);
    job->memory = NULL;
}
