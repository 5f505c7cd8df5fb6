/* The kernels of float32 with AVX-512. */
#include "localconv/platform.h"

#if defined(LC_X86_64)
#define LC_DTYPE f32
#include "localconv/simd/avx512.h"
/**/
#include "localconv/instance.h"
#endif
