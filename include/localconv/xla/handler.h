/* The handler of a custom call: finds the plan of a call, has one made where there is none yet, and runs it. */
#ifndef LOCALCONV_XLA_HANDLER_H
#define LOCALCONV_XLA_HANDLER_H

#include "../runner.h"
#include "plans.h"

typedef struct lc_xla_handler {
    const lc_runner *runner;
    /* Makes the plan of a key and keeps it in the table if it can: NULL, or an error. The plan's job is the caller's,
     * to be given back to `drop`. Both take the GIL. */
    lc_xla_error *(*make)(const lc_xla_frame *frame, const lc_xla_key *key, lc_xla_plan *plan);
    void (*drop)(void *job);
    int major, minor; /* of the API, as announced */
    int64_t makers;   /* who is in `make`, or between it and `drop`; -1: nobody may any more, the process is ending */
    lc_xla_table table;
} lc_xla_handler;

static lc_xla_handler lc_xla;

/* Elements of array number i. */
static inline int64_t lc_xla_elements(const lc_xla_key *key, int i) {
    const int64_t *words = key->words + 4;
    int64_t n = 1;
    words += 1 + words[0];
    for (; i > 0; --i) words += 1 + words[0];
    for (int64_t axis = 1; axis <= words[0]; ++axis) n *= words[axis];
    return n;
}

/* Where the arrays of a request belong in a call, for one example. */
static inline lc_call lc_xla_call_of(const lc_xla_request *request, const lc_xla_plan *plan, int64_t example) {
    char *at[LC_XLA_ARRAYS];
    for (int i = 0; i < LC_XLA_ARRAYS; ++i)
        at[i] = (char *)request->data[i] + (size_t)(example * plan->step[i]) * lc_xla_itemsize(&request->key, i);
    lc_call call;
    memset(&call, 0, sizeof call);
    call.bias_filter = 1;
    call.result = at[2];
    for (int i = 0; i < 2; ++i) {
        switch (lc_xla_operation(request->key.words[0])->reads[i]) {
            case LC_input: call.input = at[i]; break;
            case LC_kernel: call.kernel = at[i]; break;
            default: call.gradient = at[i];
        }
    }
    return call;
}

static inline lc_xla_error *lc_xla_run(const lc_xla_frame *frame, const lc_xla_request *request,
                                       const lc_xla_plan *plan) {
    if (!plan->job) {
        const int64_t n = lc_xla_elements(&request->key, 2);
        if (n) memset(request->data[2], 0, (size_t)n * lc_xla_itemsize(&request->key, 2));
        return NULL;
    }
    for (int64_t example = 0; example < plan->examples; ++example) {
        lc_call call = lc_xla_call_of(request, plan, example);
        if (lc_xla.runner->run(plan->job, &call) != LC_OK) {
            char message[96];
            snprintf(message, sizeof message, "localconv: no memory for the workspace of %s",
                     lc_xla_operation_name(request->key.words[0]));
            return lc_xla_error_of(frame, LC_XLA_RESOURCE_EXHAUSTED, message);
        }
    }
    return NULL;
}

/* Runs a call that has no plan yet. */
static inline lc_xla_error *lc_xla_run_new(const lc_xla_frame *frame, const lc_xla_request *request) {
    lc_xla_plan plan = {NULL, -1, {0}, 0};
    lc_xla_error *error = lc_xla.make(frame, &request->key, &plan);
    if (error) return error;
    if (plan.examples < 0) return lc_xla_error_of(frame, LC_XLA_INTERNAL, "localconv: no plan, and no error either");
    error = lc_xla_run(frame, request, &plan);
    lc_xla.drop(plan.job);
    return error;
}

static inline lc_xla_error *lc_xla_handle(const lc_xla_frame *frame, int operation) {
    lc_xla_request request;
    if (lc_xla_introduced(frame, lc_xla.major, lc_xla.minor)) return NULL;
    const char *wrong = lc_xla_read(frame, operation, &request);
    if (wrong) {
        char message[160];
        snprintf(message, sizeof message, "localconv: not a call that localconv.jax makes: %s", wrong);
        return lc_xla_error_of(frame, LC_XLA_INVALID_ARGUMENT, message);
    }
    request.key.words[2] = lc_xla.runner->settings();
    request.key.words[3] = lc_xla.runner->threads();
    lc_xla_slot *slot = lc_xla_find(&lc_xla.table, &request.key);
    if (slot) {
        lc_xla_error *error = lc_xla_run(frame, &request, &slot->plan);
        lc_xla_release(&slot->users);
        return error;
    }
    if (!lc_xla_hold(&lc_xla.makers)) {
        return lc_xla_error_of(frame, LC_XLA_INTERNAL, "localconv: the process is ending, no plan can be made");
    }
    lc_xla_error *error = lc_xla_run_new(frame, &request);
    lc_xla_release(&lc_xla.makers);
    return error;
}

#define LC_ROW(name) \
    static lc_xla_error *lc_xla_handle_##name(lc_xla_frame *frame) { return lc_xla_handle(frame, LC_XLA_##name); }
LC_XLA_HANDLED(LC_ROW)
#undef LC_ROW

typedef lc_xla_error *lc_xla_entry(lc_xla_frame *frame);

/* The handlers, in the order of the numbers in a key. */
static lc_xla_entry *const lc_xla_entries[] = {
#define LC_ROW(name) lc_xla_handle_##name,
    LC_XLA_HANDLED(LC_ROW)
#undef LC_ROW
};

#endif
