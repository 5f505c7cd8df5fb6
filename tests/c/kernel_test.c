/* The kernels against plain loops in C, without Python: for a cross compiler and an emulator, valgrind and sanitizers.
 *
 * Every instruction set that can run here, both element types, every type of stored kernels, every strategy, over a
 * list of geometries that crosses tile and vector edges. An output may differ from the long double sum by 2 * eps *
 * (depth + 2) * (sum of |w||x| + |bias|), and by a subnormal for each term: each of the depth products and additions
 * rounds once, and so does the bias.
 *
 *     make kernel-test
 */
#include "filters.h"
#include "gradients.h"
#include "pace.h"
#include "processors.h"
#include "testing.h"
#include "tiles.h"

/* One value the slow way: sum and bound of the products of output (image, position, filter). squares: by Winograd's
 * algorithm, whose error has the pixels around for a bound, none larger than 1, up to 16 times. */
static long double expect(const lc_geometry *g, int local, int squares, const array *x, const array *k, ptrdiff_t image,
                          ptrdiff_t position, ptrdiff_t filter, long double *bound) {
    const ptrdiff_t at[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                             position % g->output[2]};
    long double sum = 0;
    *bound = 0;
    for (ptrdiff_t c = 0; c < g->group_channels; ++c)
        for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
            const ptrdiff_t taps[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1],
                                       tap % g->kernel[2]};
            const ptrdiff_t channel = filter / g->group_filters * g->group_channels + c;
            ptrdiff_t pixel = 0;
            int inside = 1;
            for (int axis = 0; axis < 3; ++axis) {
                const ptrdiff_t i = at[axis] * g->strides[axis] - g->pad_before[axis] + taps[axis] * g->dilation[axis];
                inside &= i >= 0 && i < g->input[axis];
                pixel = pixel * g->input[axis] + i;
            }
            const ptrdiff_t row = local && g->channels_first ? c * g->taps + tap : tap * g->group_channels + c;
            const long double weight = get(k, ((local ? position * g->window : 0) + row) * g->filters + filter);
            if (squares) *bound += 16 * fabsl(weight);
            if (!inside) continue;
            const ptrdiff_t pixels = g->input[0] * g->input[1] * g->input[2];
            const ptrdiff_t where =
                image * g->x.image + (g->channels_first ? channel * pixels + pixel : pixel * g->channels + channel);
            const long double product = get(x, where) * weight;
            sum += product;
            *bound += fabsl(product);
        }
    return sum;
}

/* How many outputs are off, of one finished call. full_bias: a value per position too. */
static int count_wrong(const lc_geometry *g, const lc_call *c, int local, int squares, int full_bias, const array *x,
                       const array *k, const array *bias, const array *y) {
    const long double eps = y->wide ? DBL_EPSILON : FLT_EPSILON;
    int wrong = 0;
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t p = 0; p < g->positions; ++p)
            for (ptrdiff_t f = 0; f < g->filters; ++f) {
                long double bound, sum = expect(g, local, squares, x, k, image, p, f, &bound);
                if (bias) {
                    const long double b = get(bias, full_bias ? p * c->bias_position + f * c->bias_filter : f);
                    sum += b;
                    bound += fabsl(b);
                }
                if (c->relu && sum < 0) sum = 0;
                const ptrdiff_t at =
                    image * g->positions * g->filters + (g->channels_first ? f * g->positions + p : p * g->filters + f);
                const long double error = fabsl(get(y, at) - sum);
                wrong += !(error <= (long double)(g->window + 2) * (2 * eps * bound + SUBNORMAL));
            }
    return wrong;
}

/* One forward way: choices that cut it so that every loop has an end inside. */
static int run_forward(const lc_geometry *g, const lc_kernels *kernels, int storage, int algorithm, int way,
                       const lc_call *call) {
    const lc_geometry own = seen_by(g, algorithm);
    lc_choices choices = whole();
    if (algorithm == LC_conv_lines) {
        choices.vectors = 1 + way;
        choices.block[0] = lc_min(g->output[0], 2);
        choices.block[1] = lc_min(g->output[1], 1 + way);
        choices.block[2] = lc_min(g->output[2], way % 2 ? 7 : 1000);
        return run_job(g, kernels, storage, algorithm, &choices, call);
    }
    if (algorithm == LC_conv_winograd) {
        choices.vectors = 1 + way;
        choices.tile_block = way % 2 ? 5 : 1000;
        return run_job(g, kernels, storage, algorithm, &choices, call);
    }
    if (algorithm == LC_conv_direct) {
        choices.vectors = widest(&own, 1 + way);
        choices.tasks = 7;
        choices.tile_block = 1 + way;
        choices.panel_bytes = lc_max(1, choices.vectors * kernels->lanes * kernels->itemsize * g->window);
        return run_job(g, kernels, storage, algorithm, &choices, call);
    }
    choices.vectors = algorithm == LC_local_dot ? 1 : algorithm == LC_local_stream ? widest(&own, 4) : 2;
    const ptrdiff_t rows = own.channel_lanes ? LC_CHANNEL_LANES_ROWS : kernels->rows[choices.vectors];
    const ptrdiff_t lanes = choices.vectors * kernels->lanes;
    const ptrdiff_t width = algorithm == LC_local_dot      ? 1
                            : algorithm == LC_local_images ? lc_even(g->group_filters, rows)
                                                           : lanes;
    choices.batch_tile = algorithm == LC_local_dot      ? LC_DOT_ROWS
                         : algorithm == LC_local_images ? lanes
                                                        : lc_even(g->batch, rows);
    choices.batch_chunk = lc_max(choices.batch_tile, g->batch / 2 / choices.batch_tile * choices.batch_tile);
    choices.filter_parts = lc_min(1 + way % 2, lc_count_panels(&own, width));
    choices.piece = algorithm == LC_local_dot || own.channel_lanes ? 0 : way % 3 * 5; /* whole, of 5, of 10 steps */
    for (int axis = 0; axis < 3; ++axis) choices.block[axis] = lc_min(g->output[axis], 1 + way);
    return run_job(g, kernels, storage, algorithm, &choices, call);
}

