/* Shared convolution, direct: an implicit matrix product without im2col. And its gradient for the input, which is such
 * a convolution.
 *
 * Rows of a register tile are output positions along one axis, a constant stride apart in the input, which is read in
 * place; lanes are filters. The first pass packs the kernel into panels [panel][row of the kernel][filter], rows in the
 * order of the runs. Zones (zones.h) share one list of runs.
 *
 *   conv_direct   one convolution
 *   conv_phases   the gradient for the input. A window of stride s meets the pixels first, first + s, ... of an axis
 * with the taps first, first + s, ... only: each remainder of s is a phase, itself a convolution of the output
 * gradient, of stride 1, with those taps reversed, and channels and filters exchanged. Its results lie s pixels apart.
 */
#ifndef LOCALCONV_CONV_FORWARD_H
#define LOCALCONV_CONV_FORWARD_H

#include "../zones.h"

enum { LC_PACKED_ROWS = 64, LC_LATENCY_ROWS = 5, LC_WIDENED_COLUMNS = 256 };

/* A kernel that lies as its only panel would is packed all the same from so many output pixels and products on: the
 * caller's vectors mostly lie across two cache lines each, which costs a tenth of the time. */
enum { LC_ALIGNED_PIXELS = 512, LC_ALIGNED_PRODUCTS = 20000000 };

/* One of the convolutions that a job consists of. */
typedef struct lc_part {
    lc_geometry geometry; /* y is where its results lie in the caller's array, from `origin` on */
    ptrdiff_t origin;
    ptrdiff_t first_tap[3]; /* of a phase: that of the caller's kernel which is its last one */
    lc_zone *zones;
    ptrdiff_t zone_count, tiles, panel_parts, tile_parts;
    ptrdiff_t packed_at, pack_parts;  /* elements in front of its packed kernel; tasks of one panel */
    ptrdiff_t first_pack, first_task; /* of the job's passes */
} lc_part;

typedef struct lc_conv_plan {
    lc_part *parts;
    ptrdiff_t part_count;
    ptrdiff_t panel_width, panels; /* filters of a full panel; panels of all groups */
    int in_place;                  /* the kernel already lies as one panel, and is not packed */
    int by_filters;                /* of phases: the caller's kernel has their filters for channels */
    ptrdiff_t step[3], kernel[3];  /* of phases: from one of their taps to the next, and taps, in the caller's kernel */
    ptrdiff_t first_clear; /* tasks of the first pass from here on set an image to 0: there are pixels in no phase */
    ptrdiff_t stage_at, kernel_at; /* in a thread's workspace, the latter a tap's widened kernel; in front: the runs */
} lc_conv_plan;
LC_PLAN_FITS(lc_conv_plan);

/* Cuts one zone along the axis on which tiles of up to `rows` rows are fullest; last_piece becomes their number. A tile
 * of few rows is bound by the latency of its multiply-adds, so it counts as LC_LATENCY_ROWS. */
static inline void lc_cut_zone(lc_zone *z, ptrdiff_t batch, ptrdiff_t rows) {
    ptrdiff_t best = -1;
    for (int axis = 3; axis >= 0; --axis) {
        const ptrdiff_t along = axis == 3 ? batch : z->count[axis], tiles = lc_ceil_div(along, rows);
        const ptrdiff_t lines = z->count[0] * z->count[1] * z->count[2] * batch / along;
        const ptrdiff_t cost = lines * tiles * lc_max(lc_ceil_div(along, tiles), LC_LATENCY_ROWS);
        if (best >= 0 && (cost > best || (cost == best && axis != 2))) continue; /* equal: rather along the width */
        best = cost;
        z->axis = axis;
        z->pieces_along = tiles;
        z->last_piece = lines * tiles;
    }
}

