/* A job: one operation on one geometry, cut into tasks by an algorithm and its choices.
 *
 * The caller proposes an algorithm and choices; lc_make_job answers with the passes' tasks and the bytes that they
 * need, or refuses. A pass is so many tasks that any threads may take in any order; the passes follow each other. All
 * tasks of a call share `shared_bytes`, and each thread has `thread_bytes` of its own.
 */
#ifndef LOCALCONV_JOB_H
#define LOCALCONV_JOB_H

#include "dtypes.h"
#include "platform.h"
#include "view.h"

/* ---------------------------------------------------------------------------- families and operations */

/* The arrays of a convolution: a call brings those that its operation reads, and the one that it makes. `columns` are
 * some windows as rows. */
#define LC_ARRAYS(X) X(input) X(kernel) X(output) X(columns)

enum {
#define LC_ROW(name) LC_##name,
    LC_ARRAYS(LC_ROW)
#undef LC_ROW
        lc_array_count
};

static const char *const lc_arrays[] = {
#define LC_ROW(name) #name,
    LC_ARRAYS(LC_ROW)
#undef LC_ROW
};

/* Every family of operations, and whether each position has a kernel of its own there. */
#define LC_FAMILIES(X) \
    X(local, 1)        \
    X(conv, 0)         \
    X(windows, 0)      \
    X(filter, 1)

enum {
#define LC_ROW(name, unshared) LC_family_##name,
    LC_FAMILIES(LC_ROW)
#undef LC_ROW
};

typedef struct lc_family {
    const char *name;
    int unshared;
} lc_family;

static const lc_family lc_families[] = {
#define LC_ROW(name, unshared) {#name, unshared},
    LC_FAMILIES(LC_ROW)
#undef LC_ROW
};

/* Every operation: its name, its family, the two arrays that it reads, and the one that it makes. An output that is
 * read is the output's gradient; what is made of an output's is a gradient too. */
#define LC_OPERATIONS(X)                                 \
    X(local_forward, local, input, kernel, output)       \
    X(local_grad_kernel, local, input, output, kernel)   \
    X(local_grad_input, local, kernel, output, input)    \
    X(conv_forward, conv, input, kernel, output)         \
    X(conv_grad_kernel, conv, input, output, kernel)     \
    X(conv_grad_input, conv, kernel, output, input)      \
    X(im2col, windows, input, input, columns)            \
    X(col2im, windows, columns, columns, input)          \
    X(filter_forward, filter, input, kernel, output)     \
    X(filter_grad_kernel, filter, input, output, kernel) \
    X(filter_grad_input, filter, kernel, output, input)

enum {
#define LC_ROW(name, family, first, second, made) LC_of_##name,
    LC_OPERATIONS(LC_ROW)
#undef LC_ROW
        lc_operation_count
};

typedef struct lc_operation {
    const char *name;
    const lc_family *family;
    int reads[2], makes;
} lc_operation;

