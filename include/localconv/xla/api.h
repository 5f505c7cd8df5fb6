/* The part of XLA's FFI C API (xla/ffi/api/c_api.h) that a handler on the host needs, declared anew, so that no jaxlib
 * is needed to build it and any jaxlib loads it.
 *
 * XLA keeps these structs compatible: members are only added behind the ones that there are, and `struct_size` says how
 * many bytes of a struct the other side knows. tests/bridges/jax/test_abi.py compares every member with the header of
 * the jaxlib that is installed.
 */
#ifndef LOCALCONV_XLA_API_H
#define LOCALCONV_XLA_API_H

#include <stddef.h>
#include <stdint.h>

/* The version that handlers ask for. A runtime takes any of its own major version that is not newer than itself; this
 * is the first one that had an extension for metadata, which all that is used here is older than. */
enum { LC_XLA_MAJOR = 0, LC_XLA_MINOR = 1 };

enum { LC_XLA_EXTENSION_METADATA = 1 };
enum { LC_XLA_S64 = 5, LC_XLA_F16 = 10, LC_XLA_F32 = 11, LC_XLA_F64 = 12, LC_XLA_BF16 = 16 };
enum { LC_XLA_BUFFER = 1, LC_XLA_ARRAY = 1 }; /* kinds of arguments and results; of attributes */
enum { LC_XLA_EXECUTE = 3 };                  /* the stage */
enum { LC_XLA_INVALID_ARGUMENT = 3, LC_XLA_RESOURCE_EXHAUSTED = 8, LC_XLA_INTERNAL = 13 };

typedef struct lc_xla_error lc_xla_error; /* XLA's own; NULL: no error */

typedef struct lc_xla_extension {
    size_t struct_size;
    int type;
    struct lc_xla_extension *next;
} lc_xla_extension;

typedef struct lc_xla_version {
    size_t struct_size;
    lc_xla_extension *extension_start;
    int major_version, minor_version;
} lc_xla_version;

typedef struct lc_xla_metadata {
    size_t struct_size;
    lc_xla_version api_version;
    uint32_t traits;
} lc_xla_metadata;

typedef struct lc_xla_metadata_extension {
    lc_xla_extension extension_base;
    lc_xla_metadata *metadata;
} lc_xla_metadata_extension;

typedef struct lc_xla_buffer {
    size_t struct_size;
    lc_xla_extension *extension_start;
    int dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
} lc_xla_buffer;

typedef struct lc_xla_args {
    size_t struct_size;
    lc_xla_extension *extension_start;
    int64_t size;
    int *types;
    void **args;
} lc_xla_args;

typedef struct lc_xla_rets {
    size_t struct_size;
    lc_xla_extension *extension_start;
    int64_t size;
    int *types;
    void **rets;
} lc_xla_rets;

typedef struct lc_xla_array {
    int dtype;
    size_t size;
    void *data;
} lc_xla_array;

typedef struct lc_xla_attrs {
    size_t struct_size;
    lc_xla_extension *extension_start;
    int64_t size;
    int *types;
    void **names;
    void **attrs;
} lc_xla_attrs;

typedef struct lc_xla_error_args {
    size_t struct_size;
    lc_xla_extension *extension_start;
    const char *message;
    int errc;
} lc_xla_error_args;

typedef struct lc_xla_api {
    size_t struct_size;
    lc_xla_extension *extension_start;
    lc_xla_version api_version;
    const void *internal_api;
    lc_xla_error *(*error_create)(lc_xla_error_args *);
} lc_xla_api;

typedef struct lc_xla_frame {
    size_t struct_size;
    lc_xla_extension *extension_start;
    const lc_xla_api *api;
    void *ctx;
    int stage;
    lc_xla_args args;
    lc_xla_rets rets;
    lc_xla_attrs attrs;
} lc_xla_frame;

#endif
