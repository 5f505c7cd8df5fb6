/* For an editor that opens a body (*.inl.h) by itself: it sees the instance for float32 in plain C. Instances define
 * LC_INSTANCE, and never come here. */
#ifndef LOCALCONV_EDITOR_H
#define LOCALCONV_EDITOR_H

#define LC_DTYPE f32
#include "simd/scalar.h"
/**/
#include "instance.h"

#endif