/* Makes the phase whose first taps are these; returns 0 if it has no pixel. */
static inline int lc_make_phase(const lc_geometry *g, const ptrdiff_t first_tap[3], lc_part *part) {
    lc_geometry *phase = &part->geometry;
    ptrdiff_t first_pixel[3];
    *phase = *g;
    phase->channels = g->filters;
    phase->filters = g->channels;
    for (int axis = 0; axis < 3; ++axis) {
        const ptrdiff_t step = g->strides[axis], tap = first_tap[axis];
        const ptrdiff_t pixel = first_pixel[axis] = ((tap - g->pad_before[axis]) % step + step) % step;
        if (pixel >= g->input[axis]) return 0;
        part->first_tap[axis] = tap;
        phase->input[axis] = g->output[axis];
        phase->output[axis] = lc_ceil_div(g->input[axis] - pixel, step);
        phase->kernel[axis] = lc_ceil_div(g->kernel[axis] - tap, step);
        phase->strides[axis] = 1;
        /* The first pixel meets its first tap in the window of output (pixel + before - tap) / step; the other taps in
         * earlier ones. */
        phase->pad_before[axis] =
            (phase->kernel[axis] - 1) * g->dilation[axis] - (pixel + g->pad_before[axis] - tap) / step;
    }
    lc_derive(phase);
    phase->channel_lanes = g->channel_lanes;
    phase->y = g->x;
    part->origin = lc_offset(&g->x, first_pixel);
    for (int axis = 0; axis < 3; ++axis) phase->y.pixel[axis] *= g->strides[axis];
    return 1;
}

/* The tap of the caller's kernel that is a phase's tap, in the phase's reversed order. */
LC_INLINE ptrdiff_t lc_phase_tap(const lc_conv_plan *p, const lc_part *part, ptrdiff_t tap) {
    const ptrdiff_t *size = part->geometry.kernel;
    const ptrdiff_t place[3] = {tap / (size[1] * size[2]), tap / size[2] % size[1], tap % size[2]};
    ptrdiff_t theirs = 0;
    for (int axis = 0; axis < 3; ++axis)
        theirs = theirs * p->kernel[axis] + part->first_tap[axis] + (size[axis] - 1 - place[axis]) * p->step[axis];
    return theirs;
}

/* Makes the parts; their zones are not there yet. */
static inline int lc_make_parts(lc_job *job, lc_conv_plan *p) {
    const lc_geometry *g = &job->geometry;
    const int phases = job->algorithm == LC_conv_phases;
    ptrdiff_t taps[3], most = 1; /* every phase begins with a tap of the first stride */
    for (int axis = 0; axis < 3; ++axis) most *= taps[axis] = phases ? lc_min(g->strides[axis], g->kernel[axis]) : 1;
    job->memory = p->parts = (lc_part *)calloc((size_t)most, sizeof(lc_part));
    if (!p->parts) return LC_NO_MEMORY;
    if (!phases) p->parts[p->part_count++].geometry = *g;
    for (ptrdiff_t i = 0; phases && i < most; ++i) {
        const ptrdiff_t first_tap[3] = {i / (taps[1] * taps[2]), i / taps[2] % taps[1], i % taps[2]};
        p->part_count += lc_make_phase(g, first_tap, p->parts + p->part_count);
    }
    for (ptrdiff_t i = 0; i < p->part_count; ++i) /* the packed kernel has either order */
        p->parts[i].geometry.along_taps = lc_more_taps(&p->parts[i].geometry);
    return LC_OK;
}

/* Gives the parts their zones, which lie behind them in the job's memory, cut into register tiles. */
static inline int lc_make_tiles(lc_job *job, lc_conv_plan *p) {
    const ptrdiff_t rows = lc_rows(job, job->choices.vectors);
    ptrdiff_t zones = 0;
    for (ptrdiff_t i = 0; i < p->part_count; ++i)
        zones += p->parts[i].zone_count = lc_count_zones(&p->parts[i].geometry);
    if (zones > job->choices.zone_limit) return LC_REFUSED;
    job->memory_bytes = p->part_count * (ptrdiff_t)sizeof(lc_part) + zones * (ptrdiff_t)sizeof(lc_zone);
    lc_part *parts = (lc_part *)realloc(job->memory, (size_t)lc_max(1, job->memory_bytes));
    if (!parts) return LC_NO_MEMORY;
    job->memory = p->parts = parts;
    lc_zone *zone = (lc_zone *)(parts + p->part_count);
    for (ptrdiff_t i = 0; i < p->part_count; ++i) {
        lc_part *part = parts + i;
        part->zones = zone;
        lc_fill_zones(&part->geometry, zone);
        for (ptrdiff_t k = 0; k < part->zone_count; ++k, ++zone) {
            lc_cut_zone(zone, part->geometry.batch, rows);
            zone->first_piece = part->tiles;
            part->tiles += zone->last_piece;
            zone->last_piece = part->tiles;
        }
    }
    return LC_OK;
}