static const lc_operation lc_operations[] = {
#define LC_ROW(name, family, first, second, made) \
    {#name, lc_families + LC_family_##family, {LC_##first, LC_##second}, LC_##made},
    LC_OPERATIONS(LC_ROW)
#undef LC_ROW
};

/* ------------------------------------------------------------------------------------------ algorithms */

/* Every algorithm: its name, the operation it is for, how it is finished, and the tasks of its passes. */
#define LC_ALGORITHMS(X)                                                                            \
    X(local_dot, local_forward, local_forward, local_task, no_task)                                 \
    X(local_stream, local_forward, local_forward, local_task, no_task)                              \
    X(local_rows, local_forward, local_forward, local_task, no_task)                                \
    X(local_images, local_forward, local_forward, local_task, no_task)                              \
    X(local_kernel_direct, local_grad_kernel, local_grad_kernel, local_grad_kernel_task, no_task)   \
    X(local_kernel_buffered, local_grad_kernel, local_grad_kernel, local_grad_kernel_task, no_task) \
    X(local_input_direct, local_grad_input, local_grad_input, local_grad_input_task, no_task)       \
    X(local_input_buffered, local_grad_input, local_grad_input, local_grad_input_task, no_task)     \
    X(conv_direct, conv_forward, conv_forward, conv_pack, conv_tiles)                               \
    X(conv_lines, conv_forward, conv_lines, lines_pack, lines_block)                                \
    X(conv_winograd, conv_forward, conv_winograd, winograd_pack, winograd_squares)                  \
    X(conv_phases, conv_grad_input, conv_forward, conv_pack, conv_tiles)                            \
    X(conv_narrow, conv_grad_input, conv_narrow, narrow_pack, narrow_lines)                         \
    X(conv_reduction, conv_grad_kernel, conv_reduction, reduce_part, sum_parts)                     \
    X(im2col, im2col, columns, gather_windows, no_task)                                             \
    X(col2im, col2im, columns, scatter_windows, no_task)                                            \
    X(filter_channels, filter_forward, filter_channels, filter_channels, no_task)                   \
    X(filter_input_channels, filter_grad_input, filter_channels, filter_channels, no_task)          \
    X(filter_positions, filter_forward, filter_positions, filter_positions, no_task)                \
    X(filter_input_positions, filter_grad_input, filter_positions, filter_positions, no_task)       \
    X(filter_dots, filter_grad_kernel, filter_dots, filter_dots, no_task)                           \
    X(filter_kernel_positions, filter_grad_kernel, filter_positions, correlate_filters, no_task)

enum {
#define LC_ROW(name, operation, finish, first, second) LC_##name,
    LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
        lc_algorithm_count
};

typedef struct lc_algorithm {
    const char *name;
    const lc_operation *operation;
} lc_algorithm;

static const lc_algorithm lc_algorithms[] = {
#define LC_ROW(name, operation, finish, first, second) {#name, lc_operations + LC_of_##operation},
    LC_ALGORITHMS(LC_ROW)
#undef LC_ROW
};

/* --------------------------------------------------------------------------------------------- choices */

/* What a caller may choose. An algorithm uses some of these; 0 stands for those that it does not use. */
#define LC_CHOICES(X)                                                                                                 \
    X(vectors, vectors)               /* width of a register tile, in vectors: 1 to 4 */                              \
    X(block, block[3])                /* what a task owns along the axes: output positions, or input pixels */        \
    X(batch_tile, batch_tile)         /* images of one register tile */                                               \
    X(batch_chunk, batch_chunk)       /* images that are brought into the workspace together */                       \
    X(piece, piece)                   /* steps of a window that all tiles sum before the next ones; 0: all */         \
    X(rows_ahead, rows_ahead)         /* of a kernel's gradient, whose lines are asked for before they are written */ \
    X(segment, segment)               /* positions whose output gradients are brought there together */               \
    X(filter_parts, filter_parts)     /* tasks that share a block, each with its part of the filters */               \
    X(tasks, tasks)                   /* into how many the whole is cut, about */                                     \
    X(zone_limit, zone_limit)         /* zones beyond which the algorithm refuses the geometry */                     \
    X(panel_bytes, panel_bytes)       /* bytes of the packed kernel that one task goes through */                     \
    X(tile_block, tile_block)         /* register tiles that meet all panels of a task before the next ones do */     \
    X(position_parts, position_parts) /* partial gradients */                                                         \
    X(panel_parts, panel_parts)       /* slices of the kernel by filters */                                           \
    X(row_parts, row_parts)           /* slices of the kernel by rows */

typedef struct lc_choices {
#define LC_ROW(name, declarator) ptrdiff_t declarator;
    LC_CHOICES(LC_ROW)
#undef LC_ROW
} lc_choices;

/* Each choice by its name: how many numbers it is, and where the first one lies. */
typedef struct lc_choice {
    const char *name;
    size_t count, offset;
} lc_choice;

static const lc_choice lc_choice_table[] = {
#define LC_ROW(name, declarator) \
    {#name, sizeof(((lc_choices *)0)->name) / sizeof(ptrdiff_t), offsetof(lc_choices, name)},
    LC_CHOICES(LC_ROW)
#undef LC_ROW
};
enum { lc_choice_count = (int)(sizeof lc_choice_table / sizeof lc_choice_table[0]) };

/* ----------------------------------------------------------------------------------------------- calls */

/* Which kernels ran: written by the first task of a call, from inside its own instance. */
typedef struct lc_ran {
    const char *isa, *dtype;
} lc_ran;

/* One call: the arrays and what happens to a finished sum. gradient: for the output. An operation leaves out the arrays
 * that it does not need, and the one of them that it makes: that is `result`. */
typedef struct lc_call {
    const void *input, *kernel, *gradient, *bias; /* bias may be NULL */
    const float *scales;                          /* of an int8 kernel: one for each filter, at each position or tap */
    const void *weights;                          /* of a bank's filters, which are `kernel` then (lc_bank) */
    const int32_t *indices;
    void *result;
    int accumulate; /* add to what the result holds (kernel gradients) */
    int relu;
    ptrdiff_t bias_position, bias_filter; /* elements from one position's, one filter's bias to the next */
    ptrdiff_t first, count;               /* im2col, col2im: which windows */
    const char *packed;                   /* NULL, or what the first pass has made of the kernel before */
    lc_ran *ran;
} lc_call;

/* ------------------------------------------------------------------------------------------------ jobs */

/* Register tiles of lanes that have a row operand each: their width in vectors, and their rows. */
enum { LC_CHANNEL_LANES_VECTORS = 2, LC_CHANNEL_LANES_ROWS = 4 };

/* A kernel that is not there: position p's is the sum over `terms` m of weights[p][m] times filter indices[p][m], one
 * of `filters` kernels of a position. Not indexed: of filter m. Not weighted: it is a filter itself, and of one term.
 * 0 filters: the kernel is there. */
typedef struct lc_bank {
    ptrdiff_t filters, terms;
    int indexed, weighted;
} lc_bank;

typedef struct lc_job lc_job;
struct lc_tile;
typedef void lc_task(const lc_job *job, const lc_call *call, ptrdiff_t task, char *shared, char *workspace);

enum { LC_PASSES = 2, LC_TILE_VECTORS = 4, LC_DOT_ROWS = 4 };

/* One instance of every kernel: what is compiled for one element type and instruction set. */
typedef struct lc_kernels {
    const char *isa, *dtype;
    int lanes, itemsize;
    int rows[LC_TILE_VECTORS + 1]; /* of the largest register tile of each width */
    lc_task *passes[lc_algorithm_count][LC_PASSES];
    void (*tile)(const struct lc_tile *t, int rows, int vectors, int storage); /* any register tile: for tests */
} lc_kernels;

struct lc_job {
    lc_geometry geometry;
    lc_choices choices;
    const lc_kernels *kernels;
    int algorithm, storage;     /* storage: how the caller's kernel is stored (dtypes.h) */
    lc_bank bank;               /* of locally connected convolutions, forward and for the input */
    ptrdiff_t tasks[LC_PASSES]; /* 0: there is no such pass */
    ptrdiff_t shared_bytes, thread_bytes;
    ptrdiff_t list_bytes; /* of a thread's: the lists of runs and strips of a window, which no choice makes shorter */
    ptrdiff_t box_bytes;  /* of a thread's: the box of pixels that a task brings together */
    void *memory;         /* what the plan points to */
    ptrdiff_t memory_bytes;
    ptrdiff_t plan[24]; /* what the algorithm has derived, a struct of its own */
};

/* An algorithm's own part of a job. */
#define LC_PLAN(type, job)       ((type *)(job)->plan)
#define LC_CONST_PLAN(type, job) ((const type *)(job)->plan)
#define LC_PLAN_FITS(type)       typedef char type##_fits[sizeof(type) <= sizeof(((lc_job *)0)->plan) ? 1 : -1]

enum { LC_OK, LC_NO_MEMORY, LC_REFUSED };

/* Bytes that one workspace may ask for: few enough to be multiplied by all the threads of a machine, of which one of 32
 * bits has one here; and with 64 bits more than any machine has. */
#define LC_MOST_BYTES (PTRDIFF_MAX >> (sizeof(ptrdiff_t) > 4 ? 13 : 2))

/* Bytes of an element of the caller's kernel. */
LC_INLINE ptrdiff_t lc_kernel_size(const lc_job *job) {
    return job->storage == LC_native ? job->kernels->itemsize : lc_storages[job->storage].itemsize;
}

/* Elements of the kernel, or of a bank's filters. */
LC_INLINE ptrdiff_t lc_kernel_elements(const lc_job *job) {
    const lc_geometry *g = &job->geometry;
    if (job->bank.filters) return job->bank.filters * g->window * g->filters;
    if (g->by_group) return g->kernel_batch * g->positions * g->groups * g->taps;
    return (lc_algorithms[job->algorithm].operation->family->unshared ? g->positions : 1) * g->window * g->filters;
}

/* Elements of one of the arrays that a call must bring. */
LC_INLINE ptrdiff_t lc_elements(const lc_job *job, const lc_call *call, int array) {
    const lc_geometry *g = &job->geometry;
    switch (array) {
        case LC_input: return g->batch * g->x.image;
        case LC_output: return g->batch * g->y.image;
        case LC_columns: return call->count * g->window;
        default: return lc_kernel_elements(job);
    }
}

/* The scales of an int8 kernel: one for each filter, at each position or tap. */
LC_INLINE ptrdiff_t lc_scale_count(const lc_job *job) {
    const lc_geometry *g = &job->geometry;
    return (lc_algorithms[job->algorithm].operation->family->unshared ? g->positions : g->taps) * g->filters;
}

/* Whether an operation reads an array. */
LC_INLINE int lc_reads(const lc_job *job, int array) {
    const lc_operation *operation = lc_algorithms[job->algorithm].operation;
    return operation->reads[0] == array || operation->reads[1] == array;
}

/* One of the filters that a position sums. Whatever an index has become since it was checked, it is that of a filter.
 */
LC_INLINE ptrdiff_t lc_filter_of(const lc_job *job, const lc_call *call, ptrdiff_t position, ptrdiff_t term) {
    if (!job->bank.indexed) return term;
    return lc_max(0, lc_min(call->indices[position * job->bank.terms + term], job->bank.filters - 1));
}

/* Whether a position's kernel is a sum of filters, which must be made. */
LC_INLINE int lc_is_summed(const lc_job *job) { return job->bank.weighted; }

/* The kernel of one position of a locally connected convolution; one that is a sum has none before it is made: the
 * first filter. */
LC_INLINE const char *lc_kernel_of(const lc_job *job, const lc_call *call, ptrdiff_t position) {
    const lc_geometry *g = &job->geometry;
    if (job->bank.filters) position = lc_is_summed(job) ? 0 : lc_filter_of(job, call, position, 0);
    return (const char *)call->kernel + position * g->window * g->filters * lc_kernel_size(job);
}

/* Bytes of one position's kernel that leave room in a first-level cache, of 32 KiB or more, for the next one's. */
enum { LC_NEAR_BYTES = 24 << 10 };

/* Whether the next position's kernel is too far away to be brought into the first-level cache. */
LC_INLINE int lc_next_is_far(const lc_job *job) {
    return job->geometry.window * job->geometry.filters * lc_kernel_size(job) > LC_NEAR_BYTES;
}

/* An int8 kernel's scales from one on; NULL: it has none. */
LC_INLINE const float *lc_scales_from(const lc_call *call, ptrdiff_t first) {
    return call->scales ? call->scales + first : NULL;
}

/* Width of a register tile in lanes. */
LC_INLINE ptrdiff_t lc_tile_lanes(const lc_job *job) { return job->choices.vectors * job->kernels->lanes; }

/* Whether a register tile can be so wide. */
LC_INLINE int lc_vectors_fit(const lc_job *job) {
    const ptrdiff_t most = job->geometry.channel_lanes ? LC_CHANNEL_LANES_VECTORS : LC_TILE_VECTORS;
    return job->choices.vectors >= 1 && job->choices.vectors <= most;
}

/* Rows of the largest register tile of a width. */
LC_INLINE ptrdiff_t lc_rows(const lc_job *job, ptrdiff_t vectors) {
    return job->geometry.channel_lanes ? LC_CHANNEL_LANES_ROWS : job->kernels->rows[vectors];
}

/* Whether an algorithm's tiles can have channel lanes; the others go group by group. */
LC_INLINE int lc_can_have_channel_lanes(int algorithm) {
    switch (algorithm) {
        case LC_local_stream:
        case LC_local_kernel_direct:
        case LC_local_kernel_buffered:
        case LC_local_input_direct:
        case LC_conv_direct:
        case LC_conv_phases:
        case LC_conv_reduction: return 1;
        default: return 0;
    }
}

/* Whether all that the first pass does is to pack the kernel into what the tasks share, with no workspace of a
 * thread's: then a caller may keep it. */
LC_INLINE int lc_packs_kernel(const lc_job *job) {
    return (job->algorithm == LC_conv_direct || job->algorithm == LC_conv_winograd) && job->tasks[0] > 0;
}

/* Whether the choice of a block makes sense for what is cut. */
LC_INLINE int lc_block_fits(const lc_job *job, const ptrdiff_t size[3]) {
    for (int axis = 0; axis < 3; ++axis)
        if (job->choices.block[axis] < 1 || job->choices.block[axis] > lc_max(1, size[axis])) return 0;
    return 1;
}

#endif