/* Whether an algorithm cannot do a geometry. */
static int refuses(const lc_geometry *g, int storage, int algorithm) {
    if (algorithm == LC_local_dot) return !lc_dot_fits(g);
    if (algorithm == LC_conv_lines) return g->strides[2] > 1 && g->dilation[2] > 1;
    if (algorithm != LC_conv_winograd) return 0;
    const int three[2] = {g->kernel[1] == 3, g->kernel[2] == 3};
    return storage != LC_native || g->channels_first || g->kernel[0] != 1 || !three[1] ||
           (g->kernel[1] != 1 && !three[0]) || (three[0] && (g->strides[1] > 1 || g->dilation[1] > 1)) ||
           g->strides[2] > 1 || g->dilation[2] > 1;
}

/* One geometry, one algorithm, one way. Returns whether it went wrong. */
static int check_forward(const lc_geometry *g, const lc_kernels *kernels, int algorithm, int way, int bias_kind,
                         int relu, const array *x, const array *k, const array *bias, array *y) {
    const int local = strcmp(lc_algorithms[algorithm].operation->name, "local_forward") == 0,
              full = local && bias_kind == 2;
    lc_ran ran = {"", ""};
    lc_call call;
    memset(&call, 0, sizeof call);
    call.input = x->data;
    bind_kernel(&call, k);
    call.bias = bias_kind ? bias->data : NULL;
    call.result = y->data;
    call.bias_position = !full ? 0 : g->channels_first ? 1 : g->filters;
    call.bias_filter = full && g->channels_first ? g->positions : 1;
    call.relu = relu;
    call.ran = &ran;
    for (ptrdiff_t i = 0; i < y->size; ++i) put(y, i, NAN);
    const int refused = !run_forward(g, kernels, k->storage, algorithm, way, &call);
    if (refused && refuses(g, k->storage, algorithm)) return 0;
    const int wrong =
        count_wrong(g, &call, local, algorithm == LC_conv_winograd, full, x, k, bias_kind ? bias : NULL, y);
    const int other = strcmp(ran.isa, kernels->isa) != 0 || strcmp(ran.dtype, kernels->dtype) != 0;
    if (wrong || other) {
        fprintf(stderr, "%s %s %s, kernel %d, bank %d, way %d, bias %d, relu %d: %d wrong, ran %s %s", kernels->isa,
                kernels->dtype, lc_algorithms[algorithm].name, k->storage, k->indices ? 1 : 0, way, bias_kind, relu,
                wrong, refused ? "nothing: refused" : ran.isa, ran.dtype);
        print_geometry(g);
    }
    return wrong || other;
}

/* One geometry on one set of kernels: all ways to run it. Returns the number of ways that went wrong. */
static int check(const lc_geometry *g, const lc_kernels *kernels, int wide, int storage, int bias_kind, int relu,
                 long *ways) {
    static const int algorithms[2][4] = {{LC_conv_direct, LC_conv_lines, LC_conv_winograd},
                                         {LC_local_dot, LC_local_stream, LC_local_rows, LC_local_images}};
    int failures = 0;
    array x = make(g->batch * g->x.image, wide), y = make(g->batch * g->positions * g->filters, wide);
    array bias = make(bias_kind == 2 ? g->positions * g->filters : g->filters, wide);
    for (int kind = 0; kind < (storage == LC_native ? 4 : 2); ++kind) {
        const int local = kind > 0;
        array k = make_kernel(g, local, wide, storage);
        if (kind > 1) as_bank(g, kind - 1, &k);
        for (int way = 0; way < (local ? 4 : 12); ++way, ++*ways) {
            const int algorithm = algorithms[local][local ? way : way / 4];
            failures += check_forward(g, kernels, algorithm, way % 4, bias_kind, relu, &x, &k, &bias, &y);
        }
        free_array(&k);
    }
    free_array(&x);
    free_array(&y);
    free_array(&bias);
    return failures;
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 60, features = lc_cpu_features();
    int failures = check_features() + check_pace(), sets = 0;
    long ways = 0;
    failures += check_tiles(features, &ways);
    for (int round = 0; round < rounds; ++round) {
        const lc_geometry g = draw(round), of_filters = draw_filter(round);
        for (int i = 0; i < lc_isa_count; ++i) {
            if ((lc_isas[i].needs & features) != lc_isas[i].needs) continue;
            for (int wide = 0; wide < 2; ++wide)
                for (int storage = 0; storage < (wide ? 1 : lc_storage_count); ++storage) {
                    const lc_kernels *kernels = lc_isas[i].kernels[wide ? LC_f64 : LC_f32];
                    failures += check(&g, kernels, wide, storage, round % 3, round % 2, &ways);
                    failures += check_gradients(&g, kernels, wide, storage, &ways);
                    if (storage != LC_i8) failures += check_filters(&of_filters, kernels, wide, storage, &ways);
                }
        }
    }
    printf("instruction sets:");
    for (int i = 0; i < lc_isa_count; ++i)
        if ((lc_isas[i].needs & features) == lc_isas[i].needs) {
            printf(" %s", lc_isas[i].name);
            ++sets;
        }
    printf("\n%ld passed, %d failed\n", ways - failures, failures);
    return failures > 0 || sets == 0 || ways == 0;
}
