/* What the headers use of stdio.h, for a compiler that speaks Microsoft's dialect without Microsoft's library (make
 * cross). */
#pragma once
typedef struct file FILE;
FILE *standard_error(void);
#define stderr standard_error()
int fprintf(FILE *, const char *, ...);
