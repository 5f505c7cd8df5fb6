/* What the C tests share: numbers, arrays of either element type, geometries. */
#ifndef LOCALCONV_TESTING_H
#define LOCALCONV_TESTING_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "localconv/kernels.h"

static uint64_t seed = 88172645463325252u;

/* A number in [-1, 1) from a xorshift generator: the same on every platform. */
static double next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)seed / 9223372036854775808.0;
}

/* An array of either element type, behind one interface. */
typedef struct {
    void *data;
    int wide;
    ptrdiff_t size;
} array;

static double get(const array *a, ptrdiff_t i) { return a->wide ? ((double *)a->data)[i] : (double)((float *)a->data)[i]; }

static void put(array *a, ptrdiff_t i, double value) {
    if (a->wide)
        ((double *)a->data)[i] = value;
    else
        ((float *)a->data)[i] = (float)value;
}

static array make(ptrdiff_t size, int wide) {
    array a = {malloc((size_t)size * (wide ? sizeof(double) : sizeof(float))), wide, size};
    if (!a.data) exit(3);
    for (ptrdiff_t i = 0; i < size; ++i) put(&a, i, next_random());
    return a;
}

static void *allocate(ptrdiff_t bytes) {
    void *memory = malloc((size_t)(bytes > 0 ? bytes : 1));
    if (!memory) exit(3);
    return memory;
}

/* A geometry from random small choices that cross the edges of tiles and vectors. */
static lc_geometry draw(int round) {
    static const ptrdiff_t batches[] = {1, 2, 3, 5, 8, 13, 16, 17, 33}, filters[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 65};
    lc_geometry g;
    memset(&g, 0, sizeof g);
#define DRAW(n) ((ptrdiff_t)((next_random() + 1) / 2 * (double)(n)))
    g.groups = 1 + DRAW(3) / 2;
    g.batch = batches[DRAW(9)];
    g.filters = filters[DRAW(12)] * g.groups;
    g.channels = (1 + DRAW(4)) * g.groups;
    g.channels_first = (int)DRAW(2);
    for (int axis = 0; axis < 3; ++axis) {
        const int flat = axis < 2 - round % 3; /* 1D, 2D and 3D in turn */
        g.kernel[axis] = flat ? 1 : 1 + DRAW(4);
        g.strides[axis] = flat ? 1 : 1 + DRAW(3);
        g.dilation[axis] = flat ? 1 : 1 + DRAW(2);
        g.before[axis] = flat ? 0 : DRAW(4);
        const ptrdiff_t reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1, after = flat ? 0 : DRAW(3);
        g.output[axis] = flat ? 1 : 1 + DRAW(axis == 2 && round % 3 == 0 ? 40 : 6);
        g.input[axis] = lc_max(1, (g.output[axis] - 1) * g.strides[axis] + reach - g.before[axis] - after);
    }
#undef DRAW
    lc_derive(&g);
    return g;
}

#endif
