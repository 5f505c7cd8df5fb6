/* Filters that come with the data, all three readings of their sum, against plain loops in C.
 *
 * A value may differ from the long double sum as a gradient may (gradients.h). Whatever is in no sum, taps outside the
 * input and pixels of no window, is NaN. All ways of an operation must agree exactly: its order of summation is one,
 * but for the correlation, whose dot products are summed by lanes.
 */
#ifndef LOCALCONV_TEST_FILTERS_H
#define LOCALCONV_TEST_FILTERS_H

#include "gradients.h"

enum { MAKES_OUTPUT, MAKES_INPUT, MAKES_FILTERS, FILTER_READINGS };

/* The array that a reading makes, and where it and the two that it reads have the elements of one product. */
typedef struct {
    ptrdiff_t at[FILTER_READINGS];
} filter_product;

/* Calls visit for every product of a geometry whose pixel is inside the input. */
typedef void filter_visit(void *context, const filter_product *product);

/* The pixel under a tap of position o along an axis, from the definition. */
static ptrdiff_t filter_pixel(const lc_geometry *g, int axis, ptrdiff_t o, ptrdiff_t tap) {
    const ptrdiff_t d = g->dilation[axis], k = g->kernel[axis];
    if (!g->inside) return o * g->strides[axis] - g->pad_before[axis] + tap * d;
    ptrdiff_t pixels = 0; /* of the phase */
    for (ptrdiff_t i = o % d; i < g->input[axis]; i += d) ++pixels;
    ptrdiff_t start = o / d - k / 2;
    if (start > pixels - k) start = pixels - k;
    if (start < 0) start = 0;
    return o % d + (start + tap) * d;
}

/* The flat pixel of a position's tap; -1: it is outside. */
static ptrdiff_t filter_flat_pixel(const lc_geometry *g, ptrdiff_t position, ptrdiff_t tap) {
    const ptrdiff_t at[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                             position % g->output[2]};
    const ptrdiff_t taps[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1],
                               tap % g->kernel[2]};
    ptrdiff_t flat = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const ptrdiff_t i = filter_pixel(g, axis, at[axis], taps[axis]);
        if (i < 0 || i >= g->input[axis]) return -1;
        flat = flat * g->input[axis] + i;
    }
    return flat;
}

static ptrdiff_t filter_at(const lc_geometry *g, ptrdiff_t image, ptrdiff_t position, ptrdiff_t group, ptrdiff_t tap) {
    const ptrdiff_t row = g->groups * g->taps, t = group * g->taps + tap;
    return (g->kernel_batch == 1 ? 0 : image) * g->positions * row +
           (g->channels_first ? t * g->positions + position : position * row + t);
}

static void visit_products(const lc_geometry *g, filter_visit *visit, void *context) {
    const ptrdiff_t pixels = g->input[0] * g->input[1] * g->input[2];
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t p = 0; p < g->positions; ++p)
            for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
                const ptrdiff_t pixel = filter_flat_pixel(g, p, tap);
                for (ptrdiff_t c = 0; pixel >= 0 && c < g->channels; ++c) {
                    filter_product product;
                    product.at[MAKES_INPUT] = image * g->channels * pixels +
                                              (g->channels_first ? c * pixels + pixel : pixel * g->channels + c);
                    product.at[MAKES_OUTPUT] = image * g->channels * g->positions +
                                               (g->channels_first ? c * g->positions + p : p * g->channels + c);
                    product.at[MAKES_FILTERS] = filter_at(g, image, p, c / g->group_channels, tap);
                    visit(context, &product);
                }
            }
}

/* The three arrays by what makes them; `used`: which of their elements are in a product. */
typedef struct {
    array arrays[FILTER_READINGS];
    char *used[FILTER_READINGS];
    expected *e;
    int reading;
} filter_arrays;

static void mark_used(void *context, const filter_product *product) {
    filter_arrays *f = (filter_arrays *)context;
    for (int i = 0; i < FILTER_READINGS; ++i) f->used[i][product->at[i]] = 1;
}

static void add_product(void *context, const filter_product *product) {
    const filter_arrays *f = (const filter_arrays *)context;
    const int first = f->reading == 0, second = f->reading == 2 ? 1 : 2;
    const ptrdiff_t target = product->at[f->reading];
    const long double value = (long double)get(f->arrays + first, product->at[first]) *
                              (long double)get(f->arrays + second, product->at[second]);
    f->e->sum[target] += value;
    f->e->bound[target] += fabsl(value);
    ++f->e->terms[target];
}

static void put_nan(array *a, ptrdiff_t i) {
    if (a->storage == LC_native)
        put(a, i, NAN);
    else
        ((uint16_t *)a->data)[i] = a->storage == LC_f16 ? 0x7e00 : 0x7fc0;
}

