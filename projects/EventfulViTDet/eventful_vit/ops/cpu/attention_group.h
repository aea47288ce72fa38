// Where a tile's queries, keys and position terms come from: the tokens of a group, which is a window or the whole
// grid.
#pragma once

#include "attention_tile.h"

namespace {

// Tokens that attend to each other. Places in a group are row-major over its grid.
struct Group {
    int64_t stream;
    const int64_t* members;  // the token at each place, -1 for padding; null: all tokens of the stream in order

    int64_t token(int64_t place) const { return members ? members[place] : place; }
};

template <typename T>
const T* at(const void* base, int64_t stream_step, int64_t token_step, int64_t stream, int64_t token, int64_t offset) {
    return static_cast<const T*>(base) + stream * stream_step + token * token_step + offset;
}

// One query's channels, `step` floats apart; zeros for padding.
template <typename T>
INLINE void load_query(const Attention& a, int head, const Group& group, int place, float* to, int step) {
    const int64_t token = group.token(place);
    if (token < 0) {
        for (int c = 0; c < a.channels; ++c) to[c * step] = 0;
        return;
    }
    const T* from = at<T>(a.q, a.q_stream, a.q_token, group.stream, token, int64_t(head) * a.channels);
    for (int c = 0; c < a.channels; ++c) to[c * step] = to_float(from[c]);
}

// Fills a tile with queries, given by their places.
template <typename T>
void load_queries(Tile& tile, const Attention& a, int head, const Group& group, const int32_t* places, int count) {
    tile.count = count;
    tile.lanes = round_up(count, VL);
    for (int i = 0; i < tile.lanes; ++i)  // nobody reads the lanes past the last query
        load_query<T>(a, head, group, places[std::min(i, count - 1)], tile.q.get() + i, LANES);
}

// One key of a stream, old or new.
template <typename T>
void add_key(Keys& keys, const Attention& a, const T* k, const T* v, float sign, int64_t key) {
    keys.add(k, v, a.scale, sign, int(key / a.key_columns), int(key % a.key_columns));
}

// All keys of a group, for one head.
template <typename T>
void load_keys(Keys& keys, const Attention& a, int head, const Group& group) {
    keys.count = 0;
    const int64_t offset = int64_t(head) * a.channels, width = int64_t(a.heads) * a.channels;
    const std::vector<T> zeros(a.padding ? 0 : a.channels, T{});
    for (int64_t key = 0; key < int64_t(a.key_rows) * a.key_columns; ++key) {
        const int64_t token = group.token(key);
        const T* padding = a.padding ? static_cast<const T*>(a.padding) + offset : nullptr;
        const T* k = token < 0 ? (padding ? padding + width : zeros.data())
                               : at<T>(a.k, a.kv_stream, a.kv_token, group.stream, token, offset);
        const T* v = token < 0 ? (padding ? padding + 2 * width : zeros.data())
                               : at<T>(a.v, a.kv_stream, a.kv_token, group.stream, token, offset);
        add_key(keys, a, k, v, 1.0f, key);
    }
}

// Position terms of the queries in a few grid rows of a group, for one head.
class PositionTerms {
public:
    // Terms of at most `grid_rows` rows at a time.
    PositionTerms(const Attention& a, int grid_rows)
        : problem(a), row_width(round_up(a.key_rows, VL)), width(row_width + round_up(a.key_columns, VL)) {
        if (!a.row_table) return;
        terms = allocate(size_t(grid_rows) * a.columns * width);
        q = allocate(size_t(TILE_ROWS) * a.channels);
    }

    // Computes the terms of the grid rows [first, last).
    template <typename T>
    void compute(int head, const Group& group, int first, int last) {
        const Attention& a = problem;
        if (!a.row_table) return;
        origin = first * a.columns;
        for (int y = first; y < last; ++y)
            multiply<T>(head, group, y * a.columns, 1, a.columns, a.row_table + size_t(y) * a.channels * row_width,
                        row_width, 0);
        for (int x = 0; x < a.columns; ++x)
            multiply<T>(head, group, origin + x, a.columns, last - first,
                        a.column_table + size_t(x) * a.channels * (width - row_width), width - row_width, row_width);
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
    const Attention& problem;
    const int row_width, width;  // terms of a query: for key rows, and with those for key columns behind them
    int origin = 0;              // place of the first query
    Buffer terms;                // [query][width]
    Buffer q;                    // queries of a register tile, [query][channel]

    // Products of `count` queries, `step` places apart, with a table [channel][table_width].
    template <typename T>
    void multiply(int head, const Group& group, int begin, int step, int count, const float* table, int table_width,
                  int offset) {
        const int channels = problem.channels;
        for_row_tiles(0, count, [&](auto rows, int64_t done) {
            const int place = begin + int(done) * step;
            for (int i = 0; i < rows.value; ++i)
                load_query<T>(problem, head, group, place + i * step, q.get() + size_t(i) * channels, 1);
            for_column_tiles(table_width, [&](auto vecs, int column) {
                vec sums[rows.value][vecs.value] = {};
                multiply_rows(q.get(), channels, 1, table + column, table_width, channels, sums);
                store_tile(sums, terms.get() + size_t(place - origin) * width + offset + column,
                           ptrdiff_t(step) * width);
            });
        });
    }
};

// Grid rows whose position terms are alive at a time, so that these stay in the second cache level.
constexpr int BAND_ROWS = 16;

inline int band_rows(const Attention& a) { return a.row_table ? std::min(BAND_ROWS, a.rows) : a.rows; }

// Calls f(first, last) for bands of the grid rows [first, last).
template <typename F>
void for_bands(const Attention& a, int first, int last, F f) {
    for (const int rows = band_rows(a); first < last; first += rows) f(first, std::min(first + rows, last));
}

// Work is cut into (group, head, rows of the query grid), so that all threads have some.
struct Cuts {
    int64_t parts, rows_per_part;
    Cuts(const Attention& a, int64_t groups, int threads) {
        const int64_t items = std::max<int64_t>(1, groups * a.heads);
        const int64_t wanted = std::min<int64_t>(items % threads ? (2 * threads + items - 1) / items : 1, a.rows);
        rows_per_part = (a.rows + wanted - 1) / wanted;
        parts = (a.rows + rows_per_part - 1) / rows_per_part;
    }
};

// body(work, group, head, first row, last row) for all pieces of the work; every thread has its own `work`, which
// make() returns.
template <typename Make, typename F>
void for_pieces(const Attention& a, int64_t groups, int threads, Make make, F body) {
    const Cuts cuts(a, groups, threads);
    share_out(groups * a.heads * cuts.parts, threads, [&](Pieces& pieces) {
        auto work = make();
        for (int64_t piece; (piece = pieces.next()) >= 0;) {
            const int64_t item = piece / cuts.parts;
            const int first = int(piece % cuts.parts * cuts.rows_per_part);
            body(*work, item / a.heads, int(item % a.heads), first, std::min(first + int(cuts.rows_per_part), a.rows));
        }
    });
}

// values * factor, as a row of an output.
INLINE void put(const Output& out, int64_t stream, int64_t token, int64_t offset, const float* values, int count,
                float factor) {
    const int64_t place = stream * out.stream + token * out.token + offset;
    if (out.is_bf16)
        for (int c = 0; c < count; ++c) assign(static_cast<bf16*>(out.data)[place + c], values[c] * factor);
    else
        for (int c = 0; c < count; ++c) static_cast<float*>(out.data)[place + c] = values[c] * factor;
}

}  // namespace
