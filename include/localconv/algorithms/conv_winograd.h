/* Shared convolution of stride 1 with fewer multiplications: Winograd's F(2, 3) along the height and the width, where
 * the kernel has three taps, and neither of them where it has one (Lavin & Gray, "Fast algorithms for convolutional
 * neural networks", CVPR 2016, section 4).
 *
 * Two neighbouring outputs of three taps g come from four pixels d by four products instead of six:
 *
 *     m = (G g) * (B d),  y = A m     B d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
 *                                     G g = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
 *                                     A m = (m0 + m1 + m2, m1 - m2 - m3)
 *
 * and four of 3 x 3 taps from 4 x 4 pixels by 16 instead of 36. The first pass makes G g of the kernel, [panel][place]
 * [channel][filter], a place being one of the 4 or 16 products. A task of the second makes B d of some squares of
 * pixels, [place][square][channel]; for each panel the matrix product of each place on the register tile; and A m.
 *
 * Infinities become NaN, and neighbours of very different sizes cost each other digits: it is never the default.
 */
#ifndef LOCALCONV_CONV_WINOGRAD_H
#define LOCALCONV_CONV_WINOGRAD_H

enum { LC_PLACES = 16 };

typedef struct lc_winograd_plan {
    ptrdiff_t height, places; /* places along the height, 1 or 4; of both axes */
    ptrdiff_t down, across;   /* squares along the height and the width */
    ptrdiff_t squares, panel_width, panels, pack_parts;
    ptrdiff_t pixels_at, sums_at;  /* in a thread's workspace; in front lies a pixel of zeros */
    ptrdiff_t pixels, sums, pixel; /* elements there from one place, and one square's pixel, to the next */
    ptrdiff_t kernel;              /* of the packed kernel from one place to the next */
} lc_winograd_plan;
LC_PLAN_FITS(lc_winograd_plan);

static inline int lc_finish_conv_winograd(lc_job *job) {
    const lc_geometry *g = &job->geometry;
    const ptrdiff_t itemsize = job->kernels->itemsize, together = job->choices.tile_block;
    lc_winograd_plan *p = LC_PLAN(lc_winograd_plan, job);
    if (!lc_vectors_fit(job) || together < 1 || job->storage != LC_native || g->channels_first) return LC_REFUSED;
    if (g->kernel[0] != 1 || (g->kernel[1] != 1 && g->kernel[1] != 3) || g->kernel[2] != 3) return LC_REFUSED;
    for (int axis = 1; axis < 3; ++axis)
        if (g->kernel[axis] == 3 && (g->strides[axis] != 1 || g->dilation[axis] != 1)) return LC_REFUSED;
    p->height = g->kernel[1] == 3 ? 4 : 1;
    p->places = p->height * 4;
    p->down = p->height == 4 ? lc_ceil_div(g->output[1], 2) : g->output[1];
    p->across = lc_ceil_div(g->output[2], 2);
    p->squares = g->batch * g->output[0] * p->down * p->across;
    p->panel_width = lc_tile_lanes(job);
    p->panels = lc_count_panels(g, p->panel_width);
    p->pack_parts = lc_ceil_div(g->group_channels, 16);
    p->pixel = lc_round_up(g->channels, job->kernels->lanes);
    p->pixels = lc_padded_stride(lc_min(together, p->squares) * p->pixel, itemsize);
    p->sums = lc_padded_stride(lc_min(together, p->squares) * p->panel_width, itemsize);
    p->pixels_at = lc_align(g->channels * itemsize);
    p->sums_at = p->pixels_at + lc_align(p->places * p->pixels * itemsize);
    job->thread_bytes = p->sums_at + p->places * p->sums * itemsize;
    p->kernel = lc_padded_stride(g->group_channels * p->panel_width, itemsize);
    job->shared_bytes = p->panels * p->places * p->kernel * itemsize;
    job->tasks[0] = p->panels * p->pack_parts;
    job->tasks[1] = lc_ceil_div(p->squares, together);
    return LC_OK;
}

/* The first output position of a square, and its image. */
LC_INLINE ptrdiff_t lc_find_square(const lc_geometry *g, const lc_winograd_plan *p, ptrdiff_t square,
                                   ptrdiff_t first[3]) {
    first[2] = square % p->across * 2;
    square /= p->across;
    first[1] = square % p->down * (p->height == 4 ? 2 : 1);
    square /= p->down;
    first[0] = square % g->output[0];
    return square / g->output[0];
}

#endif