static filter_arrays make_filter_arrays(const lc_geometry *g, int wide, int storage) {
    const ptrdiff_t filters = g->kernel_batch * g->positions * g->groups * g->taps;
    filter_arrays f;
    memset(&f, 0, sizeof f);
    f.arrays[MAKES_OUTPUT] = make(g->batch * g->y.image, wide);
    f.arrays[MAKES_INPUT] = make(g->batch * g->x.image, wide);
    f.arrays[MAKES_FILTERS] = storage == LC_native ? make(filters, wide) : make_stored(filters, storage, 1, 1);
    for (int i = 0; i < FILTER_READINGS; ++i) {
        f.used[i] = (char *)allocate(f.arrays[i].size);
        memset(f.used[i], 0, (size_t)f.arrays[i].size);
    }
    visit_products(g, mark_used, &f);
    for (int i = 0; i < FILTER_READINGS; ++i)
        for (ptrdiff_t k = 0; k < f.arrays[i].size; ++k)
            if (!f.used[i][k]) put_nan(f.arrays + i, k);
    return f;
}

/* What a reading makes; starts: NULL, or what it is added to. */
static expected expect_filter(const lc_geometry *g, filter_arrays *f, int reading, const array *starts) {
    const ptrdiff_t size = f->arrays[reading].size;
    expected e = {allocate(size * (ptrdiff_t)sizeof(long double)), allocate(size * (ptrdiff_t)sizeof(long double)),
                  allocate(size * (ptrdiff_t)sizeof(ptrdiff_t)), size};
    for (ptrdiff_t i = 0; i < size; ++i) {
        e.sum[i] = starts ? get(starts, i) : 0;
        e.bound[i] = fabsl(e.sum[i]);
        e.terms[i] = 0;
    }
    f->e = &e;
    f->reading = reading;
    visit_products(g, add_product, f);
    f->e = NULL;
    return e;
}

static void free_expected(expected *e) {
    free(e->sum);
    free(e->bound);
    free(e->terms);
}

/* Choices that cut a reading so that every loop has an end inside, each way elsewhere. */
static int run_filter(const lc_geometry *g, const lc_kernels *kernels, int storage, int algorithm, int way,
                      const lc_call *call) {
    const ptrdiff_t *size = lc_algorithms[algorithm].operation->makes == LC_input ? g->input : g->output;
    lc_choices choices = whole();
    choices.vectors = 1 + way;
    choices.block[0] = lc_min(size[0], 1 + way % 2);
    choices.block[1] = lc_min(size[1], 1 + way);
    choices.block[2] = way % 2 ? lc_min(size[2], 5 + way) : size[2];
    return run_job(g, kernels, storage, algorithm, &choices, call);
}

/* Whether results in the lanes cannot have a geometry. */
static int refuses_filter(const lc_geometry *g, int algorithm) {
    const int in_lanes = algorithm == LC_filter_positions || algorithm == LC_filter_input_positions ||
                         algorithm == LC_filter_kernel_positions;
    return in_lanes && (g->inside || g->strides[2] != 1);
}

/* The values that two ways have apart. */
static int count_apart(const array *a, const array *b) {
    int apart = 0;
    for (ptrdiff_t i = 0; i < a->size; ++i) apart += !(get(a, i) == get(b, i));
    return apart;
}

/* One way of one reading. agreed: what another way made, for the first one NULL data. Returns whether it went wrong. */
static int check_filter(const lc_geometry *g, const lc_kernels *kernels, int algorithm, int way, const filter_arrays *f,
                        const expected *e, const array *starts, array *agreed) {
    const int makes = lc_algorithms[algorithm].operation->makes;
    array result = make(e->size, kernels->itemsize == (int)sizeof(double));
    lc_ran ran = {"", ""};
    lc_call call;
    memset(&call, 0, sizeof call);
    call.input = makes == LC_input ? NULL : f->arrays[MAKES_INPUT].data;
    call.kernel = makes == LC_kernel ? NULL : f->arrays[MAKES_FILTERS].data;
    call.gradient = makes == LC_output ? NULL : f->arrays[MAKES_OUTPUT].data;
    call.result = result.data;
    call.accumulate = starts != NULL;
    call.bias_filter = 1;
    call.ran = &ran;
    for (ptrdiff_t i = 0; i < result.size; ++i) put(&result, i, starts ? get(starts, i) : NAN);
    const int storage = makes == LC_kernel ? LC_native : f->arrays[MAKES_FILTERS].storage;
    const int ran_at_all = run_filter(g, kernels, storage, algorithm, way, &call);
    int wrong = 0, apart = 0;
    if (ran_at_all) {
        wrong = count_gradient_wrong(e, &result);
        apart = agreed->data ? count_apart(agreed, &result) : 0;
    }
    const int other = ran_at_all ? strcmp(ran.isa, kernels->isa) != 0 : !refuses_filter(g, algorithm);
    if (wrong || apart || other) {
        fprintf(stderr, "%s %s %s, filters %d, way %d, accumulate %d: %d wrong, %d not as another way, ran %s",
                kernels->isa, kernels->dtype, lc_algorithms[algorithm].name, storage, way, call.accumulate, wrong,
                apart, ran_at_all ? ran.isa : "nothing: refused");
        fprintf(stderr, ", inside %d, filters' batch %td, before %td, dilation %td %td", g->inside, g->kernel_batch,
                g->pad_before[0], g->dilation[0], g->dilation[1]);
        print_geometry(g);
    }
    if (ran_at_all && !agreed->data)
        *agreed = result;
    else
        free(result.data);
    return wrong || apart || other;
}

