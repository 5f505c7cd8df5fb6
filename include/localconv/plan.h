/* How the work of one geometry is cut: made once by dispatch.py through _core.Plan, read by every call. */
#ifndef LOCALCONV_PLAN_H
#define LOCALCONV_PLAN_H

#include "geometry.h"

enum { LC_BIAS_NONE, LC_BIAS_LANES, LC_BIAS_ROWS };
enum { LC_TILE_ROWS = 16, LC_TILE_VECTORS = 4, LC_DOT_ROWS = 4, LC_AHEAD_STEPS = 6, LC_ALIGNMENT = 64 };

/* The arguments of a register tile; tile.h has the formula. */
typedef struct lc_tile {
    const lc_run *runs;
    ptrdiff_t run_count;
    const void *rows, *lanes;
    ptrdiff_t rows_base, row_stride, row_step;
    ptrdiff_t lanes_base, lane_step, lane_count;
    const void *bias;
    int bias_axis, relu;
    void *out;
    ptrdiff_t out_stride;
    const char *prefetch; /* what a later tile will need; read a little at every step, never needed */
    ptrdiff_t prefetch_step;
} lc_tile;

/* Which operand of a locally connected convolution sits where.
 *   DOT     lanes along the window, one filter: no broadcast at all
 *   STREAM  rows = batch, read in place; lanes = filters
 *   ROWS    rows = batch, interleaved;   lanes = filters
 *   LANES   rows = filters;              lanes = batch, interleaved */
enum { LC_LOCAL_DOT, LC_LOCAL_STREAM, LC_LOCAL_ROWS, LC_LOCAL_LANES, lc_local_strategy_count };
static const char *const lc_local_strategies[] = {"dot", "stream", "rows", "lanes"};

typedef struct lc_local_plan {
    int strategy, vectors;
    ptrdiff_t panel_filters;       /* filters of a panel: of the vectors side by side, or LANES: of the tile's rows */
    ptrdiff_t block[3], blocks[3]; /* output positions of a task's block, and how many blocks an axis has */
    ptrdiff_t filter_parts;        /* tasks that share a block, each with its part of the filters */
    ptrdiff_t batch_chunk;         /* images that are interleaved together */
    ptrdiff_t batch_tile;          /* images of one interleaved tile, or rows of one in-place tile */
    /* parts of a thread's workspace, in bytes from its start */
    ptrdiff_t input_at, stage_at, bias_at, workspace;
} lc_local_plan;

/* A rectangle of output positions that meet the same taps, cut into register tiles along one axis (3: the batch). */
typedef struct lc_zone {
    ptrdiff_t start[3], count[3];
    lc_range clip[3];
    int axis;
    ptrdiff_t tiles_along, first_tile, last_tile;
} lc_zone;

typedef struct lc_conv_plan {
    int vectors;
    int pack; /* 0: the kernel already lies as one panel, and is read in place */
    ptrdiff_t panel_width, panels; /* filters of a full panel; panels of all groups */
    ptrdiff_t panel_parts, tile_parts, tiles;
    ptrdiff_t tile_block; /* tiles that run over all panels of a part before the next tiles do */
    const lc_zone *zones;
    ptrdiff_t zone_count;
    ptrdiff_t packed_bytes, stage_at, workspace;
} lc_conv_plan;

/* Whether results are staged, in a layout of the tiles' own, before they reach the caller's array. */
LC_INLINE int lc_local_staged(const lc_geometry *g, const lc_local_plan *p) {
    return p->strategy == LC_LOCAL_LANES || (g->channels_first && g->filters > 1);
}

LC_INLINE int lc_local_interleaved(const lc_local_plan *p) {
    return p->strategy == LC_LOCAL_ROWS || p->strategy == LC_LOCAL_LANES;
}

/* Elements of the largest interleaved input box of a chunk of images. */
LC_INLINE ptrdiff_t lc_box_elements(const lc_geometry *g, const lc_local_plan *p) {
    ptrdiff_t elements = lc_ceil_div(p->batch_chunk, p->batch_tile) * p->batch_tile * g->channels;
    if (!lc_local_interleaved(p)) return 0;
    for (int axis = 0; axis < 3; ++axis) {
        const ptrdiff_t reach = (p->block[axis] - 1) * g->strides[axis] + (g->kernel[axis] - 1) * g->dilation[axis] + 1;
        elements *= lc_min(reach, g->input[axis]);
    }
    return elements;
}

LC_INLINE ptrdiff_t lc_align(ptrdiff_t bytes) { return (bytes + LC_ALIGNMENT - 1) / LC_ALIGNMENT * LC_ALIGNMENT; }

/* Fills in what follows from the choices in a plan: blocks, and a thread's workspace. Returns the number of tasks. */
static inline ptrdiff_t lc_finish_local_plan(const lc_geometry *g, lc_local_plan *p, ptrdiff_t itemsize) {
    const ptrdiff_t images = lc_ceil_div(p->batch_chunk, p->batch_tile) * p->batch_tile;
    const ptrdiff_t staged = lc_local_staged(g, p) ? images * p->block[2] * g->filters : 0;
    ptrdiff_t tasks = p->filter_parts;
    for (int axis = 0; axis < 3; ++axis) {
        p->blocks[axis] = lc_ceil_div(g->output[axis], p->block[axis]);
        tasks *= p->blocks[axis];
    }
    p->input_at = lc_align(lc_run_limit(g) * (ptrdiff_t)sizeof(lc_run));
    p->stage_at = p->input_at + lc_align(lc_box_elements(g, p) * itemsize);
    p->bias_at = p->stage_at + lc_align(staged * itemsize);
    p->workspace = p->bias_at + lc_align(g->filters * itemsize);
    return tasks;
}

