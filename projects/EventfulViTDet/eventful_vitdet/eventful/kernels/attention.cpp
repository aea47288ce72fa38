// Attention of one head after another, with the queries in the lanes of the vectors.
//
// A tile is up to LANES queries. Its scores against a chunk of keys are S^T[key][lane], so the maximum, the sum and the
// position terms of a softmax are plain vector operations, without gathers or reductions across lanes. The chunk of
// weights stays in the first cache level until it has been multiplied with the values.
//
// Two things are computed with it: attention over all keys of a group (the whole grid, or a window), and the exchange
// of the terms of changed keys in sums kept from the frame before (signed delta keys).

#include "kernels.h"
#include "register_tile.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr int LANES = 48;  // a multiple of VL * QUERY_VECS for every VL
constexpr int CHUNK = 64;  // keys whose weights are alive at a time

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
void accumulate(Tile& tile, const float* v, int keys) {
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
void attend(Tile& tile, const Keys& keys) {
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
void exchange(Tile& tile, const Keys& keys, int added) {
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

template <typename T>
const T* at(const void* base, int64_t token, int64_t stride, int64_t offset) {
    return static_cast<const T*>(base) + token * stride + offset;
}

// One query's channels, `step` floats apart; zeros for padding. `members` maps places in a group to tokens.
template <typename T>
INLINE void load_query(const Problem& p, int head, const int64_t* members, int place, float* to, int step) {
    int64_t token = members ? members[place] : place;
    if (token < 0) {
        for (int c = 0; c < p.channels; ++c) to[c * step] = 0;
        return;
    }
    const T* from = at<T>(p.q, token, p.q_stride, int64_t(head) * p.channels);
    for (int c = 0; c < p.channels; ++c) to[c * step] = to_float(from[c]);
}

// Fills a tile with queries, given by their place in the group.
template <typename T>
void load_queries(Tile& tile, const Problem& p, int head, const int64_t* members, const int32_t* places, int count) {
    tile.count = count;
    tile.lanes = round_up(count, VL);
    for (int i = 0; i < tile.lanes; ++i)  // nobody reads the lanes past the last query
        load_query<T>(p, head, members, places[std::min(i, count - 1)], tile.q.get() + i, LANES);
}

// Position terms of the queries in a few grid rows of a group, for one head.
class PositionTerms {
public:
    // Terms of at most `grid_rows` rows at a time.
    PositionTerms(const Problem& p, int grid_rows)
        : problem(p), row_width(round_up(p.key_rows, VL)), width(row_width + round_up(p.key_columns, VL)) {
        if (!p.row_table) return;
        terms = allocate(size_t(grid_rows) * p.columns * width);
        q = allocate(size_t(TILE_ROWS) * p.channels);
    }

    // Computes the terms of the grid rows [first, last).
    template <typename T>
    void compute(int head, const int64_t* members, int first, int last) {
        const Problem& p = problem;
        if (!p.row_table) return;
        origin = first * p.columns;
        for (int y = first; y < last; ++y)
            multiply<T>(head, members, y * p.columns, 1, p.columns, p.row_table + size_t(y) * p.channels * row_width,
                        row_width, 0);
        for (int x = 0; x < p.columns; ++x)
            multiply<T>(head, members, origin + x, p.columns, last - first,
                        p.column_table + size_t(x) * p.channels * (width - row_width), width - row_width, row_width);
    }

    // Copies the terms of a tile's queries, given by their place in the group.
    void read(Tile& tile, const int32_t* places) const {
        tile.has_bias = terms != nullptr;
        if (!tile.has_bias) return;
        for (int i = 0; i < tile.lanes; ++i) {  // nobody reads the lanes past the last query
            const float* from = terms.get() + size_t(places[std::min(i, tile.count - 1)] - origin) * width;
            for (int k = 0; k < problem.key_rows; ++k) tile.row_bias[k * LANES + i] = from[k];
            for (int k = 0; k < problem.key_columns; ++k) tile.column_bias[k * LANES + i] = from[row_width + k];
        }
    }

private:
    const Problem& problem;
    const int row_width, width;  // terms of a query: for key rows, and with those for key columns behind them
    int origin = 0;              // place of the first query
    Buffer terms;                // [query][width]
    Buffer q;                    // queries of a register tile, [query][channel]

    // Products of `count` queries, `step` places apart, with a table [channel][table_width].
    template <typename T>
    void multiply(int head, const int64_t* members, int begin, int step, int count, const float* table, int table_width,
                  int offset) {
        const int channels = problem.channels;
        for_row_tiles(0, count, [&](auto rows, int64_t done) {
            const int place = begin + int(done) * step;
            for (int i = 0; i < rows.value; ++i)
                load_query<T>(problem, head, members, place + i * step, q.get() + size_t(i) * channels, 1);
            for_column_tiles(table_width, [&](auto vecs, int column) {
                vec sums[rows.value][vecs.value] = {};
                multiply_rows(q.get(), channels, 1, table + column, table_width, channels, sums);
                store_tile(sums, terms.get() + size_t(place - origin) * width + offset + column,
                           ptrdiff_t(step) * width);
            });
        });
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
    Cuts(const Problem& p, int64_t groups, int threads) {
        int64_t items = std::max<int64_t>(1, groups * p.heads);
        int wanted = items % threads ? int((2 * threads + items - 1) / items) : 1;
        rows_per_part = (p.rows + std::min(wanted, p.rows) - 1) / std::min(wanted, p.rows);
        parts = (p.rows + rows_per_part - 1) / rows_per_part;
    }
};

// Grid rows whose position terms are alive at a time, so that these stay in the second cache level.
constexpr int BAND_ROWS = 16;

// Calls f(first, last) for bands of the grid rows [first, last).
template <typename F>
void for_bands(int first, int last, F f) {
    for (; first < last; first += BAND_ROWS) f(first, std::min(first + BAND_ROWS, last));
}

template <typename T>
void attend_groups(const Problem& p, const int64_t* members, int64_t groups, T* out, int64_t out_stride) {
    const int64_t keys_per_group = p.key_rows * p.key_columns, queries = p.rows * p.columns;
    const int threads =
        threads_for(2 * groups * queries * keys_per_group * p.heads * p.channels, PRODUCTS_PER_THREAD, p.threads);
    const Cuts cuts(p, groups, threads);
#pragma omp parallel num_threads(threads)
    {
        Keys keys(keys_per_group, p.channels);
        Tile tile(p.channels, p.key_rows, p.key_columns);
        PositionTerms terms(p, std::min(BAND_ROWS, p.rows));
#pragma omp for collapse(3) schedule(dynamic)
        for (int64_t group = 0; group < groups; ++group)
            for (int head = 0; head < p.heads; ++head)
                for (int part = 0; part < cuts.parts; ++part) {
                    const int64_t* own = members ? members + group * queries : nullptr;
                    int begin = part * cuts.rows_per_part, end = std::min(begin + cuts.rows_per_part, p.rows);
                    load_keys<T>(keys, p, head, own);
                    for_bands(begin, end, [&](int first, int last) {
                        terms.compute<T>(head, own, first, last);
                        int32_t places[LANES];
                        int count = 0;
                        auto run = [&] {
                            load_queries<T>(tile, p, head, own, places, count);
                            terms.read(tile, places);
                            attend(tile, keys);
                            for (int i = 0; i < count; ++i) {
                                T* to =
                                    out + (own ? own[places[i]] : places[i]) * out_stride + int64_t(head) * p.channels;
                                float factor = 1.0f / tile.normaliser[i];
                                for (int c = 0; c < p.channels; ++c)
                                    assign(to[c], tile.out[size_t(i) * tile.width + c] * factor);
                            }
                            count = 0;
                        };
                        for (int place = first * p.columns; place < last * p.columns; ++place) {
                            if (own && own[place] < 0) continue;
                            places[count++] = place;
                            if (count == LANES) run();
                        }
                        if (count) run();
                    });
                }
    }
}

// Attention of the windows that hold a selected token; `touched` receives their number in each stream.
template <typename T>
void attend_touched(const Problem& p, const Windows& w, const int64_t* index, int64_t selected, int64_t streams, T* out,
                    int64_t out_stride, int64_t* touched) {
    std::vector<uint8_t> marked(streams * w.count);
    for (int64_t i = 0; i < selected; ++i) marked[index[i] / w.tokens * w.count + w.of_token[index[i] % w.tokens]] = 1;
    const int64_t size = int64_t(p.rows) * p.columns;
    std::vector<int64_t> members;
    for (int64_t stream = 0; stream < streams; ++stream) {
        touched[stream] = 0;
        for (int64_t window = 0; window < w.count; ++window) {
            if (!marked[stream * w.count + window]) continue;
            ++touched[stream];
            for (const int64_t* m = w.members + window * size; m < w.members + (window + 1) * size; ++m)
                members.push_back(*m < 0 ? -1 : *m + stream * w.tokens);
        }
    }
    if (!members.empty()) attend_groups(p, members.data(), int64_t(members.size()) / size, out, out_stride);
}

template <typename T>
class Update {
public:
    Update(const Problem& p, const Sums& s, const Change& c, const Limits& l)
        : p(p), state(s), change(c), limits(l), all(p.key_rows * p.key_columns, p.channels),
          delta(c.renew ? int(2 * c.count) : 0, p.channels), tile(p.channels, p.key_rows, p.key_columns),
          terms(p, std::min(BAND_ROWS, p.rows)) {}

    // One head, queries in the grid rows [first, last).
    void run(int head, int first, int last) {
        this->head = head;
        all.count = 0;
        if (change.renew) load_delta();
        for_bands(first, last, [&](int first, int last) { run_band(first, last); });
    }

    int64_t renewed = 0, exchanged = 0;  // queries, over all heads

private:
    const Problem& p;
    const Sums& state;
    const Change& change;
    const Limits& limits;
    Keys all, delta;
    Tile tile;
    PositionTerms terms;
    int head = 0;
    std::vector<int32_t> anew;  // queries of the band to be computed over all keys

    void run_band(int first, int last) {
        terms.compute<T>(head, nullptr, first, last);
        anew.clear();
        if (change.renew)
            exchange_terms(first, last);
        else
            for (int place = first * p.columns; place < last * p.columns; ++place) anew.push_back(place);
        if (anew.empty()) return;
        if (!all.count) load_keys<T>(all, p, head, nullptr);
        for (size_t done = 0; done < anew.size(); done += LANES)
            compute(anew.data() + done, int(std::min<size_t>(LANES, anew.size() - done)));
        renewed += int64_t(anew.size());
    }

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

    void exchange_terms(int first, int last) {
        int32_t places[LANES];
        int count = 0;
        for (int place = first * p.columns; place < last * p.columns; ++place) {
            if (change.renew[place]) {
                anew.push_back(place);
                continue;
            }
            places[count++] = place;
            if (count == LANES) {
                exchange_tile(places, count);
                count = 0;
            }
        }
        if (count) exchange_tile(places, count);
    }

    void exchange_tile(const int32_t* places, int count) {
        if (!change.count) return;
        load_queries<T>(tile, p, head, nullptr, places, count);
        terms.read(tile, places);
        for (int i = 0; i < tile.lanes; ++i) tile.reference[i] = i < count ? state.references[slot(places[i])] : 0;
        for (int i = 0; i < count; ++i)
            copy_sums(state.sums + slot(places[i]) * p.channels, tile.out.get() + size_t(i) * tile.width);
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

    void compute(const int32_t* places, int count) {
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
    const int64_t keys = change.renew ? 2 * change.count : p.key_rows * p.key_columns;
    const int threads =
        threads_for(2 * p.rows * p.columns * keys * p.heads * p.channels, PRODUCTS_PER_THREAD, p.threads);
    const Cuts cuts(p, 1, threads);
    int64_t exchanged = 0, renewed = 0;
#pragma omp parallel reduction(+ : exchanged, renewed) num_threads(threads)
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
extern "C" void attend_groups_bf16(const Problem* p, const int64_t* members, int64_t groups, void* out,
                                   int64_t stride) {
    attend_groups<bf16>(*p, members, groups, static_cast<bf16*>(out), stride);
}

// The same for the windows that hold one of the `selected` tokens, of all streams.
extern "C" void attend_touched_f32(const Problem* p, const Windows* windows, const int64_t* index, int64_t selected,
                                   int64_t streams, void* out, int64_t stride, int64_t* touched) {
    attend_touched<float>(*p, *windows, index, selected, streams, static_cast<float*>(out), stride, touched);
}
extern "C" void attend_touched_bf16(const Problem* p, const Windows* windows, const int64_t* index, int64_t selected,
                                    int64_t streams, void* out, int64_t stride, int64_t* touched) {
    attend_touched<bf16>(*p, *windows, index, selected, streams, static_cast<bf16*>(out), stride, touched);
}

// Brings one stream's sums up to date; `executed` receives the numbers of (head, query) pairs whose terms were
// exchanged, and that were computed anew.
extern "C" void update_f32(const Problem* p, const Sums* sums, const Change* change, const Limits* limits,
                           int64_t* executed) {
    update<float>(*p, *sums, *change, *limits, executed);
}
extern "C" void update_bf16(const Problem* p, const Sums* sums, const Change* change, const Limits* limits,
                            int64_t* executed) {
    update<bf16>(*p, *sums, *change, *limits, executed);
}

// Floats of a vector: the columns of position tables are filled up to whole vectors.
extern "C" int32_t vector_length() { return VL; }
