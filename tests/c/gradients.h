/* The four gradients against plain loops in C.
 *
 * A gradient may differ from the long double sum by 2 * eps * (terms + 2) * (sum of the products' sizes), terms being
 * how many products it sums, and by a subnormal for each; values that sum none must be 0.
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
static void add_products(const lc_geometry *g, int local, int which, const array *other, const ptrdiff_t at[3],
                         ptrdiff_t image, ptrdiff_t filter, double gradient, expected *e) {
    const ptrdiff_t pixels = g->input[0] * g->input[1] * g->input[2],
                    position = (at[0] * g->output[1] + at[1]) * g->output[2] + at[2];
    for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
        const ptrdiff_t taps[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1],
                                   tap % g->kernel[2]};
        ptrdiff_t pixel = 0;
        int inside = 1;
        for (int axis = 0; axis < 3; ++axis) {
            const ptrdiff_t i = at[axis] * g->strides[axis] - g->pad_before[axis] + taps[axis] * g->dilation[axis];
            inside &= i >= 0 && i < g->input[axis];
            pixel = pixel * g->input[axis] + i;
        }
        for (ptrdiff_t c = 0; inside && c < g->group_channels; ++c) {
            const ptrdiff_t channel = filter / g->group_filters * g->group_channels + c;
            const ptrdiff_t row = local && g->channels_first ? c * g->taps + tap : tap * g->group_channels + c;
            const ptrdiff_t x =
                image * g->x.image + (g->channels_first ? channel * pixels + pixel : pixel * g->channels + channel);
            const ptrdiff_t k = ((local ? position * g->window : 0) + row) * g->filters + filter;
            const long double product = (long double)gradient * get(other, which == FOR_INPUT ? k : x);
            const ptrdiff_t target = which == FOR_INPUT ? x : k;
            e->sum[target] += product;
            e->bound[target] += fabsl(product);
            ++e->terms[target];
        }
    }
}

static expected expect_gradient(const lc_geometry *g, int local, int which, const array *other, const array *dy,
                                ptrdiff_t size) {
    expected e = {allocate(size * (ptrdiff_t)sizeof(long double)), allocate(size * (ptrdiff_t)sizeof(long double)),
                  allocate(size * (ptrdiff_t)sizeof(ptrdiff_t)), size};
    for (ptrdiff_t i = 0; i < size; ++i) e.sum[i] = e.bound[i] = 0, e.terms[i] = 0;
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t p = 0; p < g->positions; ++p)
            for (ptrdiff_t f = 0; f < g->filters; ++f) {
                const ptrdiff_t at[3] = {p / (g->output[1] * g->output[2]), p / g->output[2] % g->output[1],
                                         p % g->output[2]};
                const ptrdiff_t y = image * g->y.image + p * g->y.pixel[2] + f * g->y.channel;
                add_products(g, local, which, other, at, image, f, get(dy, y), &e);
            }
    return e;
}

static int count_gradient_wrong(const expected *e, const array *result) {
    const long double eps = result->wide ? DBL_EPSILON : FLT_EPSILON;
    int wrong = 0;
    for (ptrdiff_t i = 0; i < e->size; ++i)
        wrong += !(fabsl(get(result, i) - e->sum[i]) <=
                   (e->terms[i] ? (long double)(e->terms[i] + 2) * (2 * eps * e->bound[i] + SUBNORMAL) : 0));
    return wrong;
}

/* The ways to compute one gradient: an algorithm, and choices that cut it so that every loop has an end inside. */
static int run_gradient(const lc_geometry *g, const lc_kernels *kernels, int storage, int algorithm, int way,
                        const lc_call *call) {
    const int buffered = algorithm == LC_local_kernel_buffered || algorithm == LC_local_input_buffered;
    const lc_geometry own = seen_by(g, algorithm);
    lc_choices choices = whole();
    choices.vectors = widest(&own, algorithm == LC_conv_reduction ? 1 + way : 2);
    choices.segment = choices.panel_parts = choices.row_parts = 2;
    choices.tasks = choices.tile_block = 3;
    choices.panel_bytes = 3 * 64 * g->window;
    choices.position_parts = 1 + 2 * (way % 2);
    choices.rows_ahead = way;
    if (algorithm == LC_local_kernel_direct || buffered)
        choices.filter_parts = lc_min(2, lc_count_panels(&own, 2 * kernels->lanes));
    if (algorithm == LC_local_input_buffered) choices.batch_tile = 2 * kernels->lanes;
    choices.batch_chunk = lc_max(choices.batch_tile, g->batch / 2 / choices.batch_tile * choices.batch_tile);
    for (int axis = 0; axis < 3; ++axis) {
        const ptrdiff_t size = call->input ? g->output[axis] : g->input[axis];
        choices.block[axis] = lc_min(size, 1 + way + axis);
    }
    if (algorithm == LC_conv_narrow) /* along the width its m are cut, which are fewer than the pixels */
        for (int axis = 0; axis < 3; ++axis)
            choices.block[axis] = lc_min(lc_ceil_div(g->input[axis], g->strides[axis]), 2 + 5 * axis);
    return run_job(g, kernels, storage, algorithm, &choices, call);
}

