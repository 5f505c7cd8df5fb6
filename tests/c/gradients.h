/* The four gradients against plain loops in C.
 *
 * A gradient may differ from the long double sum by 2 * eps * (terms + 2) * (sum of the products' sizes), terms being how many products it
 * sums; values that sum none must be 0.
 */
#ifndef LOCALCONV_TEST_GRADIENTS_H
#define LOCALCONV_TEST_GRADIENTS_H

#include "testing.h"

enum { FOR_INPUT, FOR_KERNEL };

/* What a gradient should be, value by value. */
typedef struct {
    long double *sum, *bound;
    ptrdiff_t *terms, size;
} expected;

/* The products of one output value with the kernel or the input, added to the gradient's values that they belong to. */
static void add_products(const lc_geometry *g, int local, int which, const array *other, const ptrdiff_t at[3], ptrdiff_t image,
                         ptrdiff_t filter, double gradient, expected *e) {
    const ptrdiff_t pixels = g->input[0] * g->input[1] * g->input[2], position = (at[0] * g->output[1] + at[1]) * g->output[2] + at[2];
    for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
        const ptrdiff_t taps[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
        ptrdiff_t pixel = 0;
        int inside = 1;
        for (int axis = 0; axis < 3; ++axis) {
            const ptrdiff_t i = at[axis] * g->strides[axis] - g->before[axis] + taps[axis] * g->dilation[axis];
            inside &= i >= 0 && i < g->input[axis];
            pixel = pixel * g->input[axis] + i;
        }
        for (ptrdiff_t c = 0; inside && c < g->group_channels; ++c) {
            const ptrdiff_t channel = filter / g->group_filters * g->group_channels + c;
            const ptrdiff_t row = local && g->channels_first ? c * g->taps + tap : tap * g->group_channels + c;
            const ptrdiff_t x = image * g->input_batch + (g->channels_first ? channel * pixels + pixel : pixel * g->channels + channel);
            const ptrdiff_t k = ((local ? position * g->depth : 0) + row) * g->filters + filter;
            const long double product = (long double)gradient * get(other, which == FOR_INPUT ? k : x);
            const ptrdiff_t target = which == FOR_INPUT ? x : k;
            e->sum[target] += product;
            e->bound[target] += fabsl(product);
            ++e->terms[target];
        }
    }
}

static expected expect_gradient(const lc_geometry *g, int local, int which, const array *other, const array *dy, ptrdiff_t size) {
    expected e = {allocate(size * (ptrdiff_t)sizeof(long double)), allocate(size * (ptrdiff_t)sizeof(long double)),
                  allocate(size * (ptrdiff_t)sizeof(ptrdiff_t)), size};
    for (ptrdiff_t i = 0; i < size; ++i) e.sum[i] = e.bound[i] = 0, e.terms[i] = 0;
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t p = 0; p < g->positions; ++p)
            for (ptrdiff_t f = 0; f < g->filters; ++f) {
                const ptrdiff_t at[3] = {p / (g->output[1] * g->output[2]), p / g->output[2] % g->output[1], p % g->output[2]};
                const ptrdiff_t y = image * g->output_batch + p * g->output_stride[2] + f * g->output_channel;
                add_products(g, local, which, other, at, image, f, get(dy, y), &e);
            }
    return e;
}

static int count_gradient_wrong(const expected *e, const array *result) {
    const long double eps = result->wide ? DBL_EPSILON : FLT_EPSILON;
    int wrong = 0;
    for (ptrdiff_t i = 0; i < e->size; ++i)
        wrong += !(fabsl(get(result, i) - e->sum[i]) <= 2 * eps * (long double)(e->terms[i] + 2) * e->bound[i]);
    return wrong;
}

static void run_local_gradient(const lc_kernels *kernels, const lc_call *call, int which, int strategy, ptrdiff_t block, int wide) {
    const lc_geometry *g = call->geometry;
    const ptrdiff_t *sizes = which == FOR_KERNEL ? g->output : g->input;
    lc_gradient_plan p;
    memset(&p, 0, sizeof p);
    p.strategy = strategy;
    p.vectors = 2;
    p.panel_filters = 2 * kernels->lanes;
    p.filter_parts = which == FOR_KERNEL ? lc_min(2, lc_ceil_div(g->group_filters, p.panel_filters) * g->groups) : 1;
    p.segment = 2;
    p.batch_tile = which == FOR_INPUT && strategy == LC_GRADIENT_BOXED ? 2 * kernels->lanes : 1;
    p.batch_chunk = lc_max(p.batch_tile, g->batch / 2 / p.batch_tile * p.batch_tile);
    for (int axis = 0; axis < 3; ++axis) p.block[axis] = lc_min(sizes[axis], block + axis);
    const ptrdiff_t tasks = lc_finish_gradient_plan(g, &p, which == FOR_KERNEL, wide ? 8 : 4);
    char *workspace = allocate(p.workspace);
    for (ptrdiff_t task = 0; task < tasks; ++task)
        (which == FOR_KERNEL ? kernels->local_gradient_kernel_task : kernels->local_gradient_input_task)(call, &p, task, workspace);
    free(workspace);
}