/* The output ranges of an axis that meet the same taps: writes start, count and clip of each into that axis; returns how many.
 * With classes == NULL it only counts. Both ends of the taps inside fall with the position, so equal taps are one stretch, and
 * its end is found by bisection: the time does not grow with the axis. */
static inline ptrdiff_t lc_axis_classes(const lc_geometry *g, int axis, lc_zone *classes) {
    ptrdiff_t count = 0;
    for (ptrdiff_t start = 0, end; start < g->output[axis]; start = end, ++count) {
        const lc_range clip = lc_taps_inside(g, axis, start);
        ptrdiff_t same = start, other = g->output[axis];
        while (other - same > 1) {
            const ptrdiff_t middle = same + (other - same) / 2;
            const lc_range there = lc_taps_inside(g, axis, middle);
            if (there.lo == clip.lo && there.hi == clip.hi)
                same = middle;
            else
                other = middle;
        }
        end = other;
        if (!classes) continue;
        classes[count].start[axis] = start;
        classes[count].count[axis] = end - start;
        classes[count].clip[axis] = clip;
    }
    return count;
}

/* Cuts one zone along the axis on which tiles of up to `rows` rows are fullest; last_tile becomes their number. A tile of few
 * rows is bound by the latency of its multiply-adds, so it counts as LC_LATENCY_ROWS. */
enum { LC_LATENCY_ROWS = 5 };
static inline void lc_cut_zone(lc_zone *z, ptrdiff_t batch, int rows) {
    ptrdiff_t best = -1;
    for (int axis = 3; axis >= 0; --axis) {
        const ptrdiff_t along = axis == 3 ? batch : z->count[axis], tiles = lc_ceil_div(along, rows);
        const ptrdiff_t lines = z->count[0] * z->count[1] * z->count[2] * batch / along;
        const ptrdiff_t cost = lines * tiles * lc_max(lc_ceil_div(along, tiles), LC_LATENCY_ROWS);
        if (best >= 0 && (cost > best || (cost == best && axis != 2))) continue; /* equal: rather along the width */
        best = cost;
        z->axis = axis;
        z->tiles_along = tiles;
        z->last_tile = lines * tiles;
    }
}

static inline ptrdiff_t lc_count_zones(const lc_geometry *g) {
    return lc_axis_classes(g, 0, NULL) * lc_axis_classes(g, 1, NULL) * lc_axis_classes(g, 2, NULL);
}

/* Makes the zones, every combination of the three axes' classes, into `zones`, which has room for lc_count_zones; there must be an
 * image. Returns the number of tiles. */
static inline ptrdiff_t lc_make_zones(const lc_geometry *g, int rows, lc_zone *zones) {
    const ptrdiff_t n[3] = {lc_axis_classes(g, 0, NULL), lc_axis_classes(g, 1, NULL), lc_axis_classes(g, 2, NULL)};
    ptrdiff_t tiles = 0;
    /* The classes lie in the first places; from the back, a combination reads only places up to its own, not yet overwritten. */
    for (int axis = 0; axis < 3; ++axis) lc_axis_classes(g, axis, zones);
    for (ptrdiff_t k = n[0] * n[1] * n[2] - 1; k >= 0; --k) {
        const ptrdiff_t class_of[3] = {k / (n[1] * n[2]), k / n[2] % n[1], k % n[2]};
        lc_zone z;
        for (int axis = 0; axis < 3; ++axis) {
            z.start[axis] = zones[class_of[axis]].start[axis];
            z.count[axis] = zones[class_of[axis]].count[axis];
            z.clip[axis] = zones[class_of[axis]].clip[axis];
        }
        zones[k] = z;
    }
    for (ptrdiff_t k = 0; k < n[0] * n[1] * n[2]; ++k) {
        lc_cut_zone(zones + k, g->batch, rows);
        zones[k].first_tile = tiles;
        tiles += zones[k].last_tile;
        zones[k].last_tile = tiles;
    }
    return tiles;
}

/* Fills in what follows from vectors, pack and the zones: panels, and a thread's workspace. */
static inline void lc_finish_conv_plan(const lc_geometry *g, lc_conv_plan *p, int lanes, int rows, ptrdiff_t itemsize) {
    p->panel_width = (ptrdiff_t)p->vectors * lanes;
    p->panels = lc_ceil_div(g->group_filters, p->panel_width) * g->groups;
    p->panel_parts = lc_max(1, lc_min(p->panel_parts, p->panels));
    p->tile_parts = lc_max(1, lc_min(p->tile_parts, p->tiles));
    p->packed_bytes = p->pack ? p->panels * g->depth * p->panel_width * itemsize : 0;
    p->stage_at = lc_align(lc_run_limit(g) * (ptrdiff_t)sizeof(lc_run));
    p->workspace = p->stage_at + lc_align(g->channels_first ? rows * p->panel_width * itemsize : 0);
}

#endif
