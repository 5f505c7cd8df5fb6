/* One instance of every kernel, for one element type and instruction set: the C file that includes this has defined
 * LC_DTYPE, and included the header of simd/ that defines LC_ISA.
 *
 * Bodies have plain names (`run_tile`), which debuggers and editors find; every instance has a file of its own.
 */
#ifndef LOCALCONV_INSTANCE_H
#define LOCALCONV_INSTANCE_H
#define LC_INSTANCE

#include "kernels.h"
#include "plans.h"
#include "simd/shapes.h"

#define LC_REAL    LC_JOIN2(lc_real, LC_DTYPE)
#define LC_VEC     LC_NAME(vec)
#define LC_MASK    LC_NAME(mask)
#define LC_LANES   LC_NAME(lanes)
#define LC_COLUMNS LC_NAME(columns)

/* The vocabulary: simd/scalar.h says what each word means. */
#define v_zero          LC_NAME(zero)
#define v_splat         LC_NAME(splat)
#define v_load          LC_NAME(load)
#define v_store         LC_NAME(store)
#define v_first         LC_NAME(first)
#define v_load_first    LC_NAME(load_first)
#define v_store_first   LC_NAME(store_first)
#define v_fma           LC_NAME(fma)
#define v_add           LC_NAME(add)
#define v_mul           LC_NAME(mul)
#define v_relu          LC_NAME(relu)
#define v_sum           LC_NAME(sum)
#define v_sums          LC_NAME(sums)
#define v_pairs         LC_NAME(pairs)
#define v_transpose     LC_NAME(transpose)
#define v_load_columns  LC_NAME(load_columns)
#define v_store_columns LC_NAME(store_columns)

/* The parameters of a task of a pass (job.h). */
#define LC_TASK_ARGUMENTS const lc_job *job, const lc_call *c, ptrdiff_t task, char *shared, char *workspace

LC_FEATURES_BEGIN

#include "tile.inl.h"

#include "copy.inl.h"

#include "bank.inl.h"

#include "algorithms/local_forward.inl.h"
#include "algorithms/local_gradient.inl.h"
#include "algorithms/local_grad_kernel.inl.h"
#include "algorithms/local_grad_input.inl.h"
#include "algorithms/conv_forward.inl.h"
#include "algorithms/conv_reduction.inl.h"
#include "algorithms/conv_narrow.inl.h"
#include "algorithms/conv_lines.inl.h"
#include "algorithms/conv_winograd.inl.h"
#include "algorithms/columns.inl.h"
#include "algorithms/filter_channels.inl.h"
#include "algorithms/filter_positions.inl.h"
#include "algorithms/filter_dots.inl.h"

LC_NOINLINE void no_task(LC_TASK_ARGUMENTS) { lc_impossible("a task of a pass that its algorithm does not have"); }

LC_FEATURES_END

const lc_kernels LC_JOIN3(lc_kernels, LC_DTYPE, LC_ISA) = {
    LC_STRING(LC_ISA),
    LC_STRING(LC_DTYPE),
    LC_LANES,
    (int)sizeof(LC_REAL),
    {0, LC_JOIN2(LC_ROWS1, LC_ISA), LC_JOIN2(LC_ROWS2, LC_ISA), LC_JOIN2(LC_ROWS3, LC_ISA), LC_JOIN2(LC_ROWS4, LC_ISA)},
    {
#define LC_ROW(name, operation, finish, first, second) {first, second},
        LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
    },
    any_tile,
};

#endif
