/* One instance of every kernel, for LC_DTYPE and LC_ISA. Included inside the target region of the instruction set. */

#define LC_REAL  LC_JOIN2(lc_real, LC_DTYPE)
#define LC_VEC   LC_NAME(vec)
#define LC_MASK  LC_NAME(mask)
#define LC_LANES LC_NAME(lanes)

/* A task of a pass (job.h): its arguments are job, c, task, shared, workspace. */
#define LC_TASK(name) \
    LC_NOINLINE void LC_NAME(name)(const lc_job *job, const lc_call *c, ptrdiff_t task, char *shared, char *workspace)

#include "tile.h"
#include "copy.h"
#include "bodies.h"

LC_TASK(no_task) { lc_impossible("a task of a pass that its algorithm does not have"); }

static const lc_kernels LC_NAME(kernels) = {
    LC_STRING(LC_ISA),
    LC_STRING(LC_DTYPE),
    LC_LANES,
    (int)sizeof(LC_REAL),
    {0, LC_JOIN2(LC_ROWS1, LC_ISA), LC_JOIN2(LC_ROWS2, LC_ISA), LC_JOIN2(LC_ROWS3, LC_ISA), LC_JOIN2(LC_ROWS4, LC_ISA)},
    {
#define LC_ROW(name, operation, finish, first, second) {LC_NAME(first), LC_NAME(second)},
        LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
    },
};

#undef LC_REAL
#undef LC_VEC
#undef LC_MASK
#undef LC_LANES
#undef LC_TASK
#undef LC_DTYPE
