/* One instance of every kernel, for LC_DTYPE (f32, f64) and LC_ISA. Included by kernels.h inside the target region. */

#define LC_REAL LC_JOIN2(lc_real, LC_DTYPE)
#define LC_VEC LC_NAME(vec)
#define LC_MASK LC_NAME(mask)
#define LC_LANES LC_NAME(lanes)

#include "tile.h"
#include "transpose.h"
#include "local_forward.h"
#include "conv_forward.h"
#include "local_gradient.h"
#include "conv_gradient.h"
#include "conv_narrow.h"
#include "im2col.h"

static const lc_kernels LC_NAME(kernels) = {
    LC_STRING(LC_ISA), LC_STRING(LC_DTYPE), LC_LANES,
    LC_NAME(rows_limit), LC_NAME(local_task), LC_NAME(conv_pack), LC_NAME(conv_task),
    LC_NAME(im2col_window), LC_NAME(local_gradient_kernel_task), LC_NAME(local_gradient_input_task),
    LC_NAME(conv_gradient_kernel_task), LC_NAME(conv_gradient_kernel_sum),
    LC_NAME(narrow_pack), LC_NAME(conv_narrow_task),
};

#undef LC_REAL
#undef LC_VEC
#undef LC_MASK
#undef LC_LANES
#undef LC_DTYPE
