/* How the work of one geometry is cut: made once by dispatch.py through _core.Plan, read by every call. */
#ifndef LOCALCONV_PLAN_H
#define LOCALCONV_PLAN_H

#include "geometry.h"

enum { LC_BIAS_NONE, LC_BIAS_LANES, LC_BIAS_ROWS };
enum { LC_TILE_ROWS = 16, LC_TILE_VECTORS = 4, LC_DOT_ROWS = 4, LC_AHEAD_STEPS = 6, LC_ALIGNMENT = 64 };

LC_INLINE ptrdiff_t lc_align(ptrdiff_t bytes) { return (bytes + LC_ALIGNMENT - 1) / LC_ALIGNMENT * LC_ALIGNMENT; }

/* The arguments of a register tile; tile.h has the formula. */
typedef struct lc_tile {
    const lc_run *runs;
    ptrdiff_t run_count;
    const void *rows, *lanes;
    ptrdiff_t rows_base, row_stride, row_step;
    ptrdiff_t lanes_base, lane_step, lane_count;
    const void *bias;
    int bias_axis, relu;
    int accumulate; /* add to what `out` holds */
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

/* How a gradient of a locally connected convolution reads and writes what it sums over images.
 *   PLACED  where the caller's arrays are
 *   BOXED   through a box of pixels in the thread's workspace */
enum { LC_GRADIENT_PLACED, LC_GRADIENT_BOXED, lc_gradient_strategy_count };
static const char *const lc_gradient_strategies[] = {"placed", "boxed"};

typedef struct lc_gradient_plan {
    int strategy;
    int vectors;                   /* of a tile, input gradient */
    ptrdiff_t panel_filters;       /* filters of a tile, kernel gradient */
    ptrdiff_t block[3], blocks[3]; /* a task's output positions (kernel gradient) or input pixels (input gradient) */
    ptrdiff_t filter_parts;        /* tasks that share a block (kernel gradient) */
    ptrdiff_t segment;             /* positions whose output gradients are brought into the workspace together */
    ptrdiff_t batch_chunk, batch_tile;
    ptrdiff_t box_at, stage_at, workspace;
} lc_gradient_plan;

/* Elements from one image to the next in a box whose images lie one behind the other: an odd number of cache lines, so that the same
 * pixel of all images does not crowd into a few sets of the cache. */
LC_INLINE ptrdiff_t lc_box_stride(ptrdiff_t elements, ptrdiff_t itemsize) {
    const ptrdiff_t lines = lc_align(elements * itemsize) / LC_ALIGNMENT;
    return (lines | 1) * (LC_ALIGNMENT / itemsize);
}

/* Fills in what follows from the choices in a plan, for the gradient for the kernel or that for the input. Returns the tasks. */
static inline ptrdiff_t lc_finish_gradient_plan(const lc_geometry *g, lc_gradient_plan *p, int for_kernel, ptrdiff_t itemsize) {
    const ptrdiff_t images = lc_ceil_div(p->batch_chunk, p->batch_tile) * p->batch_tile, *sizes = for_kernel ? g->output : g->input;
    const int boxed = p->strategy == LC_GRADIENT_BOXED;
    ptrdiff_t tasks = for_kernel ? p->filter_parts : 1, elements = g->channels;
    for (int axis = 0; axis < 3; ++axis) {
        ptrdiff_t extent = p->block[axis];
        if (for_kernel) extent = lc_min((p->block[axis] - 1) * g->strides[axis] + (g->kernel[axis] - 1) * g->dilation[axis] + 1, g->input[axis]);
        elements *= extent;
        p->blocks[axis] = lc_ceil_div(sizes[axis], p->block[axis]);
        tasks *= p->blocks[axis];
    }
    p->box_at = lc_align(lc_strip_limit(g) * (ptrdiff_t)sizeof(lc_strip));
    p->stage_at = p->box_at + lc_align(boxed ? images * lc_box_stride(elements, itemsize) * itemsize : 0);
    p->workspace = p->stage_at + lc_align(boxed || g->channels_first ? images * lc_box_stride(p->segment * g->filters, itemsize) * itemsize : 0);
    return tasks;
}

/* A rectangle of output positions that meet the same taps, cut into register tiles along one axis (3: the batch). */
typedef struct lc_zone {
    ptrdiff_t start[3], count[3];
    lc_range clip[3];
    int axis;
    ptrdiff_t tiles_along, first_tile, last_tile;
} lc_zone;

/* Which kernel a direct convolution meets: the caller's, or for the gradient for the input one phase of it, with the taps of every
 * axis first, first + step, ... in reversed order, and channels and filters exchanged. */
typedef struct lc_taps {
    int transposed;
    ptrdiff_t first[3], step[3], kernel[3]; /* kernel: taps of the caller's */
} lc_taps;

typedef struct lc_conv_plan {
    const lc_geometry *geometry;
    int vectors;
    int pack; /* 0: the kernel already lies as one panel, and is read in place */
    lc_taps taps;
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

/* Makes the zones, every combination of the three axes' classes, into `zones`, which has room for lc_count_zones. */
static inline void lc_fill_zones(const lc_geometry *g, lc_zone *zones) {
    const ptrdiff_t n[3] = {lc_axis_classes(g, 0, NULL), lc_axis_classes(g, 1, NULL), lc_axis_classes(g, 2, NULL)};
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
}

/* Makes the zones and cuts them into register tiles of up to `rows` rows; there must be an image. Returns the number of tiles. */
static inline ptrdiff_t lc_make_zones(const lc_geometry *g, int rows, lc_zone *zones) {
    const ptrdiff_t count = lc_count_zones(g);
    ptrdiff_t tiles = 0;
    lc_fill_zones(g, zones);
    for (ptrdiff_t k = 0; k < count; ++k) {
        lc_cut_zone(zones + k, g->batch, rows);
        zones[k].first_tile = tiles;
        tiles += zones[k].last_tile;
        zones[k].last_tile = tiles;
    }
    return tiles;
}

/* Fills in what follows from vectors, pack and the zones: panels, and a thread's workspace. */
static inline void lc_finish_conv_plan(const lc_geometry *g, lc_conv_plan *p, int lanes, int rows, ptrdiff_t itemsize) {
    p->geometry = g;
    p->panel_width = (ptrdiff_t)p->vectors * lanes;
    p->panels = lc_ceil_div(g->group_filters, p->panel_width) * g->groups;
    p->panel_parts = lc_max(1, lc_min(p->panel_parts, p->panels));
    p->tile_parts = lc_max(1, lc_min(p->tile_parts, p->tiles));
    p->packed_bytes = p->pack ? p->panels * g->depth * p->panel_width * itemsize : 0;
    p->stage_at = lc_align(lc_run_limit(g) * (ptrdiff_t)sizeof(lc_run));
    p->workspace = p->stage_at + lc_align(g->channels_first ? rows * p->panel_width * itemsize : 0);
}

/* How the gradient for a shared kernel is cut. The zones' tiles are blocks of positions here. Only the geometry may decide. */
typedef struct lc_reduction_plan {
    int vectors, pack; /* pack: a panel's output gradients are brought together before they are read */
    ptrdiff_t panel_width, panels;
    ptrdiff_t position_parts, panel_parts, row_parts, blocks;
    const lc_zone *zones;
    ptrdiff_t zone_count;
    ptrdiff_t lines_at, stage_at, workspace, partial_bytes;
} lc_reduction_plan;

enum { LC_BLOCK_STEPS = 128, LC_LINE_STEPS = 16 };

LC_INLINE ptrdiff_t lc_zone_along(const lc_geometry *g, const lc_zone *z) { return z->axis == 3 ? g->batch : z->count[z->axis]; }

LC_INLINE ptrdiff_t lc_zone_lines(const lc_geometry *g, const lc_zone *z) {
    return g->batch * z->count[0] * z->count[1] * z->count[2] / lc_zone_along(g, z);
}

/* Makes the zones and cuts them into blocks of lines along the width or, where it is short, along the longest axis. There must be an
 * image. Returns the number of blocks. */
static inline ptrdiff_t lc_make_reduction_zones(const lc_geometry *g, lc_zone *zones) {
    const ptrdiff_t count = lc_count_zones(g);
    ptrdiff_t blocks = 0;
    lc_fill_zones(g, zones);
    for (ptrdiff_t k = 0; k < count; ++k) {
        lc_zone *z = zones + k;
        z->axis = 2;
        for (int axis = 0; axis < 3 && z->count[2] < LC_LINE_STEPS; ++axis)
            if (z->count[axis] > z->count[z->axis]) z->axis = axis;
        if (lc_zone_along(g, z) < LC_LINE_STEPS && g->batch > lc_zone_along(g, z)) z->axis = 3;
        const ptrdiff_t along = lc_zone_along(g, z);
        z->tiles_along = lc_ceil_div(along, LC_BLOCK_STEPS);
        z->first_tile = blocks;
        blocks += lc_ceil_div(lc_zone_lines(g, z), lc_max(1, LC_BLOCK_STEPS / along)) * z->tiles_along;
        z->last_tile = blocks;
    }
    return blocks;
}

/* Fills in what follows from vectors, parts and the zones. */
static inline void lc_finish_reduction_plan(const lc_geometry *g, lc_reduction_plan *p, int lanes, ptrdiff_t itemsize) {
    p->panel_width = (ptrdiff_t)p->vectors * lanes;
    p->panels = lc_ceil_div(g->group_filters, p->panel_width) * g->groups;
    p->panel_parts = lc_max(1, lc_min(p->panel_parts, p->panels));
    p->row_parts = lc_max(1, lc_min(p->row_parts, g->depth));
    p->position_parts = lc_max(1, lc_min(p->position_parts, p->blocks));
    p->partial_bytes = p->position_parts > 1 ? p->position_parts * g->depth * g->filters * itemsize : 0;
    p->lines_at = lc_align(lc_strip_limit(g) * (ptrdiff_t)sizeof(lc_strip));
    p->stage_at = p->lines_at + lc_align(2 * LC_BLOCK_STEPS * (ptrdiff_t)sizeof(lc_run));
    p->workspace = p->stage_at + lc_align(p->pack ? LC_BLOCK_STEPS * p->panel_width * itemsize : 0);
}

/* How the gradient for an input of few channels is cut; conv_narrow.h has the letters. */
typedef struct lc_narrow_plan {
    int vectors;
    ptrdiff_t phases, turns, shift, rows; /* s; the u; m from one u to the next; phases * channels of a group */
    ptrdiff_t first_m, last_m;            /* m of the input's first pixel, and behind that of its last */
    ptrdiff_t block[3], blocks[3];        /* pixels of a task along depth and height, m along the width */
    ptrdiff_t line;                       /* elements of a line of the box, and of a row of the stage */
    ptrdiff_t packed_bytes, box_at, stage_at, workspace;
} lc_narrow_plan;

LC_INLINE void lc_derive_narrow(const lc_geometry *g, lc_narrow_plan *p) {
    p->phases = g->strides[2];
    p->turns = lc_ceil_div(g->kernel[2], p->phases);
    p->shift = p->phases == 1 ? g->dilation[2] : 1;
    p->rows = p->phases * g->group_channels;
    p->first_m = g->before[2] / p->phases;
    p->last_m = (g->before[2] + g->input[2] - 1) / p->phases + 1;
}

/* Fills in what follows from vectors and block. Returns the number of tasks. */
static inline ptrdiff_t lc_finish_narrow_plan(const lc_geometry *g, lc_narrow_plan *p, int lanes, ptrdiff_t itemsize) {
    const ptrdiff_t width = (ptrdiff_t)p->vectors * lanes;
    ptrdiff_t tasks = g->batch, lines = 1;
    lc_derive_narrow(g, p);
    for (int axis = 0; axis < 3; ++axis) {
        const ptrdiff_t reach = p->block[axis] + (g->kernel[axis] - 1) * g->dilation[axis];
        p->blocks[axis] = lc_ceil_div(axis == 2 ? p->last_m - p->first_m : g->input[axis], p->block[axis]);
        tasks *= p->blocks[axis];
        if (axis < 2) lines *= lc_min(g->output[axis], (reach - 1) / g->strides[axis] + 1);
    }
    p->line = (p->turns - 1) * p->shift + lc_ceil_div(p->block[2], width) * width;
    p->packed_bytes = LC_ALIGNMENT + g->groups * g->kernel[0] * g->kernel[1] * p->turns * p->rows * g->group_filters * itemsize;
    p->box_at = lc_align(2 * g->kernel[0] * g->kernel[1] * p->turns * (ptrdiff_t)sizeof(lc_run));
    p->stage_at = p->box_at + lc_align(g->filters * lines * p->line * itemsize);
    p->workspace = p->stage_at + lc_align(p->rows * p->line * itemsize);
    return tasks;
}

#endif
