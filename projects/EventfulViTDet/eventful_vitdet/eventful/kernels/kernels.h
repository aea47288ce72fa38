// What the kernels are given and how they are called, from Python (native.py holds the same structures) and from one
// another.
#pragma once

#include "simd.h"

#include <algorithm>

// Attention inside groups of tokens: the whole grid, or windows.
struct Problem {
    const void *q, *k, *v;        // first element of the first head; heads follow one another
    int64_t q_stride, kv_stride;  // elements from one token, or key, to the next
    const void* padding;          // [q | k | v] of a padding token, or null for zeros; a token with index -1 is padding
    // Positions: [a][d][a'] and [b][d][b'], a' and b' rounded up to whole vectors; or both null.
    const float *row_table, *column_table;
    int32_t heads, channels;
    int32_t rows, columns, key_rows, key_columns;  // the grids of queries (a, b) and keys (a', b') of one group
    float scale;
    int32_t threads;  // as everywhere: at most
};

// The windows of a token grid, the same for all streams.
struct Windows {
    const int64_t* of_token;  // the window that each token lies in
    const int64_t* members;   // [count][a * b] tokens of each window, -1 for padding
    int64_t count, tokens;    // windows and tokens of one stream
};

// Sums kept from frame to frame, of one stream: [head][token][channel], and [head][token] for the others.
struct Sums {
    float *sums, *normalisers, *references, *drift;
};

// What changed since the frame before.
struct Change {
    const uint8_t* renew;  // per token: its query is new; null: every query is to be computed anew
    const int64_t* keys;   // changed keys
    const void* old;       // their former [k | v], one after the other
    int64_t count;
};

// See attention/exact.py.
struct Limits {
    float score, drift, rounding;
};

// A linear layer on some rows.
struct Product {
    const float* rows;  // [count][inputs]
    int64_t count;
    int32_t inputs, outputs;
    const float* weights;  // packed
    const float* bias;     // or null
    int32_t gelu;
    float* out;  // [count][outputs]
    int32_t threads;
};

struct Norm {
    const float *weight, *bias;  // null: values as they are
    float eps;
};

// Tokens of [streams][tokens][channels], and what a gate compares them with.
template <typename T>
struct Tokens {
    const float* x;
    T* reference;
    int64_t streams, tokens;
    int32_t channels;
    Norm norm;
    int32_t threads;
};

extern "C" {
void attend_touched_f32(const Problem*, const Windows*, const int64_t* index, int64_t selected, int64_t streams,
                        void* out, int64_t out_stride, int64_t* touched);
void update_f32(const Problem*, const Sums*, const Change*, const Limits*, int64_t* executed);
void divide_sums(const float* sums, const float* normalisers, int64_t tokens, int heads, int channels, float* out,
                 int threads);
void linear(const Product*);
int32_t packed_agrees(const float* weights, int32_t outputs, int32_t inputs, const float* packed);
void gate_f32(const Tokens<float>*, int64_t count, float* norms, int64_t* index, float* rows);
void store_and_add_f32(const float* x, float* buffer, int64_t tokens, int channels, const int64_t* index, int64_t count,
                       const float* rows, float* out, int threads);
}

// Work that is worth a thread of its own; waking one takes some microseconds.
constexpr int64_t VALUES_PER_THREAD = 1 << 15;    // read or written once
constexpr int64_t PRODUCTS_PER_THREAD = 1 << 19;  // multiply-accumulates

inline int threads_for(int64_t work, int64_t per_thread, int most) {
    return int(std::max<int64_t>(1, std::min<int64_t>(most, work / per_thread)));
}
