/* What the C tests share: numbers, arrays of either element type, geometries. */
#ifndef LOCALCONV_TESTING_H
#define LOCALCONV_TESTING_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "localconv/kernels.h"
#include "localconv/plans.h"

#define SUBNORMAL 0x1p-149L /* the smallest one of float32 */

static uint64_t seed = 88172645463325252u;

/* A number in [-1, 1) from a xorshift generator: the same on every platform. */
static double next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)seed / 9223372036854775808.0;
}

/* An array of either element type, or a kernel that is stored otherwise, behind one interface. */
typedef struct {
    void *data;
    int wide;
    ptrdiff_t size;
    int storage;
    float *scales; /* of int8: one for each of `filters` columns of every `rows` rows */
    ptrdiff_t rows, filters;
    int32_t *indices; /* of a kernel that is called by as a bank, with weights or without */
    void *weights;
} array;

/* A number of 16 bits by what IEEE 754 says of them; bfloat16 is the same with 8 bits of exponent. */
static double of_bits(unsigned bits, int exponent_bits) {
    const int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (int)(bits >> fraction_bits & ((1u << exponent_bits) - 1));
    const double fraction = (double)(bits & ((1u << fraction_bits) - 1)) / (1 << fraction_bits);
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return fraction > 0 ? NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias));
}

static double get(const array *a, ptrdiff_t i) {
    if (a->storage == LC_f16) return of_bits(((uint16_t *)a->data)[i], 5);
    if (a->storage == LC_bf16) return of_bits(((uint16_t *)a->data)[i], 8);
    if (a->storage == LC_i8)
        return ((signed char *)a->data)[i] *
               (double)a->scales[i / (a->rows * a->filters) * a->filters + i % a->filters];
    return a->wide ? ((double *)a->data)[i] : (double)((float *)a->data)[i];
}

static void put(array *a, ptrdiff_t i, double value) {
    if (a->wide)
        ((double *)a->data)[i] = value;
    else
        ((float *)a->data)[i] = (float)value;
}

static array make(ptrdiff_t size, int wide) {
    array a = {
        malloc((size_t)size * (wide ? sizeof(double) : sizeof(float))), wide, size, LC_native, NULL, 1, 1, NULL, NULL};
    if (!a.data) exit(3);
    for (ptrdiff_t i = 0; i < size; ++i) put(&a, i, next_random());
    return a;
}

/* A kernel of random bits in one of the stored types, of float16 and bfloat16 between 2^-7 and 2 in size, or subnormal;
 * `rows` and `filters`: what has one scale in int8. */
static array make_stored(ptrdiff_t size, int storage, ptrdiff_t rows, ptrdiff_t filters) {
    const ptrdiff_t scales = size / rows;
    array a = {
        malloc((size_t)(size * lc_storages[storage].itemsize)), 0, size, storage, NULL, rows, filters, NULL, NULL};
    a.scales = storage == LC_i8 ? (float *)malloc((size_t)scales * sizeof(float)) : NULL;
    if (!a.data || (storage == LC_i8 && !a.scales)) exit(3);
    for (ptrdiff_t i = 0; i < size; ++i) {
        const unsigned bits = (unsigned)((next_random() + 1) * 32768), fraction = storage == LC_f16 ? 10 : 7;
        const unsigned bias = storage == LC_f16 ? 15 : 127, exponent = bias - (bits >> fraction) % 8;
        const unsigned sized =
            (bits & 0x8000u) | (bits % 17 ? exponent << fraction : 0) | (bits & ((1u << fraction) - 1));
        if (storage == LC_i8)
            ((signed char *)a.data)[i] = (signed char)(next_random() * 128);
        else
            ((uint16_t *)a.data)[i] = (uint16_t)sized;
    }
    for (ptrdiff_t i = 0; a.scales && i < scales; ++i) a.scales[i] = (float)next_random();
    return a;
}

static void *allocate(ptrdiff_t bytes) {
    void *memory = malloc((size_t)(bytes > 0 ? bytes : 1));
    if (!memory) exit(3);
    return memory;
}

/* Makes a job of choices and runs its passes, task by task. Returns whether the algorithm took them. */
static int run_job(const lc_geometry *g, const lc_kernels *kernels, int storage, int algorithm,
                   const lc_choices *choices, const lc_call *call) {
    lc_job job;
    memset(&job, 0, sizeof job);
    job.geometry = *g;
    job.kernels = kernels;
    job.algorithm = algorithm;
    job.storage = storage;
    if (call->indices) job.bank = (lc_bank){g->positions, call->weights ? 2 : 1, 1, call->weights != NULL};
    job.choices = *choices;
    const int status = lc_make_job(&job);
    if (status == LC_NO_MEMORY) exit(3);
    if (status == LC_OK) {
        char *shared = allocate(job.shared_bytes), *workspace = allocate(job.thread_bytes);
        for (int pass = 0; pass < LC_PASSES; ++pass)
            for (ptrdiff_t task = 0; task < job.tasks[pass]; ++task)
                lc_run_task(&job, call, pass, task, shared, workspace);
        free(shared);
        free(workspace);
    }
    lc_free_job(&job);
    return status == LC_OK;
}

