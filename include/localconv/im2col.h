/* Windows to rows and back, for the matrix product of NumPy's BLAS and for who wants the patches. (Body: included once per instance.)
 *
 * columns[(image * positions + position) - first][row]: rows in the order of the data format (channels_last: taps outside,
 * channels_first: channels outside); taps in the padding are 0. One group only: groups are slices of the channels.
 */

/* The window of position `index` (over all images) into its row of columns; or, with scatter, the row added to the window.
 * ran: who ran, for the caller that asks. */
LC_NOINLINE void LC_NAME(im2col_window)(const lc_geometry *g, void *image_data, ptrdiff_t index, void *row_data, int scatter,
                                        lc_ran *ran) {
    LC_REAL *input = (LC_REAL *)image_data, *columns = (LC_REAL *)row_data;
    const ptrdiff_t image = index / g->positions, position = index % g->positions;
    const ptrdiff_t at[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                             position % g->output[2]};
    lc_range clip[3];
    ptrdiff_t base = image * g->input_batch;
    for (int axis = 0; axis < 3; ++axis) {
        clip[axis] = lc_taps_inside(g, axis, at[axis]);
        base += (at[axis] * g->strides[axis] - g->before[axis]) * g->input_stride[axis];
    }
    if (ran) LC_NAME(sign)(ran);
    const ptrdiff_t row_channel = g->channels_first ? g->taps : 1, row_tap = g->channels_first ? 1 : g->channels;
    if (!scatter) memset(columns, 0, (size_t)g->depth * sizeof(LC_REAL));
    for (ptrdiff_t i = clip[0].lo; i < clip[0].hi; ++i)
        for (ptrdiff_t j = clip[1].lo; j < clip[1].hi; ++j)
            for (ptrdiff_t k = clip[2].lo; k < clip[2].hi; ++k) {
                const ptrdiff_t from = base + i * g->dilation[0] * g->input_stride[0] + j * g->dilation[1] * g->input_stride[1] +
                                       k * g->dilation[2] * g->input_stride[2];
                LC_REAL *row = columns + ((i * g->kernel[1] + j) * g->kernel[2] + k) * row_tap;
                if (scatter)
                    for (ptrdiff_t c = 0; c < g->channels; ++c) input[from + c * g->input_channel] += row[c * row_channel];
                else
                    for (ptrdiff_t c = 0; c < g->channels; ++c) row[c * row_channel] = input[from + c * g->input_channel];
            }
}
