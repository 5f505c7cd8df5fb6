/* What the plans of all algorithms are: they are made once, in src/kernels/jobs.c, and every instance reads them. */
#ifndef LOCALCONV_PLANS_H
#define LOCALCONV_PLANS_H

#include "job.h"
#include "tile.h"
#include "zones.h"

#include "algorithms/local_forward.h"
#include "algorithms/local_gradient.h"
#include "algorithms/local_grad_kernel.h"
#include "algorithms/local_grad_input.h"
#include "algorithms/conv_forward.h"
#include "algorithms/conv_reduction.h"
#include "algorithms/conv_narrow.h"
#include "algorithms/conv_lines.h"
#include "algorithms/conv_winograd.h"
#include "algorithms/columns.h"
#include "algorithms/filter_channels.h"
#include "algorithms/filter_positions.h"
#include "algorithms/filter_dots.h"

#endif
