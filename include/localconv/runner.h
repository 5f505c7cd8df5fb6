/* What the compiled floor lends to a bridge that is compiled apart from it: a bridge must not compile the kernels
 * again, and must share their settings. _core.pyx fills one in and hands it over in a capsule of the name below. None
 * of these functions needs the GIL. */
#ifndef LOCALCONV_RUNNER_H
#define LOCALCONV_RUNNER_H

#include <stdint.h>

#include "job.h"

/* Bytes of the plans that each cache keeps, the engine's and a bridge's own; a plan of more than one of so many parts
 * of these would push out too many others, and is not kept. */
enum { LC_KEPT_BYTES = 32 << 20, LC_KEPT_PARTS = 4 };

#define LC_RUNNER_CAPSULE "localconv._core.runner"

typedef struct lc_runner {
    /* Threads that a large call would use now; -1: the environment asks for what is no number of threads. */
    int (*threads)(void);
    /* The number of the settings in force (settings.py). */
    int64_t (*settings)(void);
    /* Runs a call of a `Job`, a Python object that the caller keeps alive: LC_OK or LC_NO_MEMORY. */
    int (*run)(void *job, lc_call *call);
} lc_runner;

#endif
