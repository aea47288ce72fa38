// Attention of up to LANES queries of one head, with the queries in the lanes of the vectors.
//
// Scores against a chunk of keys are S^T[key][lane], so the maximum, the sum and the position terms of a softmax are
// plain vector operations, without gathers or reductions across lanes. The chunk of weights stays in the first cache
// level until it has been multiplied with the values.
//
// Two things are computed with it: attention over all keys of a group (the whole grid, or a window), and the exchange
// of the terms of changed keys in sums kept from the frame before (signed delta keys).
#pragma once

#include "kernels.h"
#include "register_tile.h"

#include <vector>

namespace {

constexpr int LANES = 48;  // a multiple of VL * QUERY_VECS for every VL
constexpr int CHUNK = 64;  // keys whose weights are alive at a time

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

// Keys of one head as the kernels read them: K and V as rows of floats, and each key's place in the grid of keys.
struct Keys {
    int count = 0;
    int channels = 0;  // d
    int width = 0;     // d rounded up to whole vectors: the stride of both
    Buffer k, v;
    std::vector<int32_t> row, column;

    Keys(int capacity, int channels)
        : channels(channels), width(round_up(channels, VL)), k(allocate(size_t(capacity) * width)),
          v(allocate(size_t(capacity) * width)), row(capacity), column(capacity) {}

    template <typename T>
    void add(const T* key, const T* value, float scale, float sign, int y, int x) {
        float *to_k = k.get() + size_t(count) * width, *to_v = v.get() + size_t(count) * width;
        for (int c = 0; c < channels; ++c) to_k[c] = to_float(key[c]) * scale;
        for (int c = 0; c < channels; ++c) to_v[c] = to_float(value[c]) * sign;
        for (int c = channels; c < width; ++c) to_k[c] = to_v[c] = 0;
        row[count] = y;
        column[count] = x;
        ++count;
    }
};

// Scores of ROWS keys against QV vectors of queries, added to what `s` holds.
template <int ROWS, int QV>
INLINE void multiply(const float* q, const float* k, int stride, int channels, vec (&s)[ROWS][QV]) {
    for (int c = 0; c < channels; ++c) {
        vec lanes[QV];
#pragma GCC unroll 4
        for (int j = 0; j < QV; ++j) lanes[j] = load(q + size_t(c) * LANES + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            vec key = splat(k[size_t(i) * stride + c]);
#pragma GCC unroll 4
            for (int j = 0; j < QV; ++j) s[i][j] = multiply_add(lanes[j], key, s[i][j]);
        }
    }
}

// Up to LANES queries of one head, with their sums.
struct Tile {
    int count = 0;
    int lanes = 0;       // count rounded up to whole vectors
    const int channels;  // d
    const int width;     // d rounded up to whole vectors: the stride of `out`
    bool has_bias = false;
    Buffer q;                      // [channel][lane]
    Buffer weights;                // [key of the chunk][lane]
    Buffer row_bias, column_bias;  // position terms: [key row][lane], [key column][lane]
    Buffer out;                    // [lane][channel]
    float reference[LANES], normaliser[LANES], removed[LANES], top[LANES];

    Tile(int channels, int key_rows, int key_columns)
        : channels(channels), width(round_up(channels, VL)), q(allocate(size_t(channels) * LANES)),
          weights(allocate(CHUNK * LANES)), row_bias(allocate(size_t(key_rows) * LANES)),
          column_bias(allocate(size_t(key_columns) * LANES)), out(allocate(size_t(LANES) * width)) {}
};

// out[lane] += sum over keys of weights[key][lane] * v[key]
inline void accumulate(Tile& tile, const float* v, int keys) {
    for_column_tiles(tile.width, [&](auto vecs, int column) {
        for_row_tiles(0, tile.count, [&](auto rows, int64_t lane) {
            vec sums[rows.value][vecs.value];
            float* out = tile.out.get() + lane * tile.width + column;
            load_tile(out, tile.width, sums);
            multiply_rows(tile.weights.get() + lane, 1, LANES, v + column, tile.width, keys, sums);
            store_tile(sums, out, tile.width);
        });
    });
}

// Scores start from the position terms.
template <int ROWS, int QV>
INLINE void begin_scores(const Tile& tile, const Keys& keys, int key, int block, vec (&s)[ROWS][QV]) {
#pragma GCC unroll 4
    for (int j = 0; j < QV; ++j) {
        int lane = block + j * VL;
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            s[i][j] = vec{};
            if (tile.has_bias)
                s[i][j] = load(tile.row_bias.get() + size_t(keys.row[key + i]) * LANES + lane) +
                          load(tile.column_bias.get() + size_t(keys.column[key + i]) * LANES + lane);
        }
    }
}

// Scores of a chunk, kept as they are; `top` rises to their maximum.
template <int ROWS, int QV>
INLINE void raw_scores(Tile& tile, const Keys& keys, int begin, int key, int block) {
    vec s[ROWS][QV];
    begin_scores<ROWS, QV>(tile, keys, key, block, s);
    multiply<ROWS, QV>(tile.q.get() + block, keys.k.get() + size_t(key) * keys.width, keys.width, keys.channels, s);
#pragma GCC unroll 4
    for (int j = 0; j < QV; ++j) {
        vec top = load(tile.top + block + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            top = maximum(s[i][j], top);
            store(tile.weights.get() + (key - begin + i) * LANES + block + j * VL, s[i][j]);
        }
        store(tile.top + block + j * VL, top);
    }
}

