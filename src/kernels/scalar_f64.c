/* The kernels of float64 in plain C. */
#define LC_DTYPE f64
#include "localconv/simd/scalar.h"
/**/
#include "localconv/instance.h"