/* Choices that cut as little as possible. */
static lc_choices whole(void) {
    lc_choices choices;
    memset(&choices, 0, sizeof choices);
    choices.vectors = choices.batch_tile = choices.batch_chunk = choices.segment = choices.filter_parts =
        choices.tasks = 1;
    choices.tile_block = choices.position_parts = choices.panel_parts = choices.row_parts = 1;
    choices.panel_bytes = choices.zone_limit = 1 << 20;
    for (int axis = 0; axis < 3; ++axis) choices.block[axis] = 1;
    return choices;
}

/* A geometry as an algorithm sees it. */
static lc_geometry seen_by(const lc_geometry *g, int algorithm) {
    lc_geometry own = *g;
    own.channel_lanes = g->channel_lanes && lc_can_have_channel_lanes(algorithm);
    return own;
}

/* As many vectors, or as many as there are of its tiles. */
static ptrdiff_t widest(const lc_geometry *g, ptrdiff_t vectors) {
    return g->channel_lanes ? lc_min(vectors, LC_CHANNEL_LANES_VECTORS) : vectors;
}

static void free_array(array *a) {
    free(a->data);
    free(a->scales);
    free(a->indices);
    free(a->weights);
}

static void print_geometry(const lc_geometry *g) {
    fprintf(stderr,
            ": batch %td input %td %td %td channels %td filters %td groups %td kernel %td %td %td strides %td %td %td "
            "dilation %td before %td %td first %d\n",
            g->batch, g->input[0], g->input[1], g->input[2], g->channels, g->filters, g->groups, g->kernel[0],
            g->kernel[1], g->kernel[2], g->strides[0], g->strides[1], g->strides[2], g->dilation[2], g->pad_before[1],
            g->pad_before[2], g->channels_first);
}

/* A geometry from random small choices that cross the edges of tiles and vectors. */
static lc_geometry draw(int round) {
    static const ptrdiff_t batches[] = {1, 2, 3, 5, 8, 13, 16, 17, 33},
                           filters[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 65};
    lc_geometry g;
    memset(&g, 0, sizeof g);
#define DRAW(n) ((ptrdiff_t)((next_random() + 1) / 2 * (double)(n)))
    g.groups = 1 + DRAW(3) / 2;
    g.batch = batches[DRAW(9)];
    g.filters = filters[DRAW(12)] * g.groups;
    g.channels = (1 + DRAW(4)) * g.groups;
    if (DRAW(4) == 0) g.groups = g.channels = g.filters; /* depthwise */
    g.channels_first = (int)DRAW(2);
    for (int axis = 0; axis < 3; ++axis) {
        const int flat = axis < 2 - round % 3; /* 1D, 2D and 3D in turn */
        g.kernel[axis] = flat ? 1 : 1 + DRAW(4);
        g.strides[axis] = flat ? 1 : 1 + DRAW(3);
        g.dilation[axis] = flat ? 1 : 1 + DRAW(2);
        if (round % 4 == 3 && axis && !flat) { /* what Winograd's algorithm can do, if there is no depth */
            g.kernel[axis] = 3;
            g.strides[axis] = g.dilation[axis] = 1;
        }
        if (round % 4 == 3) g.kernel[0] = 1, g.channels_first = 0;
        g.pad_before[axis] = flat ? 0 : DRAW(4);
        const ptrdiff_t reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1, after = flat ? 0 : DRAW(3);
        g.output[axis] = flat ? 1 : 1 + DRAW(axis == 2 && round % 3 == 0 ? 40 : 6);
        g.input[axis] = lc_max(1, (g.output[axis] - 1) * g.strides[axis] + reach - g.pad_before[axis] - after);
    }
#undef DRAW
    lc_derive(&g);
    return g;
}

/* Makes a local kernel the filters of a bank that stands for the same: each position has its own, of one term without
 * weights; of two with 1 and 0, the latter for another one's. */
static void as_bank(const lc_geometry *g, int terms, array *k) {
    array weights = make(g->positions * terms, k->wide);
    k->indices = (int32_t *)allocate(g->positions * terms * (ptrdiff_t)sizeof(int32_t));
    for (ptrdiff_t i = 0; i < g->positions * terms; ++i) {
        k->indices[i] = (int32_t)((i / terms + i % terms) % g->positions);
        put(&weights, i, i % terms == 0);
    }
    k->weights = weights.data;
    if (terms > 1) return;
    free(weights.data);
    k->weights = NULL;
}

/* The kernel of a call. */
static void bind_kernel(lc_call *call, const array *k) {
    call->kernel = k->data;
    call->scales = k->scales;
    call->indices = k->indices;
    call->weights = k->weights;
}

/* A kernel of a geometry, in the element type or stored otherwise. */
static array make_kernel(const lc_geometry *g, int local, int wide, int storage) {
    const ptrdiff_t size = (local ? g->positions : 1) * g->window * g->filters;
    return storage == LC_native ? make(size, wide)
                                : make_stored(size, storage, local ? g->window : g->group_channels, g->filters);
}

#endif