/* One gradient of one geometry, one way. Returns whether it went wrong. */
static int check_gradient(const lc_geometry *g, const lc_kernels *kernels, int wide, int algorithm, int way,
                          const array *other, const array *dy, const expected *e) {
    const int which = strstr(lc_algorithms[algorithm].operation->name, "grad_input") ? FOR_INPUT : FOR_KERNEL;
    array result = make(e->size, wide);
    lc_ran ran = {"", ""};
    lc_call call;
    memset(&call, 0, sizeof call);
    call.gradient = dy->data;
    call.input = which == FOR_KERNEL ? other->data : NULL;
    if (which == FOR_INPUT) bind_kernel(&call, other);
    call.result = result.data;
    call.ran = &ran;
    for (ptrdiff_t i = 0; i < result.size; ++i) put(&result, i, NAN);
    const int refused = !run_gradient(g, kernels, other->storage, algorithm, way, &call);
    const int wrong = refused ? 0 : count_gradient_wrong(e, &result), other_ran = strcmp(ran.isa, kernels->isa) != 0;
    if (wrong || other_ran) {
        fprintf(stderr, "%s %s %s, kernel %d, way %d: %d wrong, ran %s", kernels->isa, kernels->dtype,
                lc_algorithms[algorithm].name, other->storage, way, wrong, refused ? "nothing: refused" : ran.isa);
        print_geometry(g);
    }
    free(result.data);
    return wrong || other_ran;
}

/* Algorithms by what they compute. */
static const int gradient_algorithms[2][2][2] = {
    {{LC_conv_phases, LC_conv_narrow}, {LC_conv_reduction, LC_conv_reduction}},
    {{LC_local_input_direct, LC_local_input_buffered}, {LC_local_kernel_direct, LC_local_kernel_buffered}},
};

/* All gradients of one geometry. Strides with dilation have no phases, and along the width no pixels in lanes: the
 * shared input gradient is left out there. Returns the number of ways that went wrong. */
static int check_gradients(const lc_geometry *g, const lc_kernels *kernels, int wide, int storage, long *ways) {
    const ptrdiff_t inputs = g->batch * g->x.image;
    array x = make(inputs, wide), dy = make(g->batch * g->y.image, wide);
    int failures = 0, mixed = 0;
    for (int axis = 0; axis < 3; ++axis) mixed |= g->strides[axis] > 1 && g->dilation[axis] > 1;
    for (int kind = 0; kind < (storage == LC_native ? 4 : 2); ++kind) {
        const int local = kind > 0;
        const ptrdiff_t kernel_size = (local ? g->positions : 1) * g->window * g->filters;
        array k = make_kernel(g, local, wide, storage);
        if (kind > 1) as_bank(g, kind - 1, &k);
        for (int which = 0; which < (kind > 1 ? 1 : 2); ++which) {
            const array *other = which == FOR_INPUT ? &k : &x;
            if (!local && which == FOR_INPUT && mixed) continue;
            if (which == FOR_KERNEL && storage != LC_native) continue;
            expected e = expect_gradient(g, local, which, other, &dy, which == FOR_INPUT ? inputs : kernel_size);
            for (int way = 0; way < 2; ++way, ++*ways)
                failures +=
                    check_gradient(g, kernels, wide, gradient_algorithms[local][which][way], way, other, &dy, &e);
            free(e.sum);
            free(e.bound);
            free(e.terms);
        }
        free_array(&k);
    }
    free_array(&x);
    free_array(&dy);
    return failures;
}

#endif
