/* The windows of filters that come with the data (local_filter), seen from what is computed.
 *
 * Three readings of one sum: the forward result and the gradient for the input are sums, at every pixel of theirs, over
 * pairs of a source pixel and a tap; the gradient for the filters has a product for every pair. Along one axis the
 * pairs of an index are segments, in which the source and the tap advance by constant steps.
 *
 *             result      source    the filter's position
 *   forward   position    pixel     the result's
 *   gradient  pixel       position  the source's
 */
#ifndef LOCALCONV_FILTER_WINDOWS_H
#define LOCALCONV_FILTER_WINDOWS_H

#include "../geometry.h"

/* Pairs of a source index and a tap: n of them, from the first one on. Sources ascend; some may be outside the source.
 */
typedef struct lc_segment {
    ptrdiff_t source, tap, n, source_step, tap_step;
} lc_segment;

/* Windows that are moved inside (lc_window_origin) meet a pixel in up to three ways: those at either border, and those
 * between them. */
enum { LC_SEGMENTS = 3 };

LC_INLINE int lc_add_segment(lc_segment *segment, ptrdiff_t source, ptrdiff_t tap, ptrdiff_t n, ptrdiff_t source_step,
                             ptrdiff_t tap_step) {
    const lc_segment s = {source, tap, n, source_step, tap_step};
    if (n > 0) *segment = s;
    return n > 0;
}

/* The positions whose windows, moved inside, hold a pixel. Counted in its phase, where pixels are neighbours. */
static inline int lc_moved_segments(const lc_geometry *g, int axis, ptrdiff_t pixel, lc_segment segments[LC_SEGMENTS]) {
    const ptrdiff_t d = g->dilation[axis], k = g->kernel[axis], phase = pixel % d, i = pixel / d;
    const ptrdiff_t m = lc_ceil_div(g->input[axis] - phase, d), half = k / 2, last = m - k + half;
    const ptrdiff_t lo = i < k ? 0 : i - k + 1 + half, hi = i >= m - k ? m - 1 : i + half;
    const ptrdiff_t middle = lc_max(lo, half + 1), right = lc_max(middle, last);
    int count = lc_add_segment(segments, phase + lo * d, i, lc_min(hi, half) - lo + 1, d, 0);
    count += lc_add_segment(segments + count, phase + middle * d, i + half - middle, lc_min(hi, last - 1) - middle + 1,
                            d, -1);
    return count + lc_add_segment(segments + count, phase + right * d, i - (m - k), hi - right + 1, d, 0);
}

/* The positions whose windows hold a pixel: from its last tap to its first. */
static inline int lc_meeting_segments(const lc_geometry *g, int axis, ptrdiff_t pixel, lc_segment *segment) {
    const ptrdiff_t s = g->strides[axis], d = g->dilation[axis], from_padding = pixel + g->pad_before[axis];
    ptrdiff_t divisor = s, rest = d;
    while (rest > 0) {
        const ptrdiff_t next = divisor % rest;
        divisor = rest, rest = next;
    }
    const ptrdiff_t tap_step = s / divisor;
    for (ptrdiff_t tap = g->kernel[axis] - 1; tap >= lc_max(0, g->kernel[axis] - tap_step); --tap) {
        const ptrdiff_t origin = from_padding - tap * d;
        if (origin % s == 0)
            return lc_add_segment(segment, origin / s, tap, tap / tap_step + 1, d / divisor, -tap_step);
    }
    return 0;
}

/* The pairs of index `o` of the result along an axis. */
LC_INLINE int lc_segments_of(const lc_geometry *g, int axis, int gradient, ptrdiff_t o,
                             lc_segment segments[LC_SEGMENTS]) {
    if (!gradient)
        return lc_add_segment(segments, lc_window_origin(g, axis, o), 0, g->kernel[axis], g->dilation[axis], 1);
    return g->inside ? lc_moved_segments(g, axis, o, segments) : lc_meeting_segments(g, axis, o, segments);
}

