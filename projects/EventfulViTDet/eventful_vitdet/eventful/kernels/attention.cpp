// Attention of one head after another, with the queries in the lanes of the vectors.
//
// A tile is up to LANES queries. Its scores against a chunk of keys are S^T[key][lane], so the maximum, the sum and the
// position terms of a softmax are plain vector operations, without gathers or reductions across lanes. The chunk of
// weights stays in the first cache level until it has been multiplied with the values.
//
// Two things are computed with it: attention over all keys of a group (the whole grid, or a window), and the exchange
// of the terms of changed keys in sums kept from the frame before (signed delta keys).

#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr int LANES = 48;  // a multiple of VL * QUERY_VECS for every VL
constexpr int CHUNK = 64;  // keys whose weights are alive at a time
constexpr int OUT_ROWS = 6;

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(size_t count) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, std::max<size_t>(count, 1) * sizeof(float))) throw std::bad_alloc();
    return Buffer(static_cast<float*>(memory));
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

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
            for (int j = 0; j < QV; ++j) s[i][j] += lanes[j] * key;
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
template <int ROWS>
INLINE void accumulate_rows(Tile& tile, const float* v, int keys, int first) {
    for (int c = 0; c < tile.width; c += OUT_VECS * VL) {
        int vecs = std::min(OUT_VECS, (tile.width - c) / VL);
        float* out = tile.out.get() + size_t(first) * tile.width + c;
        const float* weights = tile.weights.get() + first;
        if (vecs == OUT_VECS) {
            vec sums[ROWS][OUT_VECS];
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < OUT_VECS; ++j) sums[i][j] = load(out + size_t(i) * tile.width + j * VL);
            for (int k = 0; k < keys; ++k) {
                vec value[OUT_VECS];
#pragma GCC unroll 4
                for (int j = 0; j < OUT_VECS; ++j) value[j] = load(v + size_t(k) * tile.width + c + j * VL);
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; ++i) {
                    vec weight = splat(weights[k * LANES + i]);
#pragma GCC unroll 4
                    for (int j = 0; j < OUT_VECS; ++j) sums[i][j] += weight * value[j];
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < OUT_VECS; ++j) store(out + size_t(i) * tile.width + j * VL, sums[i][j]);
            continue;
        }
        for (int j = 0; j < vecs; ++j) {
            vec sums[ROWS];
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) sums[i] = load(out + size_t(i) * tile.width + j * VL);
            for (int k = 0; k < keys; ++k) {
                vec value = load(v + size_t(k) * tile.width + c + j * VL);
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; ++i) sums[i] += splat(weights[k * LANES + i]) * value;
            }
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) store(out + size_t(i) * tile.width + j * VL, sums[i]);
        }
    }
}

void accumulate(Tile& tile, const float* v, int keys) {
    int first = 0;
    for (; first + OUT_ROWS <= tile.count; first += OUT_ROWS) accumulate_rows<OUT_ROWS>(tile, v, keys, first);
    for (; first < tile.count; ++first) accumulate_rows<1>(tile, v, keys, first);
}

// Scores start from the position terms, less a reference if there is one already.
template <int ROWS, int QV>
INLINE void begin_scores(const Tile& tile, const Keys& keys, int key, int block, bool relative, vec (&s)[ROWS][QV]) {
#pragma GCC unroll 4
    for (int j = 0; j < QV; ++j) {
        int lane = block + j * VL;
        vec start = relative ? -load(tile.reference + lane) : vec{};
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            s[i][j] = start;
            if (tile.has_bias)
                s[i][j] += load(tile.row_bias.get() + size_t(keys.row[key + i]) * LANES + lane) +
                           load(tile.column_bias.get() + size_t(keys.column[key + i]) * LANES + lane);
        }
    }
}