/* Cuts the parts into tasks, each its share of those wanted by its share of the work. */
static inline void lc_cut_parts(lc_job *job, lc_conv_plan *p) {
    const ptrdiff_t itemsize = job->kernels->itemsize;
    ptrdiff_t packed = 0, runs = 0;
    double products = 0;
    for (ptrdiff_t i = 0; i < p->part_count; ++i) products += lc_products(&p->parts[i].geometry);
    for (ptrdiff_t i = 0; i < p->part_count; ++i) {
        lc_part *part = p->parts + i;
        const lc_geometry *g = &part->geometry;
        const double share = p->part_count == 1 ? 1 : lc_products(g) / products;
        const ptrdiff_t tasks = (ptrdiff_t)(share * (double)job->choices.tasks);
        const ptrdiff_t panel_bytes = g->window * p->panel_width * itemsize;
        part->panel_parts = lc_min(p->panels, lc_ceil_div(p->panels * panel_bytes, job->choices.panel_bytes));
        part->tile_parts = lc_max(1, lc_min(part->tiles, lc_ceil_div(tasks, part->panel_parts)));
        part->pack_parts = lc_min(g->taps, lc_ceil_div(g->window, LC_PACKED_ROWS));
        part->packed_at = packed;
        part->first_task = job->tasks[1];
        part->first_pack = job->tasks[0];
        job->tasks[1] += part->panel_parts * part->tile_parts;
        if (!p->in_place) job->tasks[0] += p->panels * part->pack_parts;
        packed += lc_align(p->in_place ? 0 : p->panels * panel_bytes) / itemsize;
        runs = lc_max(runs, lc_run_limit(g, g->window));
    }
    p->first_clear = job->tasks[0];
    for (int axis = 0; axis < 3 && job->algorithm == LC_conv_phases; ++axis)
        if (p->step[axis] > p->kernel[axis]) job->tasks[0] = p->first_clear + job->geometry.batch;
    job->shared_bytes = packed * itemsize;
    p->stage_at = job->list_bytes = lc_align(runs * (ptrdiff_t)sizeof(lc_run));
}

static inline int lc_finish_conv_forward(lc_job *job) {
    lc_conv_plan *p = LC_PLAN(lc_conv_plan, job);
    const lc_geometry *g = &job->geometry;
    const int phases = job->algorithm == LC_conv_phases;
    const ptrdiff_t filters = phases ? g->channels : g->filters, groups = g->channel_lanes ? 1 : g->groups;
    if (!lc_vectors_fit(job) || job->choices.tasks < 1 || job->choices.panel_bytes < 1 || job->choices.tile_block < 1)
        return LC_REFUSED;
    p->by_filters = phases && !g->channel_lanes;
    p->panel_width = lc_tile_lanes(job);
    p->panels = lc_ceil_div(filters / groups, p->panel_width) * groups;
    for (int axis = 0; axis < 3; ++axis) {
        p->step[axis] = g->strides[axis];
        p->kernel[axis] = g->kernel[axis];
    }
    /* Rows that lie in the order of the runs, all filters in one panel: such a kernel may be read where it is. */
    p->in_place = job->storage == LC_native && !phases && (!g->channels_first || g->channels == 1) && groups == 1 &&
                  g->filters <= p->panel_width &&
                  (g->batch * g->positions < LC_ALIGNED_PIXELS || lc_products(g) < LC_ALIGNED_PRODUCTS);
    int status = lc_make_parts(job, p);
    if (status == LC_OK) status = lc_make_tiles(job, p);
    if (status != LC_OK) return status;
    lc_cut_parts(job, p);
    const ptrdiff_t stage = g->channels_first ? job->kernels->rows[job->choices.vectors] * p->panel_width : 0;
    p->kernel_at = p->stage_at + lc_align(stage * job->kernels->itemsize);
    const ptrdiff_t widened = job->storage != LC_native && p->by_filters ? p->panel_width * LC_WIDENED_COLUMNS : 0;
    job->thread_bytes = p->kernel_at + lc_align(widened * job->kernels->itemsize);
    return LC_OK;
}

