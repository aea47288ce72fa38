// The inner loop of matrix products whose result lies in registers: a few rows by a few vectors of columns.
#pragma once

#include "simd.h"

#include <cstddef>
#include <type_traits>

constexpr int TILE_ROWS = 6;  // rows of a tile of OUT_VECS vectors: as many sums as leave registers for the operands

// sums[i][j] += sum over k < count of a[i][k] b[k][j], with steps in elements between neighbours.
template <int ROWS, int VECS>
INLINE void multiply_rows(const float* a, ptrdiff_t row_step, ptrdiff_t k_step, const float* b, ptrdiff_t b_step,
                          int count, vec (&sums)[ROWS][VECS]) {
    for (int k = 0; k < count; ++k) {
        vec columns[VECS];
#pragma GCC unroll 4
        for (int j = 0; j < VECS; ++j) columns[j] = load(b + k * b_step + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            vec value = splat(a[i * row_step + k * k_step]);
#pragma GCC unroll 4
            for (int j = 0; j < VECS; ++j) sums[i][j] = multiply_add(value, columns[j], sums[i][j]);
        }
    }
}

template <int ROWS, int VECS>
INLINE void load_tile(const float* from, ptrdiff_t row_step, vec (&sums)[ROWS][VECS]) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < VECS; ++j) sums[i][j] = load(from + i * row_step + j * VL);
}

template <int ROWS, int VECS>
INLINE void store_tile(const vec (&sums)[ROWS][VECS], float* to, ptrdiff_t row_step) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < VECS; ++j) store(to + i * row_step + j * VL, sums[i][j]);
}

// Numbers known to the compiler, as arguments.
template <int N>
using Number = std::integral_constant<int, N>;

// Calls f(Number<rows>, row) until the rows from `row` to `end` are covered by tiles.
template <typename F>
INLINE void for_row_tiles(int64_t row, int64_t end, F f) {
    for (; row + TILE_ROWS <= end; row += TILE_ROWS) f(Number<TILE_ROWS>{}, row);
    switch (end - row) {
        case 5: return f(Number<5>{}, row);
        case 4: return f(Number<4>{}, row);
        case 3: return f(Number<3>{}, row);
        case 2: return f(Number<2>{}, row);
        case 1: return f(Number<1>{}, row);
    }
}

// Calls f(Number<vectors>, column) until `width` columns, a multiple of VL, are covered.
template <typename F>
INLINE void for_column_tiles(int width, F f) {
    int column = 0;
    for (; column + OUT_VECS * VL <= width; column += OUT_VECS * VL) f(Number<OUT_VECS>{}, column);
    switch ((width - column) / VL) {
        case 3: return f(Number<3>{}, column);
        case 2: return f(Number<2>{}, column);
        case 1: return f(Number<1>{}, column);
    }
}
