/* The headers alone, without a C library: for compilers that have none here (make cross). */
#include "localconv/kernels.h"

const lc_isa *localconv_isas(int *count);

const lc_isa *localconv_isas(int *count) {
    *count = lc_isa_count;
    return lc_isas;
}
