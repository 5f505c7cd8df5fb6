/* Windows to rows and back, for the matrix product of NumPy's BLAS and for those who want the patches.
 *
 * A row holds one window in the order of the data format (channels_last: taps outside, channels_first: channels
 * outside); taps in the padding are 0. The call says which windows, counted over the positions of all images. One group
 * only: groups are slices of the channels.
 *
 *   im2col   rows from the input: the columns are the call's result
 *   col2im   rows added to the windows that they came from: the columns are the call's gradient, and the sums go to its
 * result
 */
#ifndef LOCALCONV_COLUMNS_H
#define LOCALCONV_COLUMNS_H

static inline int lc_finish_columns(lc_job *job) {
    if (job->geometry.groups != 1 || job->choices.tasks < 1) return LC_REFUSED;
    /* One image is one task of col2im, so that sums keep their order. */
    job->tasks[0] = job->algorithm == LC_im2col ? job->choices.tasks : job->geometry.batch;
    return LC_OK;
}

/* The copy of one window between the image and its row: where its first tap inside lies in either, and the steps.
 * Returns whether all taps are inside. */
LC_INLINE int lc_window_copy(const lc_geometry *g, ptrdiff_t number, int to_row, ptrdiff_t *in_image, ptrdiff_t *in_row,
                             lc_copy *copy) {
    const ptrdiff_t position = number % g->positions, row_tap = g->channels_first ? 1 : g->channels;
    const ptrdiff_t index[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                                position % g->output[2]};
    const ptrdiff_t row_step[3] = {g->kernel[1] * g->kernel[2] * row_tap, g->kernel[2] * row_tap, row_tap};
    ptrdiff_t inside = 1;
    *in_image = number / g->positions * g->x.image + lc_window_at(g, &g->x, index, NULL);
    *in_row = copy->count = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const lc_range taps = lc_taps_inside(g, axis, index[axis]);
        const ptrdiff_t step = g->dilation[axis] * g->x.pixel[axis];
        *in_image += taps.lo * step;
        *in_row += taps.lo * row_step[axis];
        inside *= taps.hi - taps.lo;
        lc_add_dim(copy, taps.hi - taps.lo, to_row ? step : row_step[axis], to_row ? row_step[axis] : step);
    }
    const ptrdiff_t row_channel = g->channels_first ? g->taps : 1;
    lc_add_dim(copy, g->channels, to_row ? g->x.channel : row_channel, to_row ? row_channel : g->x.channel);
    return inside == g->taps;
}

#endif
