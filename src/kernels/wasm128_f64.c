/* The kernels of float64 with WebAssembly's vectors. */
#include "localconv/platform.h"

#if defined(LC_WASM128)
#define LC_DTYPE f64
#include "localconv/simd/wasm128.h"
/**/
#include "localconv/instance.h"
#endif
