/* The instances of one instruction set, LC_ISA: one for each element type (dtypes.h). */
#define LC_DTYPE f32
#include "instance.h"
#define LC_DTYPE f64
#include "instance.h"
