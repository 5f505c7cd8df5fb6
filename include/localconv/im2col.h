/* Windows to rows and back, for the matrix product of NumPy's BLAS and for who wants the patches. (Body: once per element type.)
 *
 * columns[(image * positions + position) - first][row]: rows in the order of the data format (channels_last: taps outside,
 * channels_first: channels outside); taps in the padding are 0. One group only: groups are slices of the channels.
 */

/* Rows of one window, in order: calls for every (row, input offset or -1, length) stretch that is contiguous in both. */
LC_NOINLINE void LC_JOIN2(im2col_position, LC_DTYPE)(const lc_geometry *g, const LC_REAL *input, ptrdiff_t index, LC_REAL *columns,
                                                     LC_REAL *scatter) {
    const ptrdiff_t image = index / g->positions, position = index % g->positions;
    const ptrdiff_t at[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                             position % g->output[2]};
    lc_range clip[3];
    ptrdiff_t base = image * g->input_batch;
    for (int axis = 0; axis < 3; ++axis) {
        clip[axis] = lc_taps_inside(g, axis, at[axis]);
        base += (at[axis] * g->strides[axis] - g->before[axis]) * g->input_stride[axis];
    }
    const ptrdiff_t row_channel = g->channels_first ? g->taps : 1, row_tap = g->channels_first ? 1 : g->channels;
    if (!scatter) memset(columns, 0, (size_t)g->depth * sizeof(LC_REAL));
    for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
        for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
            for (ptrdiff_t k = clip[2].lo; k < clip[2].hi; ++k) {
                const ptrdiff_t from = base + i * g->dilation[0] * g->input_stride[0] + j * g->dilation[1] * g->input_stride[1] +
                                       k * g->dilation[2] * g->input_stride[2];
                LC_REAL *row = columns + ((i * g->kernel[1] + j) * g->kernel[2] + k) * row_tap;
                if (scatter)
                    for (ptrdiff_t c = 0; c < g->channels; ++c) scatter[from + c * g->input_channel] += row[c * row_channel];
                else
                    for (ptrdiff_t c = 0; c < g->channels; ++c) row[c * row_channel] = input[from + c * g->input_channel];
            }
}
