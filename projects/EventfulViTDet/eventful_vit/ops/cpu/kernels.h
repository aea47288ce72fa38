// What the kernels are given. Python fills in the same structures (library.py, gating.py, linear.py, attention.py).
//
// Every kernel is called as int32_t kernel(const Arguments*, int32_t threads) and returns 0, or 1 if memory ran out.
#pragma once

#include "pool.h"
#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

// Queries, keys and values of one or more streams, for attention over a whole grid or inside windows.
struct Attention {
    const void *q, *k, *v;        // the first stream's first token; the heads of a token follow one another
    int64_t q_token, q_stream;    // elements from one token, and from one stream, to the next
    int64_t kv_token, kv_stream;  // the same for keys and values
    const void* padding;          // [q | k | v] of a padding token, or null for zeros
    // Positions: [a][d][a'] and [b][d][b'], a' and b' rounded up to whole vectors; or both null.
    const float *row_table, *column_table;
    int64_t streams;
    int32_t heads, channels;
    int32_t rows, columns, key_rows, key_columns;  // the grids of queries (a, b) and keys (a', b') of one group
    float scale;
    int32_t is_bf16;  // type of q, k, v and padding: bfloat16, or float32
};

// The windows of a token grid, the same for all streams.
struct Windows {
    const int64_t* members;    // [count][a * b] tokens of each window, -1 for padding
    const int64_t* of_token;   // the window that each token lies in
    int64_t count, tokens;     // windows and tokens of one stream
};

// Rows of channels, one per token.
struct Output {
    void* data;
    int64_t token, stream;  // elements from one token, and from one stream, to the next
    int32_t is_bf16;
};

// Dense attention; without window members, one group of all tokens in order.
struct Attend {
    Attention attention;
    Windows windows;
    Output out;
};

// Attention of the windows that hold a selected token.
struct AttendTouched {
    Attend all;
    const int64_t* index;  // the selected tokens of all streams
    int64_t selected;
    int64_t* touched;  // [streams] windows computed
};

// Sums kept from frame to frame: [stream][head][token][channel], and [stream][head][token] for the others.
struct Sums {
    float *sums, *normalisers, *references, *drift;
};

// See ops/attention.py.
struct Limits {
    float score, drift, accumulation;
    double dense;
};

// An update of the sums after some queries, keys and values changed.
struct Update {
    Attention attention;
    Sums sums;
    Limits limits;
    const int64_t* index;        // changed queries of all streams, or null: everything changed
    const int64_t* offsets;      // [streams + 1] where each stream's begin
    const int64_t* keys;         // changed keys of all streams
    const int64_t* key_offsets;  // [streams + 1]
    const void* old;             // their former [k | v], one after the other
    int64_t* executed;           // [streams][2] (head, query) pairs: terms exchanged, and sums recomputed
};

// out = sums / normalisers.
struct Divide {
    const float *sums, *normalisers;
    int64_t streams, tokens;
    int32_t heads, channels;
    Output out;
};

// out = rows W^T + bias, with GELU where it follows.
struct Linear {
    const float* rows;  // [count][inputs]
    int64_t count;
    int32_t inputs, outputs;
    const float* weights;  // packed
    const float* bias;     // or null
    int32_t gelu;
    float* out;  // [count][outputs]
};

struct Pack {
    const float* weights;  // [outputs][inputs]
    int32_t outputs, inputs;
    float* packed;
};

struct Norm {
    const float *weight, *bias;
    float eps;
    int32_t present;  // otherwise values are taken as they are
};

// Tokens of [count][channels], and what a gate compares them with.
struct Tokens {
    const float* x;
    void* reference;
    int64_t count;
    int32_t channels, reference_is_bf16;
    Norm norm;
};

struct ErrorNorms {
    Tokens tokens;
    float* norms;  // [count]
};

struct Largest {
    const float* norms;  // [streams][tokens]
    int64_t streams, tokens, count;
    int64_t* index;  // [streams][count], ascending, into all tokens
};

struct Send {
    Tokens tokens;
    const int64_t* index;
    int64_t selected;
    float* rows;  // [selected][channels]
};

// Rows that take their places in a buffer [tokens][width].
struct Store {
    void* buffer;
    int32_t is_bf16, width;
    const int64_t* index;
    const float* rows;  // [selected][width]
    int64_t selected;
    int32_t first;  // ReplaceRows: the columns from this one on are kept in `old`
    void* old;      // [selected][width - first], type of the buffer; or null
};

struct StoreAndAdd {
    Store store;
    const float* x;  // [tokens][width]
    float* out;      // x + buffer
    int64_t tokens;
};

// A kernel call, and a frame's worth of them.
struct Call {
    int32_t (*kernel)(const void* arguments, int32_t threads);
    const void* arguments;
};
struct Replay {
    const Call* calls;
    int64_t count;
};

// Parameters whose values are looked at in some places.
struct Sample {
    const void* const* data;
    const int64_t* bytes;
    int64_t count;
    uint64_t* result;
};

// Work that is worth a thread of its own; waking one takes some microseconds.
constexpr int64_t VALUES_PER_THREAD = 1 << 15;    // read or written once
constexpr int64_t PRODUCTS_PER_THREAD = 1 << 19;  // multiply-accumulates

inline int threads_for(int64_t work, int64_t per_thread, int most) {
    return int(std::max<int64_t>(1, std::min<int64_t>(most, work / per_thread)));
}

// Memory of floats at the start of a cache line.
struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

inline Buffer allocate(size_t count) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, std::max<size_t>(count, 1) * sizeof(float))) throw std::bad_alloc();
    return Buffer(static_cast<float*>(memory));
}

// Defines a kernel as Python calls it.
#define KERNEL(name, Arguments)                                                      \
    static void name##_body(const Arguments& arguments, int threads);                \
    extern "C" int32_t name(const Arguments* arguments, int32_t threads) {           \
        try {                                                                        \
            name##_body(*arguments, threads);                                        \
            return 0;                                                                \
        } catch (const std::bad_alloc&) {                                            \
            return 1;                                                                \
        }                                                                            \
    }                                                                                \
    static void name##_body(const Arguments& arguments, [[maybe_unused]] int threads)
