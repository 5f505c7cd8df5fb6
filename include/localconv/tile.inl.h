/* The bodies of tile.h, once for each instance. */
#ifndef LC_INSTANCE
#include "editor.h"
#endif

LC_INLINE void sign(lc_ran *ran) {
    ran->isa = LC_STRING(LC_ISA);
    ran->dtype = LC_STRING(LC_DTYPE);
}

/* Bytes of an element that is stored so. */
LC_INLINE int stored_size(const int storage) {
    switch (storage) {
#define LC_ROW(name, size, numpy, scaled, more) \
    case LC_##name: return size;
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
        default: return (int)sizeof(LC_REAL);
    }
}

/* Whether what is stored so is multiplied by scales. */
LC_INLINE int has_scales(const int storage) {
    switch (storage) {
#define LC_ROW(name, size, numpy, scaled, more) \
    case LC_##name: return scaled;
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
        default: return 0;
    }
}

/* LANES elements of a kernel that is stored so. */
LC_INLINE LC_VEC load_stored(const char *p, const int storage) {
    switch (storage) {
#define LC_ROW(name, size, numpy, scaled, more) \
    case LC_##name: return LC_NAME(load_##name)(p);
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
        default: return v_load((const LC_REAL *)p);
    }
}

/* The first `n` of them, `mask` being their mask; 0 elsewhere. */
LC_INLINE LC_VEC load_stored_first(const char *p, ptrdiff_t n, LC_MASK mask, const int storage) {
    (void)n;
    switch (storage) {
#define LC_ROW(name, size, numpy, scaled, more) \
    case LC_##name: return LC_NAME(load_first_##name)(p, n);
        LC_INSTANCE_STORES(LC_ROW, )
#undef LC_ROW
        default: return v_load_first((const LC_REAL *)p, mask);
    }
}

/* What a kernel that is stored so stands for. */
LC_INLINE LC_VEC scaled(LC_VEC v, LC_VEC scale, const int storage) { return has_scales(storage) ? v_mul(v, scale) : v; }

/* Cache lines that one step of a tile V vectors wide consumes. */
#define LC_STEP_LINES(V, size) (((V) * LC_LANES * (size) + 63) / 64)

/* What row r's element multiplies vector v with. */
LC_INLINE LC_VEC row_operand(const char *row, int v, LC_MASK last, const int whole, const int channel_lanes) {
    const LC_REAL *lanes = (const LC_REAL *)row + v * LC_LANES;
    if (!channel_lanes) return v_splat((const LC_REAL *)row);
    return whole ? v_load(lanes) : v_load_first(lanes, last);
}

/* What vector v of row r of a tile's result holds. */
LC_INLINE LC_VEC held(const lc_tile *t, int r, int v, const int whole, LC_MASK last) {
    const LC_REAL *lanes = (const LC_REAL *)t->out + r * t->out_stride + v * LC_LANES;
    return whole ? v_load(lanes) : v_load_first(lanes, last);
}

