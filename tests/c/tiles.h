/* Register tiles of every kind go on with what their output holds (`continues` in tile.h): no plan may rely on it where
 * a kind of tile does not. */
#ifndef LOCALCONV_TEST_TILES_H
#define LOCALCONV_TEST_TILES_H

#include "testing.h"

enum { TILE_STEPS = 3, TILE_MOST_LANES = 16 };

typedef struct {
    const char *name;
    void (*run)(const lc_tile *);
    int dtype, store, lanes, lanewise;
} tile_kind;

/* 2 times 1 in every step, on top of 5 in every lane. */
static int check_tile(const tile_kind *kind) {
    static const uint16_t one_f16 = 0x3c00, one_bf16 = 0x3f80;
    char broadcast[TILE_STEPS * TILE_MOST_LANES * 8], vector[TILE_STEPS * TILE_MOST_LANES * 8], out[64 * 8];
    float scales[TILE_MOST_LANES];
    const lc_run run = {0, 0, TILE_STEPS};
    lc_tile t;
    memset(&t, 0, sizeof t);
    for (int i = 0; i < TILE_STEPS * TILE_MOST_LANES; ++i) {
        if (kind->store == LC_i8) vector[i] = 1;
        if (kind->store == LC_f16) memcpy(vector + 2 * i, &one_f16, 2);
        if (kind->store == LC_bf16) memcpy(vector + 2 * i, &one_bf16, 2);
        if (kind->dtype == LC_f32) {
            ((float *)broadcast)[i] = 2;
            if (kind->store == LC_plain) ((float *)vector)[i] = 1;
        } else {
            ((double *)broadcast)[i] = 2, ((double *)vector)[i] = 1;
        }
    }
    for (int i = 0; i < TILE_MOST_LANES; ++i) {
        scales[i] = 1;
        if (kind->dtype == LC_f32)
            ((float *)out)[i] = 5;
        else
            ((double *)out)[i] = 5;
    }
    t.runs = &run, t.run_count = 1;
    t.broadcast = broadcast, t.row_stride = 1, t.broadcast_step = kind->lanewise ? kind->lanes : 1;
    t.vector = vector, t.vector_step = kind->lanes, t.lane_count = kind->lanes;
    t.scales = scales, t.lanewise = kind->lanewise, t.continues = 1;
    t.out = out, t.out_stride = kind->lanes;
    kind->run(&t);
    for (int i = 0; i < kind->lanes; ++i) {
        const double value = kind->dtype == LC_f32 ? ((float *)out)[i] : ((double *)out)[i];
        if (value != 5 + 2 * TILE_STEPS) {
            fprintf(stderr, "%s: a sum that goes on is %g\n", kind->name, value);
            return 1;
        }
    }
    return 0;
}

#define TILE_KIND(tile, dtype, isa, store, lanewise) \
    {#tile " " #dtype " " #isa, tile_##tile##_1x1_##dtype##_##isa, LC_##dtype, store, lanes_##dtype##_##isa, lanewise}
#define TILE_KINDS(dtype, isa)                                                                \
    TILE_KIND(unit, dtype, isa, LC_plain, 0), TILE_KIND(strided, dtype, isa, LC_plain, 0),    \
        TILE_KIND(cached, dtype, isa, LC_plain, 0), TILE_KIND(edge, dtype, isa, LC_plain, 0), \
        TILE_KIND(lanewise, dtype, isa, LC_plain, 1), TILE_KIND(lanewise_edge, dtype, isa, LC_plain, 1)
#define STORED_TILE_KINDS(isa)                                                                   \
    TILE_KIND(whole_f16, f32, isa, LC_f16, 0), TILE_KIND(edge_f16, f32, isa, LC_f16, 0),         \
        TILE_KIND(whole_bf16, f32, isa, LC_bf16, 0), TILE_KIND(edge_bf16, f32, isa, LC_bf16, 0), \
        TILE_KIND(whole_i8, f32, isa, LC_i8, 0), TILE_KIND(edge_i8, f32, isa, LC_i8, 0)
#define ALL_TILE_KINDS(isa) TILE_KINDS(f32, isa), TILE_KINDS(f64, isa), STORED_TILE_KINDS(isa)

/* Returns how many kinds are wrong. */
static int check_tiles(int features, long *ways) {
    static const tile_kind scalar[] = {ALL_TILE_KINDS(scalar)};
#if defined(LC_X86_64)
    static const tile_kind avx2[] = {ALL_TILE_KINDS(avx2)};
    static const tile_kind avx512[] = {ALL_TILE_KINDS(avx512)};
    static const struct {
        int needs;
        const tile_kind *kinds;
    } sets[] = {{LC_HAS_SCALAR, scalar}, {LC_HAS_AVX2, avx2}, {LC_HAS_AVX512, avx512}};
#elif defined(LC_AARCH64)
    static const tile_kind neon[] = {ALL_TILE_KINDS(neon)};
    static const struct {
        int needs;
        const tile_kind *kinds;
    } sets[] = {{LC_HAS_SCALAR, scalar}, {LC_HAS_NEON, neon}};
#else
    static const struct {
        int needs;
        const tile_kind *kinds;
    } sets[] = {{LC_HAS_SCALAR, scalar}};
#endif
    int wrong = 0;
    for (size_t set = 0; set < sizeof sets / sizeof sets[0]; ++set) {
        if ((sets[set].needs & features) != sets[set].needs) continue;
        for (size_t i = 0; i < sizeof scalar / sizeof scalar[0]; ++i, ++*ways) wrong += check_tile(&sets[set].kinds[i]);
    }
    return wrong;
}

#endif
