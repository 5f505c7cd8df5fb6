/* What the headers use of string.h, for a compiler that speaks Microsoft's dialect without Microsoft's library (make
 * cross). */
#pragma once
#include <stddef.h>
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t);
int strcmp(const char *, const char *);
