/* The kernels against plain loops in C, without Python: for a cross compiler and an emulator, valgrind and sanitizers.
 *
 * Every instruction set that can run here, both element types, every strategy, over a list of geometries that crosses tile and
 * vector edges. An output may differ from the long double sum by 2 * eps * (depth + 2) * (sum of |w||x| + |bias|): each of the
 * depth products and additions rounds once, and so does the bias.
 *
 *     cc -O2 -Iinclude tests/c/kernel_test.c -o kernel_test -lm && ./kernel_test
 */
#include "gradients.h"
#include "testing.h"

/* One value the slow way: sum and bound of the products of output (image, position, filter). */
static long double expect(const lc_geometry *g, int local, const array *x, const array *k, ptrdiff_t image, ptrdiff_t position,
                          ptrdiff_t filter, long double *bound) {
    const ptrdiff_t at[3] = {position / (g->output[1] * g->output[2]), position / g->output[2] % g->output[1],
                             position % g->output[2]};
    long double sum = 0;
    *bound = 0;
    for (ptrdiff_t c = 0; c < g->group_channels; ++c)
        for (ptrdiff_t tap = 0; tap < g->taps; ++tap) {
            const ptrdiff_t taps[3] = {tap / (g->kernel[1] * g->kernel[2]), tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
            const ptrdiff_t channel = filter / g->group_filters * g->group_channels + c;
            ptrdiff_t pixel = 0;
            int inside = 1;
            for (int axis = 0; axis < 3; ++axis) {
                const ptrdiff_t i = at[axis] * g->strides[axis] - g->before[axis] + taps[axis] * g->dilation[axis];
                inside &= i >= 0 && i < g->input[axis];
                pixel = pixel * g->input[axis] + i;
            }
            if (!inside) continue;
            const ptrdiff_t pixels = g->input[0] * g->input[1] * g->input[2];
            const ptrdiff_t row = local && g->channels_first ? c * g->taps + tap : tap * g->group_channels + c;
            const ptrdiff_t where = image * g->input_batch + (g->channels_first ? channel * pixels + pixel : pixel * g->channels + channel);
            const long double product = (long double)get(x, where) * get(k, ((local ? position * g->depth : 0) + row) * g->filters + filter);
            sum += product;
            *bound += fabsl(product);
        }
    return sum;
}

/* How many outputs are off, of one finished call. full_bias: a value per position too. */
static int count_wrong(const lc_call *c, int local, int full_bias, const array *x, const array *k, const array *bias, const array *y) {
    const lc_geometry *g = c->geometry;
    const long double eps = y->wide ? DBL_EPSILON : FLT_EPSILON;
    int wrong = 0;
    for (ptrdiff_t image = 0; image < g->batch; ++image)
        for (ptrdiff_t p = 0; p < g->positions; ++p)
            for (ptrdiff_t f = 0; f < g->filters; ++f) {
                long double bound, sum = expect(g, local, x, k, image, p, f, &bound);
                if (bias) {
                    const long double b = get(bias, full_bias ? p * c->bias_position + f * c->bias_filter : f);
                    sum += b;
                    bound += fabsl(b);
                }
                if (c->relu && sum < 0) sum = 0;
                const ptrdiff_t at = image * g->positions * g->filters + (g->channels_first ? f * g->positions + p : p * g->filters + f);
                const long double error = fabsl(get(y, at) - sum);
                wrong += !(error <= 2 * eps * (long double)(g->depth + 2) * bound);
            }
    return wrong;
}

static ptrdiff_t even(ptrdiff_t n, ptrdiff_t limit) { return lc_ceil_div(n, lc_ceil_div(n, limit)); }

static void run_local(const lc_kernels *kernels, const lc_call *call, int strategy, ptrdiff_t block, ptrdiff_t parts, int wide) {
    const lc_geometry *g = call->geometry;
    lc_local_plan p;
    memset(&p, 0, sizeof p);
    p.strategy = strategy;
    p.vectors = strategy == LC_LOCAL_DOT ? 1 : strategy == LC_LOCAL_STREAM ? 4 : 2;
    const int rows = kernels->rows_limit(p.vectors);
    p.panel_filters = strategy == LC_LOCAL_DOT ? 1 : strategy == LC_LOCAL_LANES ? even(g->group_filters, rows) : p.vectors * kernels->lanes;
    p.batch_tile = strategy == LC_LOCAL_DOT ? LC_DOT_ROWS : strategy == LC_LOCAL_LANES ? p.vectors * kernels->lanes : even(g->batch, rows);
    p.batch_chunk = lc_max(p.batch_tile, g->batch / 2 / p.batch_tile * p.batch_tile);
    p.filter_parts = lc_min(parts, lc_ceil_div(g->group_filters, p.panel_filters) * g->groups);
    for (int axis = 0; axis < 3; ++axis) p.block[axis] = lc_min(g->output[axis], block);
    const ptrdiff_t tasks = lc_finish_local_plan(g, &p, wide ? 8 : 4);
    char *workspace = allocate(p.workspace);
    for (ptrdiff_t task = 0; task < tasks; ++task) kernels->local_task(call, &p, task, workspace);
    free(workspace);
}

static void run_conv(const lc_kernels *kernels, const lc_call *call, int vectors, ptrdiff_t tile_block, int wide) {
    const lc_geometry *g = call->geometry;
    lc_conv_plan p;
    memset(&p, 0, sizeof p);
    p.vectors = vectors;
    p.pack = 1;
    p.panel_parts = p.tile_parts = 3;
    p.tile_block = tile_block;
    lc_zone *zones = allocate(lc_count_zones(g) * (ptrdiff_t)sizeof(lc_zone));
    p.zones = zones;
    p.zone_count = lc_count_zones(g);
    p.tiles = lc_make_zones(g, kernels->rows_limit(vectors), zones);
    lc_finish_conv_plan(g, &p, kernels->lanes, kernels->rows_limit(vectors), wide ? 8 : 4);
    void *packed = allocate(p.packed_bytes), *workspace = allocate(p.workspace);
    for (ptrdiff_t task = 0; task < 2 * p.panels; ++task) kernels->conv_pack(call, &p, task, 2, packed);
    for (ptrdiff_t task = 0; task < p.panel_parts * p.tile_parts; ++task) kernels->conv_task(call, &p, task, packed, workspace);
    free(packed);
    free(workspace);
    free(zones);
}

/* One geometry on one set of kernels: all ways to run it. Returns the number of ways that went wrong. */
static int check(const lc_geometry *g, const lc_kernels *kernels, int wide, int bias_kind, int relu, long *ways) {
    int failures = 0;
    array x = make(g->batch * g->input_batch, wide), y = make(g->batch * g->positions * g->filters, wide);
    array bias = make(bias_kind == 2 ? g->positions * g->filters : g->filters, wide);
    for (int local = 0; local < 2; ++local) {
        array k = make((local ? g->positions : 1) * g->depth * g->filters, wide);
        for (int way = 0; way < (local ? (int)lc_local_strategy_count : 4); ++way) {
            lc_ran ran = {"", ""};
            lc_call call;
            memset(&call, 0, sizeof call);
            call.geometry = g;
            call.input = x.data;
            call.kernel = k.data;
            call.bias = bias_kind ? bias.data : NULL;
            call.output = y.data;
            call.bias_filter = 1;
            call.relu = relu;
            call.ran = &ran;
            const lc_layout at = lc_input_layout(g);
            const int full = local && bias_kind == 2;
            if (full) {
                call.bias_position = g->channels_first ? 1 : g->filters;
                call.bias_filter = g->channels_first ? g->positions : 1;
            }
            if (local && way == LC_LOCAL_DOT && (g->filters != 1 || lc_run_step(g, &at) != 1)) continue;
            for (ptrdiff_t i = 0; i < y.size; ++i) put(&y, i, NAN);
            if (local)
                run_local(kernels, &call, way, 1 + way, 1 + way % 2, wide);
            else
                run_conv(kernels, &call, 1 + way, 1 + way, wide);
            const int wrong = count_wrong(&call, local, full, &x, &k, bias_kind ? &bias : NULL, &y);
            const int other = strcmp(ran.isa, kernels->isa) != 0 || strcmp(ran.dtype, kernels->dtype) != 0;
            if (wrong || other)
                fprintf(stderr, "%s %s %s %s: %d wrong, ran %s %s: batch %td input %td %td %td channels %td filters %td groups %td kernel "
                        "%td %td %td strides %td %td %td dilation %td before %td %td first %d bias %d relu %d\n", kernels->isa, kernels->dtype,
                        local ? "local" : "conv", local ? lc_local_strategies[way] : "direct", wrong, ran.isa, ran.dtype, g->batch,
                        g->input[0], g->input[1], g->input[2], g->channels, g->filters, g->groups, g->kernel[0], g->kernel[1], g->kernel[2],
                        g->strides[0], g->strides[1], g->strides[2], g->dilation[2], g->before[1], g->before[2], g->channels_first, bias_kind,
                        relu);
            failures += wrong || other;
            ++*ways;
        }
        free(k.data);
    }
    free(x.data);
    free(y.data);
    free(bias.data);
    return failures;
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 60, features = lc_cpu_features();
    int failures = 0, sets = 0;
    long ways = 0;
    for (int round = 0; round < rounds; ++round) {
        const lc_geometry g = draw(round);
        for (int i = 0; i < lc_isa_count; ++i) {
            if ((lc_isas[i].needs & features) != lc_isas[i].needs) continue;
            for (int wide = 0; wide < 2; ++wide) {
                const lc_kernels *kernels = wide ? lc_isas[i].f64 : lc_isas[i].f32;
                failures += check(&g, kernels, wide, round % 3, round % 2, &ways);
                failures += check_gradients(&g, kernels, wide, &ways);
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
