/* A call frame of XLA, read: what the call is, as a key of numbers, and where its arrays lie. */
#ifndef LOCALCONV_XLA_FRAME_H
#define LOCALCONV_XLA_FRAME_H

#include <stdio.h>
#include <string.h>

#include "../job.h"
#include "api.h"

/* Two operands and the result, each with a leading axis of examples and of images, three spatial ones and channels. */
enum { LC_XLA_ARRAYS = 3, LC_XLA_AXES = 6 };
/* Numbers of the one attribute: at most rank, 5 * rank of sizes, groups, layout (jax/window.py), for rank 3. */
enum { LC_XLA_NUMBERS = 1 + 5 * 3 + 2 };
/* Element types of a call, as keys and platforms.py number them: of everything, or of the kernel alone while all else
 * is float32. */
enum { LC_XLA_SINGLE, LC_XLA_DOUBLE, LC_XLA_F16_KERNEL, LC_XLA_BF16_KERNEL };
enum { LC_XLA_WORDS = 4 + 1 + LC_XLA_NUMBERS + LC_XLA_ARRAYS * (1 + LC_XLA_AXES) };

/* The operations that have handlers, by their names in LC_OPERATIONS. */
#define LC_XLA_HANDLED(X) \
    X(local_forward)      \
    X(local_grad_input)   \
    X(local_grad_kernel)  \
    X(filter_forward)     \
    X(filter_grad_input)  \
    X(filter_grad_kernel)

enum {
#define LC_ROW(name) LC_XLA_##name,
    LC_XLA_HANDLED(LC_ROW)
#undef LC_ROW
        LC_XLA_OPERATIONS
};

static const int lc_xla_operations[] = {
#define LC_ROW(name) LC_of_##name,
    LC_XLA_HANDLED(LC_ROW)
#undef LC_ROW
};

/* The operation of a number in a key. */
static inline const lc_operation *lc_xla_operation(int64_t number) { return lc_operations + lc_xla_operations[number]; }

static inline const char *lc_xla_operation_name(int64_t number) { return lc_xla_operation(number)->name; }

/* Everything that a plan depends on, in the order: operation, element type, settings, threads; how many numbers the
 * attribute has, and these; the rank of each array, and its sizes. */
typedef struct lc_xla_key {
    int64_t length;
    int64_t words[LC_XLA_WORDS];
} lc_xla_key;

typedef struct lc_xla_request {
    lc_xla_key key;
    void *data[LC_XLA_ARRAYS];
} lc_xla_request;

static inline lc_xla_error *lc_xla_error_of(const lc_xla_frame *frame, int code, const char *message) {
    lc_xla_error_args args = {sizeof args, NULL, message, code};
    return frame->api->error_create(&args);
}

/* Whether this call only asks what the handler is; then it is answered. */
static inline int lc_xla_introduced(const lc_xla_frame *frame, int major, int minor) {
    for (lc_xla_extension *e = frame->extension_start; e; e = e->next) {
        if (e->type != LC_XLA_EXTENSION_METADATA) continue;
        lc_xla_metadata *metadata = ((lc_xla_metadata_extension *)e)->metadata;
        metadata->api_version.major_version = major;
        metadata->api_version.minor_version = minor;
        metadata->traits = 0;
        return 1;
    }
    return 0;
}

static inline void lc_xla_append(lc_xla_key *key, int64_t count, const int64_t *words) {
    key->words[key->length++] = count;
    if (count) memcpy(key->words + key->length, words, (size_t)count * sizeof *words);
    key->length += count;
}

/* Bytes of an element of array number i of a call. */
static inline size_t lc_xla_itemsize(const lc_xla_key *key, int i) {
    const int is_kernel = i < 2 && lc_xla_operation(key->words[0])->reads[i] == LC_kernel;
    if (key->words[1] == LC_XLA_DOUBLE) return sizeof(double);
    return is_kernel && key->words[1] != LC_XLA_SINGLE ? 2 : sizeof(float);
}

/* Takes note of a kernel of 16 bits; returns whether the buffer is one. */
static inline int lc_xla_reads_half(const lc_xla_buffer *buffer, int number, lc_xla_key *key) {
    const int64_t type = buffer->dtype == LC_XLA_F16    ? LC_XLA_F16_KERNEL
                         : buffer->dtype == LC_XLA_BF16 ? LC_XLA_BF16_KERNEL
                                                        : LC_XLA_SINGLE;
    if (type == LC_XLA_SINGLE || key->words[1] == LC_XLA_DOUBLE) return 0;
    key->words[1] = type;
    return lc_xla_itemsize(key, number) == 2;
}

/* Adds an array to a request: NULL, or what is wrong. */
static inline const char *lc_xla_read_buffer(int kind, const void *argument, int number, lc_xla_request *request) {
    const lc_xla_buffer *buffer = (const lc_xla_buffer *)argument;
    const int type = request->key.words[1] == LC_XLA_DOUBLE ? LC_XLA_F64 : LC_XLA_F32;
    if (kind != LC_XLA_BUFFER) return "operands and the result must be buffers";
    if (buffer->rank < 0 || buffer->rank > LC_XLA_AXES) return "operands and the result must have at most 6 axes";
    if (buffer->dtype != type && !lc_xla_reads_half(buffer, number, &request->key))
        return "operands and the result must all be float32, but for a kernel of 16 bits, or all be float64";
    lc_xla_append(&request->key, buffer->rank, buffer->dims);
    request->data[number] = buffer->data;
    return NULL;
}

/* Reads a call of an operation: NULL, or what is wrong. The key's words of settings and threads are the caller's. */
static inline const char *lc_xla_read(const lc_xla_frame *frame, int operation, lc_xla_request *request) {
    lc_xla_key *key = &request->key;
    if (frame->stage != LC_XLA_EXECUTE) return "only the stage of execution has a handler";
    if (frame->args.size != 2 || frame->rets.size != 1) return "there must be two operands and one result";
    if (frame->attrs.size != 1 || frame->attrs.types[0] != LC_XLA_ARRAY) return "there must be one attribute, an array";
    const lc_xla_array *numbers = (const lc_xla_array *)frame->attrs.attrs[0];
    if (numbers->dtype != LC_XLA_S64 || numbers->size > LC_XLA_NUMBERS) return "the attribute must be at most 18 int64";
    key->words[0] = operation;
    key->words[1] = ((const lc_xla_buffer *)frame->rets.rets[0])->dtype == LC_XLA_F64 ? LC_XLA_DOUBLE : LC_XLA_SINGLE;
    key->length = 4;
    lc_xla_append(key, (int64_t)numbers->size, (const int64_t *)numbers->data);
    const char *wrong = NULL;
    for (int i = 0; i < 2 && !wrong; ++i)
        wrong = lc_xla_read_buffer(frame->args.types[i], frame->args.args[i], i, request);
    if (!wrong) wrong = lc_xla_read_buffer(frame->rets.types[0], frame->rets.rets[0], 2, request);
    return wrong;
}

#endif
