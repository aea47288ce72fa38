// What the kernels are given. Python fills in the same structures (library.py, gating.py, linear.py, attention.py).
//
// Every kernel is called as int32_t eventful_kernel(const Arguments*, int32_t threads) and returns 0, or 1 if memory
// ran out.
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

// A number of rows that is only known when the kernel runs: a place in memory, or null for `most`.
struct Rows {
    int64_t most;
    const int64_t* used;

    int64_t count() const { return used ? *used : most; }
};

// Attention of the windows that hold a selected token.
struct AttendTouched {
    Attend all;
    const int64_t* index;  // the selected tokens of all streams
    Rows selected;
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
    int32_t everything;          // everything changed, and what follows is not given
    const int64_t* index;        // changed queries of all streams
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

// out = rows W^T + bias, with GELU where it follows, and plus other rows where these are given.
struct Linear {
    const float* rows;  // [number][inputs]
    Rows number;
    int32_t inputs, outputs;
    const float* weights;  // packed
    const float* bias;     // or null
    int32_t gelu;
    const float* added;  // [added_count][outputs], again and again, or null
    int64_t added_count;
    float* out;  // [number][outputs]
    int64_t out_step;  // from one row of it to the next
};

// out = rows * factors of the channels.
struct ScaleChannels {
    const float *rows, *factors;
    int64_t number;
    int32_t channels;
    float* out;
};

struct Pack {
    const float* weights;  // [outputs][inputs]
    int32_t outputs, inputs;
    float* packed;
};

// Images cut into patches, each a row of values [channel][y][x].
struct Patches {
    const float* images;  // [streams][channels][height][width]
    int64_t streams;
    int32_t channels, height, width, size;
    float* rows;  // [streams][patches][channels * size * size]
};

// Tokens, what a gate compares them with, and what it finds. Kernels use what they need of it.
struct Gate {
    float* x;         // [streams][tokens][channels]
    void* reference;  // the same
    int64_t streams, tokens;
    int32_t channels, is_bf16;   // type of the reference
    const float *weight, *bias;  // of a layer norm
    float eps;
    int32_t normalised;      // whether there is one; otherwise values are taken as they are
    const int64_t* count;    // at most so many tokens of each stream go on,
    const float* threshold;  // with norms above this
    const uint8_t* flush;    // [streams] streams of which all go on, or null
    float* norms;            // [streams][tokens]; infinite for those
    int64_t* index;          // places of the tokens that go on, ascending; send: null for all
    int64_t* offsets;        // [streams + 1] where each stream's begin
    Rows selected;           // send: how many
    float* rows;             // [selected][channels]
    const void* added;       // gate: like the reference, what is added to x before all else, or null
};

// A buffer that is added to tokens.
struct Add {
    float* x;
    const void* buffer;
    int64_t values;
    int32_t is_bf16;
};

// Rows that take their places in a buffer [tokens][width].
struct Store {
    void* buffer;
    int32_t is_bf16, width;
    const int64_t* index;  // null: all in order
    const float* rows;     // [selected][width]
    Rows selected;
    int32_t first;   // with `old`: columns from this one on are kept there before they are overwritten
    void* old;       // [selected][width - first], type of the buffer; or null
};

// Whether the values of each stream are all finite.
struct Finite {
    const float* x;  // [streams][values]
    int64_t streams, values;
    uint8_t* result;  // [streams]
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
    extern "C" int32_t eventful_##name(const Arguments* arguments, int32_t threads) { \
        try {                                                                        \
            name##_body(*arguments, threads);                                        \
            return 0;                                                                \
        } catch (const std::bad_alloc&) {                                            \
            return 1;                                                                \
        }                                                                            \
    }                                                                                \
    static void name##_body(const Arguments& arguments, [[maybe_unused]] int threads)