// Scores of a chunk, kept as they are; `top` rises to their maximum.
template <int ROWS, int QV>
INLINE void raw_scores(Tile& tile, const Keys& keys, int begin, int key, int block) {
    vec s[ROWS][QV];
    begin_scores<ROWS, QV>(tile, keys, key, block, false, s);
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

// Weights of a chunk relative to the tile's fixed references; their sum goes to `normaliser`.
template <int ROWS, int QV>
INLINE void relative_weights(Tile& tile, const Keys& keys, int begin, int key, int block, float* normaliser) {
    vec s[ROWS][QV];
    begin_scores<ROWS, QV>(tile, keys, key, block, true, s);
    multiply<ROWS, QV>(tile.q.get() + block, keys.k.get() + size_t(key) * keys.width, keys.width, keys.channels, s);
#pragma GCC unroll 4
    for (int j = 0; j < QV; ++j) {
        vec top = load(tile.top + block + j * VL), total = load(normaliser + block + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            top = maximum(s[i][j], top);
            vec weight = exponential(s[i][j]);
            total += weight;
            store(tile.weights.get() + (key - begin + i) * LANES + block + j * VL, weight);
        }
        store(tile.top + block + j * VL, top);
        store(normaliser + block + j * VL, total);
    }
}

// Calls f<rows, vectors>(key, block) until the lanes of the tile and the keys from `begin` to `end` are covered.
template <typename F>
INLINE void for_register_tiles(const Tile& tile, int begin, int end, F f) {
    for (int block = 0; block < tile.lanes; block += QUERY_VECS * VL) {
        int vecs = std::min(QUERY_VECS, (tile.lanes - block) / VL);
        int key = begin;
        for (; key + KEY_ROWS <= end; key += KEY_ROWS) {
            if (vecs == 3) f.template operator()<KEY_ROWS, (QUERY_VECS < 3 ? QUERY_VECS : 3)>(key, block);
            else if (vecs == 2) f.template operator()<KEY_ROWS, 2>(key, block);
            else f.template operator()<KEY_ROWS, 1>(key, block);
        }
        for (; key < end; ++key) {
            if (vecs == 3) f.template operator()<1, (QUERY_VECS < 3 ? QUERY_VECS : 3)>(key, block);
            else if (vecs == 2) f.template operator()<1, 2>(key, block);
            else f.template operator()<1, 1>(key, block);
        }
    }
}

struct RawScores {
    Tile& tile;
    const Keys& keys;
    int begin;
    template <int ROWS, int QV>
    void operator()(int key, int block) const { raw_scores<ROWS, QV>(tile, keys, begin, key, block); }
};

struct RelativeWeights {
    Tile& tile;
    const Keys& keys;
    int begin;
    float* normaliser;
    template <int ROWS, int QV>
    void operator()(int key, int block) const { relative_weights<ROWS, QV>(tile, keys, begin, key, block, normaliser); }
};

// Softmax sums of a tile over all keys: `out`, `normaliser` and `reference` (the largest score).
void attend(Tile& tile, const Keys& keys) {
    std::fill_n(tile.out.get(), size_t(tile.lanes) * tile.width, 0.0f);
    std::fill_n(tile.normaliser, LANES, 0.0f);
    std::fill_n(tile.top, LANES, -3.0e38f);
    for (int begin = 0; begin < keys.count; begin += CHUNK) {
        int end = std::min(begin + CHUNK, keys.count);
        std::copy_n(tile.top, LANES, tile.reference);
        for_register_tiles(tile, begin, end, RawScores{tile, keys, begin});
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
void exchange(Tile& tile, const Keys& keys, int added) {
    std::fill_n(tile.normaliser, LANES, 0.0f);
    std::fill_n(tile.removed, LANES, 0.0f);
    std::fill_n(tile.top, LANES, -3.0e38f);
    float before[LANES];
    for (int part = 0; part < 2; ++part) {
        int first = part ? added : 0, last = part ? keys.count : added;
        for (int begin = first; begin < last; begin += CHUNK) {
            int end = std::min(begin + CHUNK, last);
            for_register_tiles(tile, begin, end,
                               RelativeWeights{tile, keys, begin, part ? tile.removed : tile.normaliser});
            accumulate(tile, keys.v.get() + size_t(begin) * keys.width, end - begin);
        }
        if (!part) std::copy_n(tile.top, LANES, before);
    }
    std::copy_n(before, LANES, tile.top);
}

// What the functions below are given; Python fills in the same structure.
struct Problem {
    const void *q, *k, *v;      // first element of the first head; heads follow one another
    int64_t q_stride, kv_stride;  // elements from one token, or key, to the next
    const void* padding;        // [q | k | v] of a padding token, or null for zeros; a token with index -1 is padding
    const float *row_table, *column_table;  // positions: [a][a'][d] and [b][b'][d], or both null
    int32_t heads, channels;
    int32_t rows, columns, key_rows, key_columns;  // the grids of queries (a, b) and keys (a', b') of one group
    float scale;
    int32_t threads;
};

template <typename T>
const T* at(const void* base, int64_t token, int64_t stride, int64_t offset) {
    return static_cast<const T*>(base) + token * stride + offset;
}

// Fills a tile with queries, given by their place in the group; `members` maps places to tokens.
template <typename T>
void load_queries(Tile& tile, const Problem& p, int head, const int64_t* members, const int32_t* places, int count) {
    tile.count = count;
    tile.lanes = round_up(count, VL);
    for (int i = 0; i < tile.lanes; ++i) {
        int64_t token = i < count ? (members ? members[places[i]] : places[i]) : -1;
        if (token < 0) {  // nobody reads these lanes
            for (int c = 0; c < p.channels; ++c) tile.q[c * LANES + i] = 0;
            continue;
        }
        const T* from = at<T>(p.q, token, p.q_stride, int64_t(head) * p.channels);
        for (int c = 0; c < p.channels; ++c) tile.q[c * LANES + i] = to_float(from[c]);
    }
}

struct Products {
    Tile& tile;
    const float* table;  // [key][channel]
    int first;
    template <int ROWS, int QV>
    void operator()(int key, int block) const {
        vec s[ROWS][QV] = {};
        multiply<ROWS, QV>(tile.q.get() + block, table + size_t(key) * tile.channels, tile.channels, tile.channels, s);
#pragma GCC unroll 4
        for (int j = 0; j < QV; ++j)
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i)
                store(tile.weights.get() + (key - first + i) * LANES + block + j * VL, s[i][j]);
    }
};

// Position terms of the queries in the grid rows [first, last) of a group, for one head.
class PositionTerms {
public:
    template <typename T>
    PositionTerms(const Problem& p, int head, const int64_t* members, int first, int last, T)
        : problem(p), origin(first * p.columns), count((last - first) * p.columns) {
        if (!p.row_table) return;
        rows = allocate(size_t(p.key_rows) * count);
        columns = allocate(size_t(p.key_columns) * count);
        Tile tile(p.channels, p.key_rows, p.key_columns);
        for (int y = first; y < last; ++y)
            add<T>(tile, head, members, y * p.columns, 1, p.columns, p.key_rows,
                   p.row_table + size_t(y) * p.key_rows * p.channels, rows.get());
        for (int x = 0; x < p.columns; ++x)
            add<T>(tile, head, members, first * p.columns + x, p.columns, last - first, p.key_columns,
                   p.column_table + size_t(x) * p.key_columns * p.channels, columns.get());
    }

    // Copies the terms of a tile's queries, given by their place in the group.
    void read(Tile& tile, const int32_t* places) const {
        tile.has_bias = rows != nullptr;
        if (!tile.has_bias) return;
        copy(tile, places, rows.get(), problem.key_rows, tile.row_bias.get());
        copy(tile, places, columns.get(), problem.key_columns, tile.column_bias.get());
    }

private:
    const Problem& problem;
    int origin, count;
    Buffer rows, columns;  // [key row][query], [key column][query]

    // Products of `number` queries, `step` places apart, with the `keys` rows of a table.
    template <typename T>
    void add(Tile& tile, int head, const int64_t* members, int begin, int step, int number, int keys,
             const float* table, float* terms) {
        for (int done = 0; done < number; done += LANES) {
            int32_t places[LANES];
            int size = std::min(LANES, number - done);
            for (int i = 0; i < size; ++i) places[i] = begin + (done + i) * step;
            load_queries<T>(tile, problem, head, members, places, size);
            for (int first = 0; first < keys; first += CHUNK) {
                int last = std::min(first + CHUNK, keys);
                for_register_tiles(tile, first, last, Products{tile, table, first});
                for (int k = first; k < last; ++k)
                    for (int i = 0; i < size; ++i)
                        terms[size_t(k) * count + places[i] - origin] = tile.weights[(k - first) * LANES + i];
            }
        }
    }

    void copy(const Tile& tile, const int32_t* places, const float* terms, int keys, float* to) const {
        for (int k = 0; k < keys; ++k) {
            const float* from = terms + size_t(k) * count - origin;
            for (int i = 0; i < tile.count; ++i) to[size_t(k) * LANES + i] = from[places[i]];
            for (int i = tile.count; i < tile.lanes; ++i) to[size_t(k) * LANES + i] = 0;
        }
    }
};

// All keys of a group, for one head.
template <typename T>
void load_keys(Keys& keys, const Problem& p, int head, const int64_t* members) {
    keys.count = 0;
    int64_t offset = int64_t(head) * p.channels, dim = int64_t(p.heads) * p.channels;
    std::vector<T> zeros(p.padding ? 0 : p.channels, T{});
    for (int key = 0; key < p.key_rows * p.key_columns; ++key) {
        int64_t token = members ? members[key] : key;
        const T *k, *v;
        if (token >= 0) {
            k = at<T>(p.k, token, p.kv_stride, offset);
            v = at<T>(p.v, token, p.kv_stride, offset);
        } else {
            k = p.padding ? static_cast<const T*>(p.padding) + dim + offset : zeros.data();
            v = p.padding ? static_cast<const T*>(p.padding) + 2 * dim + offset : zeros.data();
        }
        keys.add(k, v, p.scale, 1.0f, key / p.key_columns, key % p.key_columns);
    }
}

// Work is cut into (group, head, rows of the query grid), so that all threads have some.
struct Cuts {
    int parts, rows_per_part;
    Cuts(const Problem& p, int64_t groups) {
        int64_t items = groups * p.heads;
        int wanted = items % p.threads ? int((2 * p.threads + items - 1) / items) : 1;
        rows_per_part = (p.rows + std::min(wanted, p.rows) - 1) / std::min(wanted, p.rows);
        parts = (p.rows + rows_per_part - 1) / rows_per_part;
    }
};

template <typename T>
void attend_groups(const Problem& p, const int64_t* members, int64_t groups, T* out, int64_t out_stride) {
    const int keys_per_group = p.key_rows * p.key_columns, queries = p.rows * p.columns;
    const Cuts cuts(p, groups);
#pragma omp parallel num_threads(p.threads)
    {
        Keys keys(keys_per_group, p.channels);
        Tile tile(p.channels, p.key_rows, p.key_columns);
#pragma omp for collapse(3) schedule(dynamic)
        for (int64_t group = 0; group < groups; ++group)
            for (int head = 0; head < p.heads; ++head)
                for (int part = 0; part < cuts.parts; ++part) {
                    const int64_t* own = members ? members + group * queries : nullptr;
                    int first = part * cuts.rows_per_part, last = std::min(first + cuts.rows_per_part, p.rows);
                    load_keys<T>(keys, p, head, own);
                    PositionTerms terms(p, head, own, first, last, T{});
                    int32_t places[LANES];
                    int count = 0;
                    auto run = [&] {
                        load_queries<T>(tile, p, head, own, places, count);
                        terms.read(tile, places);
                        attend(tile, keys);
                        for (int i = 0; i < count; ++i) {
                            T* to = out + (own ? own[places[i]] : places[i]) * out_stride + int64_t(head) * p.channels;
                            float factor = 1.0f / tile.normaliser[i];
                            for (int c = 0; c < p.channels; ++c) assign(to[c], tile.out[size_t(i) * tile.width + c] * factor);
                        }
                        count = 0;
                    };
                    for (int place = first * p.columns; place < last * p.columns; ++place) {
                        if (own && own[place] < 0) continue;
                        places[count++] = place;
                        if (count == LANES) run();
                    }
                    if (count) run();
                }
    }
}

// Sums kept from frame to frame, of one stream: [head][token][channel], and [head][token] for the others.
struct Sums {
    float *sums, *normalisers, *references, *drift;
};

// What changed since the frame before.
struct Change {
    const uint8_t* renew;   // per token: its query is new; null: every query is to be computed anew
    const int64_t* keys;    // changed keys
    const void* old;        // their former [k | v], one after the other
    int64_t count;
};

// See attention/exact.py.
struct Limits {
    float score, drift, rounding;
};

template <typename T>
class Update {
public:
    Update(const Problem& p, const Sums& s, const Change& c, const Limits& l)
        : p(p), state(s), change(c), limits(l), all(p.key_rows * p.key_columns, p.channels),
          delta(c.renew ? int(2 * c.count) : 0, p.channels), tile(p.channels, p.key_rows, p.key_columns) {}

    // One head, queries in the grid rows [first, last).
    void run(int head, int first, int last) {
        this->head = head;
        PositionTerms terms(p, head, nullptr, first, last, T{});
        std::vector<int32_t> anew;
        if (change.renew) exchange_terms(terms, first, last, anew);
        else
            for (int place = first * p.columns; place < last * p.columns; ++place) anew.push_back(place);
        if (anew.empty()) return;
        load_keys<T>(all, p, head, nullptr);
        for (size_t done = 0; done < anew.size(); done += LANES)
            compute(terms, anew.data() + done, int(std::min<size_t>(LANES, anew.size() - done)));
        renewed += int64_t(anew.size());
    }

    int64_t renewed = 0, exchanged = 0;  // queries, over all heads

private:
    const Problem& p;
    const Sums& state;
    const Change& change;
    const Limits& limits;
    Keys all, delta;
    Tile tile;
    int head = 0;

    size_t slot(int32_t place) const { return size_t(head) * p.rows * p.columns + place; }

    void load_delta() {
        int64_t offset = int64_t(head) * p.channels, dim = int64_t(p.heads) * p.channels;
        delta.count = 0;
        for (int64_t i = 0; i < change.count; ++i) {
            int64_t key = change.keys[i];
            delta.add(at<T>(p.k, key, p.kv_stride, offset), at<T>(p.v, key, p.kv_stride, offset), p.scale, 1.0f,
                      int(key / p.key_columns), int(key % p.key_columns));
        }
        for (int64_t i = 0; i < change.count; ++i) {
            int64_t key = change.keys[i];
            const T* old = static_cast<const T*>(change.old) + i * 2 * dim + offset;
            delta.add(old, old + dim, p.scale, -1.0f, int(key / p.key_columns), int(key % p.key_columns));
        }
    }

    void exchange_terms(const PositionTerms& terms, int first, int last, std::vector<int32_t>& anew) {
        load_delta();
        int32_t places[LANES];
        int count = 0;
        for (int place = first * p.columns; place < last * p.columns; ++place) {
            if (change.renew[place]) {
                anew.push_back(place);
                continue;
            }
            places[count++] = place;
            if (count == LANES) {
                exchange_tile(terms, places, count, anew);
                count = 0;
            }
        }
        if (count) exchange_tile(terms, places, count, anew);
    }

    void exchange_tile(const PositionTerms& terms, const int32_t* places, int count, std::vector<int32_t>& anew) {
        if (!change.count) return;
        load_queries<T>(tile, p, head, nullptr, places, count);
        terms.read(tile, places);
        for (int i = 0; i < tile.lanes; ++i) tile.reference[i] = i < count ? state.references[slot(places[i])] : 0;
        for (int i = 0; i < count; ++i) copy_sums(state.sums + slot(places[i]) * p.channels, tile.out.get() + size_t(i) * tile.width);
        exchange(tile, delta, int(change.count));
        for (int i = 0; i < count; ++i) {
            size_t at = slot(places[i]);
            float added = tile.normaliser[i], removed = tile.removed[i], before = state.normalisers[at];
            float after = before + (added - removed);
            float drift = (state.drift[at] * before + limits.rounding * (added + removed) + std::fabs(after)) / after;
            state.normalisers[at] = after;
            state.drift[at] = drift;
            std::copy_n(tile.out.get() + size_t(i) * tile.width, p.channels, state.sums + at * p.channels);
            // Written so that NaN, infinity and a normaliser below zero count as drifted.
            if (!(after > 0 && drift <= limits.drift && tile.top[i] <= limits.score)) anew.push_back(places[i]);
        }
        exchanged += count;
    }

    void copy_sums(const float* from, float* to) const {
        std::copy_n(from, p.channels, to);
        std::fill(to + p.channels, to + tile.width, 0.0f);
    }

    void compute(const PositionTerms& terms, const int32_t* places, int count) {
        load_queries<T>(tile, p, head, nullptr, places, count);
        terms.read(tile, places);
        attend(tile, all);
        for (int i = 0; i < count; ++i) {
            size_t at = slot(places[i]);
            std::copy_n(tile.out.get() + size_t(i) * tile.width, p.channels, state.sums + at * p.channels);
            state.normalisers[at] = tile.normaliser[i];
            state.references[at] = tile.reference[i];
            state.drift[at] = limits.rounding;
        }
    }
};

template <typename T>
void update(const Problem& p, const Sums& sums, const Change& change, const Limits& limits, int64_t* executed) {
    const Cuts cuts(p, 1);
    int64_t exchanged = 0, renewed = 0;
#pragma omp parallel reduction(+ : exchanged, renewed) num_threads(p.threads)
    {
        Update<T> work(p, sums, change, limits);
#pragma omp for collapse(2) schedule(dynamic)
        for (int head = 0; head < p.heads; ++head)
            for (int part = 0; part < cuts.parts; ++part) {
                int first = part * cuts.rows_per_part;
                work.run(head, first, std::min(first + cuts.rows_per_part, p.rows));
            }
        exchanged += work.exchanged;
        renewed += work.renewed;
    }
    executed[0] = exchanged;
    executed[1] = renewed;
}

}  // namespace

// Attention of groups of tokens over all their keys: out[token] = softmax(...) v, heads side by side.
// members: [groups][a * b] tokens, -1 for padding, or null for one group of all tokens in order.
extern "C" void attend_groups_f32(const Problem* p, const int64_t* members, int64_t groups, void* out, int64_t stride) {
    attend_groups<float>(*p, members, groups, static_cast<float*>(out), stride);
}
extern "C" void attend_groups_bf16(const Problem* p, const int64_t* members, int64_t groups, void* out, int64_t stride) {
    attend_groups<bf16>(*p, members, groups, static_cast<bf16*>(out), stride);
}

// Brings one stream's sums up to date; `executed` receives the numbers of (head, query) pairs whose terms were
// exchanged, and that were computed anew.
extern "C" void update_f32(const Problem* p, const Sums* sums, const Change* change, const Limits* limits, int64_t* executed) {
    update<float>(*p, *sums, *change, *limits, executed);
}
extern "C" void update_bf16(const Problem* p, const Sums* sums, const Change* change, const Limits* limits, int64_t* executed) {
    update<bf16>(*p, *sums, *change, *limits, executed);
}