/* Leaves out the pairs whose source is outside 0 .. size-1. */
LC_INLINE void lc_clip_segment(lc_segment *s, ptrdiff_t size) {
    const ptrdiff_t before = s->source < 0 ? lc_ceil_div(-s->source, s->source_step) : 0;
    const ptrdiff_t within = s->source < size ? lc_ceil_div(size - s->source, s->source_step) : 0;
    const ptrdiff_t end = lc_min(s->n, within), first = lc_min(before, lc_max(end, 0));
    s->source += first * s->source_step;
    s->tap += first * s->tap_step;
    s->n = lc_max(0, end - first);
}

/* The source's indices that the results lo .. hi-1 of an axis are summed from; lo == hi: none. */
static inline lc_range lc_sources_of(const lc_geometry *g, int axis, int gradient, ptrdiff_t lo, ptrdiff_t hi) {
    const ptrdiff_t size = gradient ? g->output[axis] : g->input[axis];
    lc_range range = {size, 0};
    for (ptrdiff_t o = lo; o < hi; ++o) {
        lc_segment segments[LC_SEGMENTS];
        const int count = lc_segments_of(g, axis, gradient, o, segments);
        for (int i = 0; i < count; ++i) {
            lc_clip_segment(segments + i, size);
            if (segments[i].n == 0) continue;
            range.lo = lc_min(range.lo, segments[i].source);
            range.hi = lc_max(range.hi, segments[i].source + (segments[i].n - 1) * segments[i].source_step + 1);
        }
    }
    if (range.hi <= range.lo) range.lo = range.hi = 0;
    return range;
}

/* At most so many of them for n neighbouring results. */
LC_INLINE ptrdiff_t lc_sources_limit(const lc_geometry *g, int axis, int gradient, ptrdiff_t n) {
    const ptrdiff_t size = gradient ? g->output[axis] : g->input[axis], reach = lc_effective_size(g, axis);
    if (g->inside) return lc_min(size, n + 2 * g->kernel[axis] * g->dilation[axis]);
    return lc_min(size, gradient ? (n + reach - 2) / g->strides[axis] + 2 : (n - 1) * g->strides[axis] + reach);
}

/* ------------------------------------------------------------------------------------------- stretches */

/* Results along the width whose pairs go alike: `count` of them, `step` apart, from `first` on; from one to the next
 * the source moves by source_row. `segments`: of the first one, not clipped. */
typedef struct lc_stretch {
    ptrdiff_t first, count, step, source_row;
    int segment_count;
    lc_segment segments[LC_SEGMENTS];
} lc_stretch;

/* Results that are so far apart may go alike: where windows overlap, those that share pixels. */
LC_INLINE ptrdiff_t lc_stretch_step(const lc_geometry *g, int gradient) {
    return g->strides[2] == 1 ? g->dilation[2] : gradient ? g->strides[2] : 1;
}

LC_INLINE int lc_continues(const lc_stretch *stretch, int count, const lc_segment *next) {
    const lc_segment *first = stretch->segments;
    if (stretch->segment_count != 1 || count != 1 || next->n != first->n || next->tap != first->tap) return 0;
    if (next->source_step != first->source_step || next->tap_step != first->tap_step) return 0;
    return stretch->count == 1 || next->source == first->source + stretch->count * stretch->source_row;
}

/* The stretches of the results lo .. hi-1, of which there are at most as many as results. */
static inline ptrdiff_t lc_build_stretches(const lc_geometry *g, int gradient, ptrdiff_t lo, ptrdiff_t hi,
                                           lc_stretch *stretches) {
    const ptrdiff_t step = lc_stretch_step(g, gradient);
    ptrdiff_t count = 0;
    for (ptrdiff_t phase = lo; phase < lc_min(lo + step, hi); ++phase) {
        lc_stretch *last = NULL;
        for (ptrdiff_t o = phase; o < hi; o += step) {
            lc_segment segments[LC_SEGMENTS];
            const int segment_count = lc_segments_of(g, 2, gradient, o, segments);
            if (last && lc_continues(last, segment_count, segments)) {
                if (last->count++ == 1) last->source_row = segments[0].source - last->segments[0].source;
                continue;
            }
            last = stretches + count++;
            last->first = o, last->count = 1, last->step = step, last->source_row = 0,
            last->segment_count = segment_count;
            memcpy(last->segments, segments, sizeof segments);
        }
    }
    return count;
}

#endif
