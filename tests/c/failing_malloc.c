/* A malloc that fails for large requests on demand: loaded before Python's own (LD_PRELOAD), switched on through
 * ctypes.
 *
 * Only what is asked for while the limit is on fails; memory that was had before can be used and given back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static volatile size_t limit = (size_t)-1;
static volatile long refused = 0;

void refuse_over(size_t bytes) {
    limit = bytes;
    refused = 0;
}

long refused_requests(void) { return refused; }

static int refuse(size_t bytes) {
    if (bytes <= limit) return 0;
    ++refused;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t bytes) { return refuse(bytes) ? NULL : __libc_malloc(bytes); }
void *realloc(void *memory, size_t bytes) { return refuse(bytes) ? NULL : __libc_realloc(memory, bytes); }
void *calloc(size_t count, size_t bytes) { return refuse(count * bytes) ? NULL : __libc_calloc(count, bytes); }