LC_INLINE void tile_body(const lc_tile *t, const int R, const int V, const int unit, const int whole, const int storage,
                         const int channel_lanes, const int prefetching) {
    LC_VEC acc[LC_TILE_ROWS][LC_TILE_VECTORS];
    const int size = stored_size(storage), with_scales = has_scales(storage);
    const ptrdiff_t in_last = t->lane_count - (V - 1) * LC_LANES;
    const LC_MASK last = v_first(in_last);
    const ptrdiff_t stride = (unit ? 1 : t->row_stride) * (ptrdiff_t)sizeof(LC_REAL), stride3 = 3 * stride;
    const ptrdiff_t row_step = t->row_step * (ptrdiff_t)sizeof(LC_REAL), vector_step = t->vector_step * size;
    const char *ahead = t->prefetch ? t->prefetch : (const char *)t->vector; /* a line that is there already */
    const int lines = unit ? 1 : LC_STEP_LINES(V, size);
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = v_zero();
    }
    if (t->init_from_out) {
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            LC_UNROLL
            for (int v = 0; v < V; ++v) acc[r][v] = held(t, r, v, whole || v < V - 1, last);
        }
    }
    LC_VEC scale[LC_TILE_VECTORS];
    LC_UNROLL
    for (int v = 0; with_scales && v < V; ++v) {
        const LC_REAL *scales = (const LC_REAL *)t->scales + v * LC_LANES;
        scale[v] = whole || v < V - 1 ? v_load(scales) : v_load_first(scales, last);
    }
    for (ptrdiff_t k = 0; k < t->run_count; ++k) {
        /* Rows 5g .. 5g+4 are group g's pointer plus 0, 1, 2, 4 strides (scaled index) or 3 (its own register). */
        const char *group[(LC_TILE_ROWS + 4) / 5];
        group[0] = (const char *)((const LC_REAL *)t->row_data + (t->row_base + t->runs[k].row));
        LC_UNROLL
        for (int g = 1; g <= (R - 1) / 5; ++g) {
            group[g] = group[g - 1] + 5 * stride;
            if (!unit) LC_OPAQUE(group[g]);
        }
        const char *vector = (const char *)t->vector + (t->vector_base + t->runs[k].vector) * size;
        LC_UNROLL_TWICE
        for (ptrdiff_t i = t->runs[k].n; i > 0; --i) {
            LC_VEC x[LC_TILE_VECTORS];
            LC_UNROLL
            for (int v = 0; v < V - 1; ++v) x[v] = load_stored(vector + v * LC_LANES * size, storage);
            x[V - 1] = whole ? load_stored(vector + (V - 1) * LC_LANES * size, storage)
                             : load_stored_first(vector + (V - 1) * LC_LANES * size, in_last, last, storage);
            LC_UNROLL
            for (int v = 0; with_scales && v < V; ++v) x[v] = scaled(x[v], scale[v], storage);
            if (prefetching && t->prefetch_far) {
                LC_UNROLL
                for (int line = 0; line < LC_TILE_VECTORS; ++line) {
                    if (line < lines) LC_PREFETCH_L2(ahead + line * 64);
                }
            } else if (prefetching) {
                LC_UNROLL
                for (int line = 0; line < LC_TILE_VECTORS; ++line) {
                    if (line < lines) LC_PREFETCH_L1(ahead + line * 64);
                }
            }
            LC_UNROLL
            for (int r = 0; r < R; ++r) {
                const char *row = group[r / 5] + (r % 5 == 3 ? stride3 : r % 5 * stride);
                LC_UNROLL
                for (int v = 0; v < V; ++v) {
                    const LC_VEC b = row_operand(row, v, last, whole || v < V - 1, channel_lanes);
                    acc[r][v] = v_fma(b, x[v], acc[r][v]);
                }
            }
            LC_UNROLL
            for (int g = 0; g <= (R - 1) / 5; ++g) group[g] += row_step;
            vector += vector_step;
            if (prefetching) ahead += t->prefetch_step;
        }
    }
    if (t->bias_axis == LC_BIAS_LANES) {
        const LC_REAL *bias = (const LC_REAL *)t->bias;
        LC_UNROLL
        for (int v = 0; v < V; ++v) {
            const LC_VEC b = whole || v < V - 1 ? v_load(bias + v * LC_LANES) : v_load_first(bias + v * LC_LANES, last);
            LC_UNROLL
            for (int r = 0; r < R; ++r) acc[r][v] = v_add(acc[r][v], b);
        }
    } else if (t->bias_axis == LC_BIAS_ROWS) {
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            const LC_VEC b = v_splat((const LC_REAL *)t->bias + r);
            LC_UNROLL
            for (int v = 0; v < V; ++v) acc[r][v] = v_add(acc[r][v], b);
        }
    }
    if (t->relu) {
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            LC_UNROLL
            for (int v = 0; v < V; ++v) acc[r][v] = v_relu(acc[r][v]);
        }
    }
    LC_REAL *out = (LC_REAL *)t->out;
    if (t->accumulate) {
        LC_UNROLL
        for (int r = 0; r < R; ++r) {
            LC_UNROLL
            for (int v = 0; v < V; ++v) acc[r][v] = v_add(acc[r][v], held(t, r, v, whole || v < V - 1, last));
        }
    }
    LC_UNROLL
    for (int r = 0; r < R; ++r) {
        LC_UNROLL
        for (int v = 0; v < V - 1; ++v) v_store(out + r * t->out_stride + v * LC_LANES, acc[r][v]);
        if (whole)
            v_store(out + r * t->out_stride + (V - 1) * LC_LANES, acc[r][V - 1]);
        else
            v_store_first(out + r * t->out_stride + (V - 1) * LC_LANES, last, acc[r][V - 1]);
    }
}

/* One function per shape, so that each has the registers to itself. Whole: every lane of the last vector is in use;
 * unit: rows are neighbours. Both spare the loop a little work; tiles at an edge do without. Prefetching takes 3 % of
 * the time of a tile whose operands lie in the caches, so there are tiles that do not. */
#define LC_TILE(name, R, V, unit, whole, storage, channel_lanes, prefetching) \
    LC_NOINLINE void tile_##name##_##R##x##V(const lc_tile *t) {              \
        tile_body(t, R, V, unit, whole, storage, channel_lanes, prefetching); \
    }
