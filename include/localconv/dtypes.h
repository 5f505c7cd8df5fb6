/* The element types, once: what has a name, a C type or a size by type follows from this list. */
#ifndef LOCALCONV_DTYPES_H
#define LOCALCONV_DTYPES_H

/* name, C type, NumPy's name; a header that instances are made of includes instance.h for each (instances.h). */
#define LC_DTYPES(X)         \
    X(f32, float, "float32") \
    X(f64, double, "float64")

enum {
#define LC_ROW(name, real, numpy) LC_##name,
    LC_DTYPES(LC_ROW)
#undef LC_ROW
        lc_dtype_count
};

#define LC_ROW(name, real, numpy) typedef real lc_real_##name;
LC_DTYPES(LC_ROW)
#undef LC_ROW

typedef struct lc_dtype {
    const char *name, *numpy;
    int itemsize;
} lc_dtype;

static const lc_dtype lc_dtypes[] = {
#define LC_ROW(name, real, numpy) {#name, numpy, (int)sizeof(real)},
    LC_DTYPES(LC_ROW)
#undef LC_ROW
};

#endif