// Weights of a chunk relative to the tile's fixed references; their sum goes to `normaliser`. The reference is taken
// off at the end, so that a score has the same bits here as in raw_scores: a term that was added is taken out exactly.
template <int ROWS, int QV>
INLINE void relative_weights(Tile& tile, const Keys& keys, int begin, int key, int block, float* normaliser) {
    vec s[ROWS][QV];
    begin_scores<ROWS, QV>(tile, keys, key, block, s);
    multiply<ROWS, QV>(tile.q.get() + block, keys.k.get() + size_t(key) * keys.width, keys.width, keys.channels, s);
#pragma GCC unroll 4
    for (int j = 0; j < QV; ++j) {
        vec top = load(tile.top + block + j * VL), total = load(normaliser + block + j * VL);
        vec reference = load(tile.reference + block + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            s[i][j] -= reference;
            top = maximum(s[i][j], top);
            vec weight = exponential(s[i][j]);
            total += weight;
            store(tile.weights.get() + (key - begin + i) * LANES + block + j * VL, weight);
        }
        store(tile.top + block + j * VL, top);
        store(normaliser + block + j * VL, total);
    }
}

// Calls f(Number<vectors>, block) until the lanes of the tile are covered.
template <typename F>
INLINE void for_lane_blocks(const Tile& tile, F f) {
    for (int block = 0; block < tile.lanes; block += QUERY_VECS * VL) {
        switch (std::min(QUERY_VECS, (tile.lanes - block) / VL)) {
            case 3: f(Number<(QUERY_VECS < 3 ? QUERY_VECS : 3)>{}, block); break;
            case 2: f(Number<2>{}, block); break;
            case 1: f(Number<1>{}, block); break;
        }
    }
}

// Calls f(Number<keys>, Number<vectors>, key, block) until the lanes of the tile and the keys from `begin` to `end` are
// covered.
template <typename F>
INLINE void for_score_tiles(const Tile& tile, int begin, int end, F f) {
    for_lane_blocks(tile, [&](auto vecs, int block) {
        int key = begin;
        for (; key + KEY_ROWS <= end; key += KEY_ROWS) f(Number<KEY_ROWS>{}, vecs, key, block);
        if (key + KEY_ROWS / 2 <= end) {
            f(Number<KEY_ROWS / 2>{}, vecs, key, block);
            key += KEY_ROWS / 2;
        }
        for (; key < end; ++key) f(Number<1>{}, vecs, key, block);
    });
}

// Softmax sums of a tile over all keys: `out`, `normaliser` and `reference` (the largest score).
inline void attend(Tile& tile, const Keys& keys) {
    std::fill_n(tile.out.get(), size_t(tile.lanes) * tile.width, 0.0f);
    std::fill_n(tile.normaliser, LANES, 0.0f);
    std::fill_n(tile.top, LANES, -3.0e38f);
    for (int begin = 0; begin < keys.count; begin += CHUNK) {
        int end = std::min(begin + CHUNK, keys.count);
        std::copy_n(tile.top, LANES, tile.reference);
        for_score_tiles(tile, begin, end, [&](auto rows, auto vecs, int key, int block) {
            raw_scores<rows.value, vecs.value>(tile, keys, begin, key, block);
        });
        for (int lane = 0; lane < tile.lanes; lane += VL) {
            vec top = load(tile.top + lane), shrink = exponential(load(tile.reference + lane) - top);
            vec total = load(tile.normaliser + lane) * shrink;
            for (int key = 0; key < end - begin; ++key) {
                vec weight = exponential(load(tile.weights.get() + key * LANES + lane) - top);
                total += weight;
                store(tile.weights.get() + key * LANES + lane, weight);
            }
            store(tile.normaliser + lane, total);
            for (int i = lane; begin && i < std::min(lane + VL, tile.count); ++i) {
                float factor = shrink[i - lane];
                if (factor == 1.0f) continue;
                for (int c = 0; c < tile.width; ++c) tile.out[size_t(i) * tile.width + c] *= factor;
            }
        }
        accumulate(tile, keys.v.get() + size_t(begin) * keys.width, end - begin);
    }
    std::copy_n(tile.top, LANES, tile.reference);
}

// Adds the terms of the first `added` keys and of the others, whose values are negated, to `out`; sums of weights go
// to `normaliser` and `removed`, the largest score of an added key above the reference to `top`.
inline void exchange(Tile& tile, const Keys& keys, int added) {
    std::fill_n(tile.normaliser, LANES, 0.0f);
    std::fill_n(tile.removed, LANES, 0.0f);
    std::fill_n(tile.top, LANES, -3.0e38f);
    float before[LANES];
    for (int part = 0; part < 2; ++part) {
        int first = part ? added : 0, last = part ? keys.count : added;
        for (int begin = first; begin < last; begin += CHUNK) {
            int end = std::min(begin + CHUNK, last);
            float* total = part ? tile.removed : tile.normaliser;
            for_score_tiles(tile, begin, end, [&](auto rows, auto vecs, int key, int block) {
                relative_weights<rows.value, vecs.value>(tile, keys, begin, key, block, total);
            });
            accumulate(tile, keys.v.get() + size_t(begin) * keys.width, end - begin);
        }
        if (!part) std::copy_n(tile.top, LANES, before);
    }
    std::copy_n(before, LANES, tile.top);
}


}  // namespace