#define LC_TILE_SHAPE(R, V)                       \
    LC_TILE(unit, R, V, 1, 1, LC_native, 0, 1)    \
    LC_TILE(strided, R, V, 0, 1, LC_native, 0, 1) \
    LC_TILE(cached, R, V, 0, 1, LC_native, 0, 0)  \
    LC_TILE(edge, R, V, 0, 0, LC_native, 0, 1)
LC_TILE_SHAPES(LC_TILE_SHAPE)
#undef LC_TILE_SHAPE

#define LC_TILE_SHAPE(R, V)                             \
    LC_TILE(channel_lanes, R, V, 0, 1, LC_native, 1, 1) \
    LC_TILE(channel_lanes_edge, R, V, 0, 0, LC_native, 1, 1)
LC_CHANNEL_LANES_SHAPES(LC_TILE_SHAPE)
#undef LC_TILE_SHAPE

LC_NOINLINE void run_channel_lanes_tile(const lc_tile *t, int rows, int vectors) {
    const int whole = t->lane_count == (ptrdiff_t)vectors * LC_LANES;
    switch (vectors * 16 + rows) {
#define LC_TILE_CASE(R, V) \
    case V * 16 + R: (whole ? tile_channel_lanes_##R##x##V : tile_channel_lanes_edge_##R##x##V)(t); break;
        LC_CHANNEL_LANES_SHAPES(LC_TILE_CASE)
#undef LC_TILE_CASE
        default: lc_impossible("a channel_lanes register tile of a shape that is not compiled");
    }
}

/* Runs the tile of `rows` rows that is `vectors` (1 to 4) vectors wide; rows <= the instruction set's LC_ROWS of that
 * width. */
LC_INLINE void run_tile(const lc_tile *t, int rows, int vectors) {
    const int whole = t->lane_count == (ptrdiff_t)vectors * LC_LANES;
    const int unit = t->row_stride == 1 && t->prefetch_step <= 64; /* it asks for one line a step */
    if (t->channel_lanes) {
        run_channel_lanes_tile(t, rows, vectors);
        return;
    }
    switch (vectors * 16 + rows) {
#define LC_TILE_CASE(R, V)                            \
    case V * 16 + R:                                  \
        (!whole         ? tile_edge_##R##x##V         \
         : unit         ? tile_unit_##R##x##V         \
         : !t->prefetch ? tile_cached_##R##x##V       \
                        : tile_strided_##R##x##V)(t); \
        break;
        LC_TILE_SHAPES(LC_TILE_CASE)
#undef LC_TILE_CASE
        default: lc_impossible("a register tile of a shape that is not compiled");
    }
}

/* The same where the vector operand is stored in fewer bytes. */
#if LC_WIDENS
#define LC_STORED_TILE(name, size, numpy, scaled, R, V) \
    LC_TILE(whole_##name, R, V, 0, 1, LC_##name, 0, 1)  \
    LC_TILE(edge_##name, R, V, 0, 0, LC_##name, 0, 1)
#define LC_TILE_SHAPE(R, V) LC_INSTANCE_STORES(LC_STORED_TILE, R, V)
LC_TILE_SHAPES(LC_TILE_SHAPE)
#undef LC_TILE_SHAPE
#undef LC_STORED_TILE

LC_NOINLINE void run_stored_tile(const lc_tile *t, int rows, int vectors, int storage) {
    const int whole = t->lane_count == (ptrdiff_t)vectors * LC_LANES;
    switch ((storage * 8 + vectors) * 16 + rows) {
#define LC_TILE_STORED(name, size, numpy, scaled, R, V) \
    case (LC_##name * 8 + V) * 16 + R: (whole ? tile_whole_##name##_##R##x##V : tile_edge_##name##_##R##x##V)(t); break;
#define LC_TILE_CASE(R, V) LC_INSTANCE_STORES(LC_TILE_STORED, R, V)
        LC_TILE_SHAPES(LC_TILE_CASE)
#undef LC_TILE_CASE
#undef LC_TILE_STORED
        default: lc_impossible("a register tile of a shape that is not compiled");
    }
}
#else
LC_INLINE void run_stored_tile(const lc_tile *t, int rows, int vectors, int storage) {
    (void)t, (void)rows, (void)vectors, (void)storage;
    lc_impossible("a register tile of a kernel that this element type has not");
}
#endif
#undef LC_TILE

/* Any of these. */
LC_NOINLINE void any_tile(const lc_tile *t, int rows, int vectors, int storage) {
    if (storage == LC_native)
        run_tile(t, rows, vectors);
    else
        run_stored_tile(t, rows, vectors, storage);
}

/* Vectors that hold so many lanes. */
LC_INLINE int vectors_for(ptrdiff_t lanes) { return (int)lc_ceil_div(lanes, LC_LANES); }
