/* The element types, once: what has a name, a C type or a size by type follows from this list. */
#ifndef LOCALCONV_DTYPES_H
#define LOCALCONV_DTYPES_H

/* name, C type, NumPy's name, and what a user of the list wants in each row. */
#define LC_DTYPES(X, more)         \
    X(f32, float, "float32", more) \
    X(f64, double, "float64", more)

enum {
#define LC_ROW(name, real, numpy, more) LC_##name,
    LC_DTYPES(LC_ROW, )
#undef LC_ROW
        lc_dtype_count
};

#define LC_ROW(name, real, numpy, more) typedef real lc_real_##name;
LC_DTYPES(LC_ROW, )
#undef LC_ROW

typedef struct lc_dtype {
    const char *name, *numpy;
    int itemsize;
} lc_dtype;

static const lc_dtype lc_dtypes[] = {
#define LC_ROW(name, real, numpy, more) {#name, numpy, (int)sizeof(real)},
    LC_DTYPES(LC_ROW, )
#undef LC_ROW
};

/* The types in which a kernel may be stored while everything else is float32: name, bytes, NumPy's name, whether it has
 * scales that its values are multiplied by; and what a user of the list wants in each row. */
#define LC_STORED_TYPES(X, ...)            \
    X(f16, 2, "float16", 0, __VA_ARGS__)   \
    X(bf16, 2, "bfloat16", 0, __VA_ARGS__) \
    X(i8, 1, "int8", 1, __VA_ARGS__)

/* LC_native: stored in the element type itself. */
enum {
    LC_native,
#define LC_ROW(name, size, numpy, scaled, more) LC_##name,
    LC_STORED_TYPES(LC_ROW, )
#undef LC_ROW
        lc_storage_count
};

typedef struct lc_storage {
    const char *numpy;
    int itemsize, scaled;
} lc_storage;

static const lc_storage lc_storages[] = {{"", 0, 0},
#define LC_ROW(name, size, numpy, scaled, more) {numpy, size, scaled},
                                         LC_STORED_TYPES(LC_ROW, )
#undef LC_ROW
};

/* Whether an element type has kernels that are stored otherwise. */
#define LC_WIDENED_f32 1
#define LC_WIDENED_f64 0
#define LC_WIDENS      LC_JOIN2(LC_WIDENED, LC_DTYPE)

/* The list as far as the element type of an instance has such kernels. */
#define LC_STORES_OF_0(X, ...)
#define LC_STORES_OF_1(X, ...)     LC_STORED_TYPES(X, __VA_ARGS__)
#define LC_STORES_OF_(n, X, ...)   LC_STORES_OF_##n(X, __VA_ARGS__)
#define LC_STORES_OF(n, X, ...)    LC_STORES_OF_(n, X, __VA_ARGS__)
#define LC_INSTANCE_STORES(X, ...) LC_STORES_OF(LC_WIDENS, X, __VA_ARGS__)

#endif
