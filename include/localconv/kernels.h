/* Every kernel of the library for every element type and instruction set, and the table to pick them from.
 *
 * The bodies (tile.h, transpose.h, local_forward.h, conv_forward.h, local_gradient.h, conv_gradient.h,
 * conv_narrow.h, im2col.h) are written once over the vocabulary of simd/ and instantiated here. To add an instruction set: its words in
 * simd/, its bit in cpu.h, one region and one row below.
 */
#ifndef LOCALCONV_KERNELS_H
#define LOCALCONV_KERNELS_H

#include "platform.h"
#include "cpu.h"
#include "geometry.h"
#include "plan.h"
#include "simd/shapes.h"

typedef float lc_real_f32;
typedef double lc_real_f64;

typedef struct lc_kernels {
    const char *isa, *dtype;
    int lanes;
    int (*rows_limit)(int vectors);
    void (*local_task)(const lc_call *, const lc_local_plan *, ptrdiff_t task, char *workspace);
    void (*conv_pack)(const lc_call *, const lc_conv_plan *, ptrdiff_t task, ptrdiff_t parts, void *packed);
    void (*conv_task)(const lc_call *, const lc_conv_plan *, ptrdiff_t task, const void *kernel, char *workspace);
    void (*im2col_window)(const lc_geometry *, void *image, ptrdiff_t index, void *row, int scatter, lc_ran *);
    void (*local_gradient_kernel_task)(const lc_call *, const lc_gradient_plan *, ptrdiff_t task, char *workspace);
    void (*local_gradient_input_task)(const lc_call *, const lc_gradient_plan *, ptrdiff_t task, char *workspace);
    void (*conv_gradient_kernel_task)(const lc_call *, const lc_reduction_plan *, ptrdiff_t task, void *partial, char *workspace);
    void (*conv_gradient_kernel_sum)(const lc_call *, const lc_reduction_plan *, ptrdiff_t first, ptrdiff_t last, const void *partial);
    void (*narrow_pack)(const lc_call *, const lc_narrow_plan *, void *packed);
    void (*conv_narrow_task)(const lc_call *, const lc_narrow_plan *, ptrdiff_t task, const void *packed, char *workspace);
} lc_kernels;

#define LC_ISA scalar
#include "simd/scalar.h"
#define LC_DTYPE f32
#include "instance.h"
#define LC_DTYPE f64
#include "instance.h"
#undef LC_ISA

#if defined(LC_X86_64)
LC_TARGET_BEGIN("avx2,fma")
#define LC_ISA avx2
#include "simd/avx2.h"
#define LC_DTYPE f32
#include "instance.h"
#define LC_DTYPE f64
#include "instance.h"
#undef LC_ISA
LC_TARGET_END

LC_TARGET_BEGIN("avx512f")
#define LC_ISA avx512
#include "simd/avx512.h"
#define LC_DTYPE f32
#include "instance.h"
#define LC_DTYPE f64
#include "instance.h"
#undef LC_ISA
LC_TARGET_END
#endif

#if defined(LC_AARCH64)
#define LC_ISA neon
#include "simd/neon.h"
#define LC_DTYPE f32
#include "instance.h"
#define LC_DTYPE f64
#include "instance.h"
#undef LC_ISA
#endif

/* Best first. `needs`: the bits of cpu.h that must be there. */
typedef struct lc_isa {
    const char *name;
    int needs;
    const lc_kernels *f32, *f64;
} lc_isa;

static const lc_isa lc_isas[] = {
#if defined(LC_X86_64)
    {"avx512", LC_HAS_AVX512, &kernels_f32_avx512, &kernels_f64_avx512},
    {"avx2", LC_HAS_AVX2, &kernels_f32_avx2, &kernels_f64_avx2},
#endif
#if defined(LC_AARCH64)
    {"neon", LC_HAS_NEON, &kernels_f32_neon, &kernels_f64_neon},
#endif
    {"scalar", LC_HAS_SCALAR, &kernels_f32_scalar, &kernels_f64_scalar},
};
enum { lc_isa_count = (int)(sizeof lc_isas / sizeof lc_isas[0]) };

#endif