static void run_reduction(const lc_kernels *kernels, const lc_call *call, int way, int wide) {
    const lc_geometry *g = call->geometry;
    lc_reduction_plan p;
    memset(&p, 0, sizeof p);
    p.vectors = 1 + way;
    p.pack = way % 2 || g->channels_first;
    p.position_parts = 1 + 2 * (way % 2);
    p.panel_parts = p.row_parts = 2;
    p.zone_count = lc_count_zones(g);
    lc_zone *zones = allocate(p.zone_count * (ptrdiff_t)sizeof(lc_zone));
    p.zones = zones;
    p.blocks = lc_make_reduction_zones(g, zones);
    lc_finish_reduction_plan(g, &p, kernels->lanes, wide ? 8 : 4);
    void *partial = allocate(p.partial_bytes);
    char *workspace = allocate(p.workspace);
    for (ptrdiff_t task = 0; task < p.position_parts * p.panel_parts * p.row_parts; ++task)
        kernels->conv_gradient_kernel_task(call, &p, task, p.partial_bytes ? partial : NULL, workspace);
    if (p.partial_bytes) kernels->conv_gradient_kernel_sum(call, &p, 0, g->depth * g->filters, partial);
    free(partial);
    free(workspace);
    free(zones);
}

static void run_narrow(const lc_kernels *kernels, const lc_call *call, int wide) {
    const lc_geometry *g = call->geometry;
    lc_narrow_plan p;
    memset(&p, 0, sizeof p);
    p.vectors = 2;
    for (int axis = 0; axis < 3; ++axis) p.block[axis] = lc_min(g->input[axis], 2 + 5 * axis);
    const ptrdiff_t tasks = lc_finish_narrow_plan(g, &p, kernels->lanes, wide ? 8 : 4);
    void *packed = allocate(p.packed_bytes);
    char *workspace = allocate(p.workspace);
    kernels->narrow_pack(call, &p, packed);
    for (ptrdiff_t task = 0; task < tasks; ++task) kernels->conv_narrow_task(call, &p, task, packed, workspace);
    free(packed);
    free(workspace);
}

/* One gradient of one geometry, one way. Returns whether it went wrong. */
static int check_gradient(const lc_geometry *g, const lc_kernels *kernels, int wide, int local, int which, int way, const array *other,
                          const array *dy, const expected *e) {
    array result = make(e->size, wide);
    lc_ran ran = {"", ""};
    lc_call call;
    memset(&call, 0, sizeof call);
    call.geometry = g;
    call.gradient = dy->data;
    call.input = which == FOR_KERNEL ? other->data : NULL;
    call.kernel = which == FOR_INPUT ? other->data : NULL;
    call.output = result.data;
    call.ran = &ran;
    for (ptrdiff_t i = 0; i < result.size; ++i) put(&result, i, NAN);
    if (local)
        run_local_gradient(kernels, &call, which, way, 1 + way, wide);
    else if (which == FOR_KERNEL)
        run_reduction(kernels, &call, way, wide);
    else
        run_narrow(kernels, &call, wide);
    const int wrong = count_gradient_wrong(e, &result), other_ran = strcmp(ran.isa, kernels->isa) != 0;
    if (wrong || other_ran)
        fprintf(stderr, "%s %s %s gradient for the %s, way %d: %d wrong, ran %s: batch %td input %td %td %td channels %td filters %td groups "
                "%td kernel %td %td %td strides %td %td %td dilation %td before %td %td first %d\n", kernels->isa, kernels->dtype,
                local ? "local" : "conv", which == FOR_KERNEL ? "kernel" : "input", way, wrong, ran.isa, g->batch, g->input[0], g->input[1],
                g->input[2], g->channels, g->filters, g->groups, g->kernel[0], g->kernel[1], g->kernel[2], g->strides[0], g->strides[1],
                g->strides[2], g->dilation[2], g->before[1], g->before[2], g->channels_first);
    free(result.data);
    return wrong || other_ran;
}

/* All gradients of one geometry. Strides with dilation along the width have no pixels-in-lanes form: the shared input gradient is left
 * out there. (That by phases is a forward convolution, and tested as one.) Returns the number of ways that went wrong. */
static int check_gradients(const lc_geometry *g, const lc_kernels *kernels, int wide, long *ways) {
    const ptrdiff_t inputs = g->batch * g->input_batch;
    array x = make(inputs, wide), dy = make(g->batch * g->output_batch, wide);
    int failures = 0;
    for (int local = 0; local < 2; ++local) {
        const ptrdiff_t kernel_size = (local ? g->positions : 1) * g->depth * g->filters;
        array k = make(kernel_size, wide);
        for (int which = 0; which < 2; ++which) {
            const array *other = which == FOR_INPUT ? &k : &x;
            if (!local && which == FOR_INPUT && g->strides[2] > 1 && g->dilation[2] > 1) continue;
            expected e = expect_gradient(g, local, which, other, &dy, which == FOR_INPUT ? inputs : kernel_size);
            for (int way = 0; way < (local || which == FOR_KERNEL ? 2 : 1); ++way, ++*ways)
                failures += check_gradient(g, kernels, wide, local, which, way, other, &dy, &e);
            free(e.sum);
            free(e.bound);
            free(e.terms);
        }
        free(k.data);
    }
    free(x.data);
    free(dy.data);
    return failures;
}

#endif
