/* Register tiles of every kind go on with what their output holds (`init_from_out` in tile.h): no plan may rely on it
 * where a kind of tile does not. */
#ifndef LOCALCONV_TEST_TILES_H
#define LOCALCONV_TEST_TILES_H

#include "testing.h"

enum { TILE_STEPS = 3, TILE_MOST_LANES = 16 };

typedef struct {
    const char *name;
    int storage, channel_lanes, edge, prefetching, unit;
} tile_kind;

/* 2 times 1 in every step, on top of 5 in every lane. */
static int check_tile(const lc_kernels *kernels, const tile_kind *kind) {
    const int wide = kernels->itemsize == 8, lanes = kernels->lanes - (kind->edge && kernels->lanes > 1);
    static const uint16_t one_f16 = 0x3c00, one_bf16 = 0x3f80;
    char broadcast[TILE_STEPS * TILE_MOST_LANES * 8], vector[TILE_STEPS * TILE_MOST_LANES * 8], out[64 * 8];
    float scales[TILE_MOST_LANES];
    const lc_run run = {0, 0, TILE_STEPS};
    lc_tile t;
    memset(&t, 0, sizeof t);
    for (int i = 0; i < TILE_STEPS * TILE_MOST_LANES; ++i) {
        if (kind->storage == LC_i8) vector[i] = 1;
        if (kind->storage == LC_f16) memcpy(vector + 2 * i, &one_f16, 2);
        if (kind->storage == LC_bf16) memcpy(vector + 2 * i, &one_bf16, 2);
        if (!wide) {
            ((float *)broadcast)[i] = 2;
            if (kind->storage == LC_native) ((float *)vector)[i] = 1;
        } else {
            ((double *)broadcast)[i] = 2, ((double *)vector)[i] = 1;
        }
    }
    for (int i = 0; i < TILE_MOST_LANES; ++i) {
        scales[i] = 1;
        if (!wide)
            ((float *)out)[i] = 5;
        else
            ((double *)out)[i] = 5;
    }
    t.runs = &run, t.run_count = 1;
    t.row_data = broadcast, t.row_stride = kind->unit ? 1 : 2, t.row_step = kind->channel_lanes ? lanes : 1;
    t.vector = vector, t.vector_step = lanes, t.lane_count = lanes;
    t.scales = scales, t.channel_lanes = kind->channel_lanes, t.init_from_out = 1;
    t.out = out, t.out_stride = lanes;
    t.prefetch = kind->prefetching ? broadcast : NULL;
    kernels->tile(&t, 1, 1, kind->storage);
    for (int i = 0; i < lanes; ++i) {
        const double value = !wide ? ((float *)out)[i] : ((double *)out)[i];
        if (value != 5 + 2 * TILE_STEPS) {
            fprintf(stderr, "%s %s, a tile of kind %s: a sum that goes on is %g\n", kernels->isa, kernels->dtype,
                    kind->name, value);
            return 1;
        }
    }
    return 0;
}

/* As run_tile tells them apart. */
static const tile_kind tile_kinds[] = {
    {"unit", LC_native, 0, 0, 1, 1},
    {"strided", LC_native, 0, 0, 1, 0},
    {"cached", LC_native, 0, 0, 0, 0},
    {"edge", LC_native, 0, 1, 1, 0},
    {"channel_lanes", LC_native, 1, 0, 1, 0},
    {"channel_lanes edge", LC_native, 1, 1, 1, 0},
    {"channel_lanes cached", LC_native, 1, 0, 0, 0},
    {"float16", LC_f16, 0, 0, 1, 0},
    {"float16 edge", LC_f16, 0, 1, 1, 0},
    {"bfloat16", LC_bf16, 0, 0, 1, 0},
    {"bfloat16 edge", LC_bf16, 0, 1, 1, 0},
    {"int8", LC_i8, 0, 0, 1, 0},
    {"int8 edge", LC_i8, 0, 1, 1, 0},
};

/* Returns how many kinds are wrong. */
static int check_tiles(int features, long *ways) {
    int wrong = 0;
    for (int i = 0; i < lc_isa_count; ++i) {
        if ((lc_isas[i].needs & features) != lc_isas[i].needs) continue;
        for (int dtype = 0; dtype < lc_dtype_count; ++dtype)
            for (size_t k = 0; k < sizeof tile_kinds / sizeof tile_kinds[0]; ++k) {
                if (dtype == LC_f64 && tile_kinds[k].storage != LC_native) continue;
                wrong += check_tile(lc_isas[i].kernels[dtype], &tile_kinds[k]);
                ++*ways;
            }
    }
    return wrong;
}

#endif
