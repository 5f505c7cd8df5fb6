/* The register tile: the one inner loop behind every operation.
 *
 *     out[r][v] = (out[r][v]) + act( bias + (out[r][v]) + sum over the runs, sum over i < n of
 *                       one(row_data[run.row + i*row_step + r*row_stride])
 *                     * vector(vector[run.vector + i*vector_step + v*LANES]) )
 *
 * The vector operand may be a kernel that is stored in fewer bytes (LC_STORES): it is widened, and multiplied by its
 * scales if it has some, on its way into the registers.
 *
 * R rows times V vectors of accumulators stay in registers; a step loads V vectors, broadcasts R elements and does R*V
 * multiply-adds. Which operand of a convolution gives the rows, an element broadcast for each, and which is in the
 * lanes is the caller's choice, by offsets and strides alone; with channel lanes both are in the lanes. The order of
 * summation is that of the runs, whatever R and V: how work is cut never changes a result.
 */

#ifndef LOCALCONV_TILE_H
#define LOCALCONV_TILE_H

enum { LC_BIAS_NONE, LC_BIAS_LANES, LC_BIAS_ROWS };
enum { LC_TILE_ROWS = 16 };

/* The arguments of a register tile. */
typedef struct lc_tile {
    const lc_run *runs;
    ptrdiff_t run_count;
    const void *row_data, *vector; /* the row operand; the vector operand, perhaps of a kernel's stored type */
    ptrdiff_t row_base, row_stride, row_step;
    ptrdiff_t vector_base, vector_step, lane_count;
    const float *scales; /* the lanes', of what is stored as int8 */
    int channel_lanes;   /* the row operand has an element of its own for every lane: channels lie in the lanes */
    const void *bias;
    int bias_axis, relu;
    int accumulate;    /* add to what `out` holds */
    int init_from_out; /* begin with what `out` holds: the sum so far */
    void *out;
    ptrdiff_t out_stride;
    const char *prefetch;    /* what a later tile will need; read a little at every step, never needed. NULL: nothing */
    ptrdiff_t prefetch_step; /* 0 without */
    int prefetch_far;        /* into the second-level cache: the first would lose it again before it is needed */
} lc_tile;

#endif