/* The part that a task of a pass belongs to. */
static inline const lc_part *lc_find_part(const lc_conv_plan *p, ptrdiff_t task, int packing) {
    ptrdiff_t lo = 0, hi = p->part_count;
    while (hi - lo > 1) {
        const ptrdiff_t middle = lo + (hi - lo) / 2;
        if ((packing ? p->parts[middle].first_pack : p->parts[middle].first_task) <= task)
            lo = middle;
        else
            hi = middle;
    }
    return p->parts + lo;
}

/* The part of one tap of the caller's kernel that a panel holds: rows and columns in the caller's order, where it
 * begins, and where its columns' scales do. */
typedef struct lc_tap_block {
    ptrdiff_t first, stride, rows, columns, scale;
} lc_tap_block;

LC_INLINE lc_tap_block lc_find_tap(const lc_job *job, const lc_conv_plan *p, const lc_part *part, const lc_panel *panel,
                                   ptrdiff_t tap) {
    const lc_geometry *g = &part->geometry;
    lc_tap_block block = {panel->first, g->filters, g->group_channels, panel->count, panel->first};
    if (job->algorithm == LC_conv_phases) tap = lc_phase_tap(p, part, tap);
    if (p->by_filters) {
        block.scale = panel->group * g->group_channels;
        block.first = (panel->first - panel->group * g->group_filters) * g->channels + block.scale;
        block.stride = g->channels;
        block.rows = panel->count;
        block.columns = g->group_channels;
    }
    block.first += tap * (job->geometry.channels / job->geometry.groups) * job->geometry.filters;
    block.scale += tap * job->geometry.filters;
    return block;
}

/* A register tile of a zone: the spatial output index of its first row, its image, its rows; and what leads from it to
 * the next one without a division: its place in the zone, counted in tiles along the zone's axis, the rows of a tile,
 * and how many tiles have one more. */
typedef struct lc_conv_rows {
    ptrdiff_t index[3], image, rows;
    ptrdiff_t place[4], least, larger;
} lc_conv_rows;

LC_INLINE void lc_place_rows(const lc_zone *z, lc_conv_rows *at) {
    const ptrdiff_t i = at->place[z->axis], first = at->least * i + lc_min(i, at->larger);
    for (int axis = 0; axis < 3; ++axis) at->index[axis] = z->start[axis] + (axis == z->axis ? first : at->place[axis]);
    at->image = z->axis == 3 ? first : at->place[3];
    at->rows = at->least + (i < at->larger);
}

LC_INLINE lc_conv_rows lc_find_rows(const lc_geometry *g, const lc_zone *z, ptrdiff_t tile) {
    lc_conv_rows at;
    lc_zone_place(g, z, tile, z->pieces_along, at.place);
    at.least = lc_zone_along(g, z) / z->pieces_along;
    at.larger = lc_zone_along(g, z) % z->pieces_along;
    lc_place_rows(z, &at);
    return at;
}

LC_INLINE void lc_next_rows(const lc_zone *z, lc_conv_rows *at) {
    int axis = 2;
    while (axis >= 0 && ++at->place[axis] == (axis == z->axis ? z->pieces_along : z->count[axis]))
        at->place[axis--] = 0;
    if (axis < 0) ++at->place[3];
    lc_place_rows(z, at);
}

/* What the tiles of one task share. */
typedef struct lc_conv_work {
    const lc_part *part;
    const void *kernel; /* packed, or in place */
    void *result, *stage;
    const void *bias;
    ptrdiff_t panel_width, tile_block;
} lc_conv_work;

#endif
