/* Every algorithm's header. Included once for what they share, then once per instance for their bodies. */
#include "algorithms/local_forward.h"
#include "algorithms/local_gradient.h"
#include "algorithms/local_grad_kernel.h"
#include "algorithms/local_grad_input.h"
#include "algorithms/conv_forward.h"
#include "algorithms/conv_reduction.h"
#include "algorithms/conv_narrow.h"
#include "algorithms/columns.h"
