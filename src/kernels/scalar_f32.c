/* The kernels of float32 in plain C. */
#define LC_DTYPE f32
#include "localconv/simd/scalar.h"
/**/
#include "localconv/instance.h"
