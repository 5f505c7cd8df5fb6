/* The kernels of float32 with NEON. */
#include "localconv/platform.h"

#if defined(LC_AARCH64)
#define LC_DTYPE f32
#include "localconv/simd/neon.h"
/**/
#include "localconv/instance.h"
#endif
