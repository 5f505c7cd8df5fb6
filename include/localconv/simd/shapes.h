/* Lists of tile shapes: LC_UP_TO(n, X, V) calls X(1, V) ... X(n, V), for the n that occur as LC_ROWS in simd/. */
#ifndef LOCALCONV_SIMD_SHAPES_H
#define LOCALCONV_SIMD_SHAPES_H

#define LC_UP_TO_2(X, V)   X(1, V) X(2, V)
#define LC_UP_TO_3(X, V)   LC_UP_TO_2(X, V) X(3, V)
#define LC_UP_TO_4(X, V)   LC_UP_TO_3(X, V) X(4, V)
#define LC_UP_TO_6(X, V)   LC_UP_TO_4(X, V) X(5, V) X(6, V)
#define LC_UP_TO_8(X, V)   LC_UP_TO_6(X, V) X(7, V) X(8, V)
#define LC_UP_TO_9(X, V)   LC_UP_TO_8(X, V) X(9, V)
#define LC_UP_TO_12(X, V)  LC_UP_TO_9(X, V) X(10, V) X(11, V) X(12, V)
#define LC_UP_TO_14(X, V)  LC_UP_TO_12(X, V) X(13, V) X(14, V)
#define LC_UP_TO_(n, X, V) LC_UP_TO_##n(X, V)
#define LC_UP_TO(n, X, V)  LC_UP_TO_(n, X, V)

/* Every shape of the instruction set that is being instantiated. */
#define LC_TILE_SHAPES(X)                      \
    LC_UP_TO(LC_JOIN2(LC_ROWS1, LC_ISA), X, 1) \
    LC_UP_TO(LC_JOIN2(LC_ROWS2, LC_ISA), X, 2) \
    LC_UP_TO(LC_JOIN2(LC_ROWS3, LC_ISA), X, 3) \
    LC_UP_TO(LC_JOIN2(LC_ROWS4, LC_ISA), X, 4)

/* Those of tiles with channel lanes (job.h), on every instruction set. */
#define LC_CHANNEL_LANES_SHAPES(X) \
    LC_UP_TO_4(X, 1)               \
    LC_UP_TO_4(X, 2)

#endif
