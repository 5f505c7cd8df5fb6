/* What the headers use of stdlib.h, for a compiler that speaks Microsoft's dialect without Microsoft's library (make
 * cross). */
#pragma once
#include <stddef.h>
void abort(void);
void *calloc(size_t, size_t);
void free(void *);
void *malloc(size_t);
void *realloc(void *, size_t);