/* Algorithms by what they make. */
static const int filter_algorithms[FILTER_READINGS][2] = {
    {LC_filter_channels, LC_filter_positions},
    {LC_filter_input_channels, LC_filter_input_positions},
    {LC_filter_dots, LC_filter_kernel_positions},
};

/* All readings of one geometry, on one set of kernels. Returns the number of ways that went wrong. */
static int check_filters(const lc_geometry *g, const lc_kernels *kernels, int wide, int storage, long *ways) {
    filter_arrays f = make_filter_arrays(g, wide, storage);
    int failures = 0;
    for (int reading = 0; reading < FILTER_READINGS; ++reading) {
        if (reading == MAKES_FILTERS && storage != LC_native) continue;
        for (int adds = 0; adds <= (reading == MAKES_FILTERS); ++adds) {
            array starts = make(f.arrays[reading].size, wide), agreed = {0};
            expected e = expect_filter(g, &f, reading, adds ? &starts : NULL);
            for (int i = 0; i < 2; ++i) {
                for (int way = 0; way < LC_TILE_VECTORS; ++way, ++*ways)
                    failures += check_filter(g, kernels, filter_algorithms[reading][i], way, &f, &e,
                                             adds ? &starts : NULL, &agreed);
                if (reading == MAKES_FILTERS) free(agreed.data), agreed.data = NULL;
            }
            free(agreed.data);
            free(starts.data);
            free_expected(&e);
        }
    }
    for (int i = 0; i < FILTER_READINGS; ++i) {
        free_array(f.arrays + i);
        free(f.used[i]);
    }
    return failures;
}

/* A geometry of filters from random small choices that cross the edges of tiles and vectors, 'inside' every third. */
static lc_geometry draw_filter(int round) {
    static const ptrdiff_t channels[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 65}, groups[] = {1, 1, 2, 3};
    const ptrdiff_t longest = round % 4 < 2 ? 37 : 20; /* in 3D plain loops take their time */
    lc_geometry g;
    memset(&g, 0, sizeof g);
#define DRAW(n) ((ptrdiff_t)((next_random() + 1) / 2 * (double)(n)))
    g.by_group = 1;
    g.inside = round % 3 == 2;
    g.batch = 1 + DRAW(3);
    g.kernel_batch = DRAW(2) ? g.batch : 1;
    g.groups = groups[DRAW(4)];
    g.channels = g.filters = channels[DRAW(13)] * g.groups;
    g.channels_first = (int)DRAW(2);
    for (int axis = 0; axis < 3; ++axis) {
        const int flat = axis < 2 - round % 4, line = axis == 2; /* 1D, 2D and 3D in turn, and 3D again */
        g.kernel[axis] = flat ? 1 : 1 + DRAW(line ? longest / 4 : 3);
        g.strides[axis] = flat || g.inside || DRAW(2) ? 1 : 1 + DRAW(3);
        g.dilation[axis] = flat ? 1 : 1 + DRAW(5) / 3;
        g.pad_before[axis] = flat || g.inside ? 0 : DRAW(4);
        g.output[axis] = flat ? 1 : 1 + DRAW(line ? longest : 4);
        const ptrdiff_t reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1, after = flat ? 0 : DRAW(4);
        if (g.inside) {
            g.output[axis] = lc_max(g.output[axis], g.kernel[axis] * g.dilation[axis]);
            g.input[axis] = g.output[axis];
        } else {
            g.input[axis] = lc_max(1, (g.output[axis] - 1) * g.strides[axis] + reach - g.pad_before[axis] - after);
        }
    }
#undef DRAW
    lc_derive(&g);
    return g;
}

#endif
