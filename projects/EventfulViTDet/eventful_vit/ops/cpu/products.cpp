// Linear layers on packed weights: out = rows W^T + bias, with GELU where it follows.
//
// Weights are packed once into panels of PANEL outputs, [panel][input][output of the panel], so that a register tile of
// a few rows and one panel reads them in order. A block of rows and the panel at work stay in the second cache level.

#include "kernels.h"
#include "register_tile.h"

#include <algorithm>

namespace {

constexpr int PANEL = OUT_VECS * VL;  // outputs of a panel
constexpr int BLOCK_ROWS = 126;       // rows that one task multiplies with one panel after another
constexpr int BLOCK_INPUTS = 768;     // inputs that are summed before the next panel's turn

int divide_up(int64_t a, int64_t b) { return int((a + b - 1) / b); }

// erf to 1.5e-7, by formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions.
INLINE vec error_function(vec x) {
    vec size = maximum(x, -x);
    vec t = 1.0f / (1.0f + 0.3275911f * size);
    vec series = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    vec result = 1.0f - series * exponential(-size * size);
    return choose(x < splat(0.0f), -result, result);
}

INLINE vec gelu(vec x) { return 0.5f * x * (1.0f + error_function(x * 0.70710678f)); }

// What follows the complete sums of a tile.
INLINE void finish(const Linear& p, float* sums, ptrdiff_t step, int64_t row, int rows, int begin, int width) {
    for (int i = 0; i < rows; ++i) {
        float* values = sums + i * step;
        if (p.bias)
            for (int c = 0; c < width; ++c) values[c] += p.bias[begin + c];
        if (p.gelu)
            for (int c = 0; c < width; c += VL) store(values + c, gelu(load(values + c)));
        if (p.added) {
            const float* added = p.added + (row + i) % p.added_count * p.outputs + begin;
            for (int c = 0; c < width; ++c) values[c] += added[c];
        }
    }
}

// One register tile: ROWS rows from `row` on, one panel, inputs [first, last).
template <int ROWS>
void run_tile(const Linear& p, int64_t row, int panel, int first, int last) {
    const int begin = panel * PANEL, width = std::min(PANEL, p.outputs - begin);
    float* out = p.out + row * p.out_step + begin;
    // The last panel may be wider than the outputs: it is summed beside them.
    float aside[ROWS * PANEL];
    float* to = width == PANEL ? out : aside;
    const ptrdiff_t step = width == PANEL ? p.out_step : PANEL;
    vec sums[ROWS][OUT_VECS] = {};
    if (first) {
        if (to == aside)
            for (int i = 0; i < ROWS; ++i) std::copy_n(out + i * p.out_step, width, aside + i * PANEL);
        load_tile(to, step, sums);
    }
    multiply_rows(p.rows + row * p.inputs + first, p.inputs, 1, p.weights + (size_t(panel) * p.inputs + first) * PANEL,
                  PANEL, last - first, sums);
    store_tile(sums, to, step);
    if (last == p.inputs) finish(p, to, step, row, ROWS, begin, width);
    if (to == aside)
        for (int i = 0; i < ROWS; ++i) std::copy_n(aside + i * PANEL, width, out + i * p.out_step);
}

}  // namespace

// Floats of a packed weight matrix.
extern "C" int64_t eventful_packed_size(int32_t outputs, int32_t inputs) {
    return int64_t(divide_up(outputs, PANEL)) * PANEL * inputs;
}

// weights [outputs][inputs] -> packed, with zeros for the outputs that fill up the last panel.
KERNEL(pack, Pack) {
    const Pack& p = arguments;
    const int64_t values = int64_t(p.outputs) * p.inputs;
    share_ranges(divide_up(p.outputs, PANEL), threads_for(values, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t panel = first; panel < last; ++panel)
                         for (int k = 0; k < p.inputs; ++k)
                             for (int c = 0; c < PANEL; ++c) {
                                 const int64_t output = panel * PANEL + c;
                                 p.packed[(panel * p.inputs + k) * PANEL + c] =
                                     output < p.outputs ? p.weights[output * p.inputs + k] : 0;
                             }
                 });
}

KERNEL(linear, Linear) {
    const Linear& p = arguments;
    const int64_t count = p.number.count();
    const int panels = divide_up(p.outputs, PANEL);
    const int blocks = std::max(1, divide_up(count, BLOCK_ROWS));
    const int64_t rows = divide_up(divide_up(count, blocks), TILE_ROWS) * TILE_ROWS;
    // Few rows: threads share the panels. Many: they share blocks of rows, and panels to even out the last ones.
    const int most = threads_for(count * p.inputs * p.outputs, PRODUCTS_PER_THREAD, threads);
    const int shares = most == 1 ? 1 : std::min(panels, blocks < 4 * most ? 2 * most : 1);
    share_out(int64_t(blocks) * shares, most, [&](Pieces& pieces) {
        for (int64_t piece; (piece = pieces.next()) >= 0;) {
            const int64_t row = piece / shares * rows, share = piece % shares, end = std::min(count, row + rows);
            for (int first = 0; first < p.inputs; first += BLOCK_INPUTS)
                for (int panel = int(panels * share / shares); panel < int(panels * (share + 1) / shares); ++panel)
                    for_row_tiles(row, end, [&](auto rows, int64_t at) {
                        run_tile<rows.value>(p, at, panel, first, std::min(p.inputs, first + BLOCK_INPUTS));
                    });
        }
    });
}

KERNEL(scale_channels, ScaleChannels) {
    const ScaleChannels& p = arguments;
    share_ranges(p.number, threads_for(p.number * p.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t at = first * p.channels; at < last * p.channels; at += p.channels)
                         for (int c = 0; c < p.channels; ++c) p.out[at + c] = p.rows[at + c] * p.factors[c];
                 });
}

KERNEL(patches, Patches) {
    const Patches& p = arguments;
    const int64_t down = p.height / p.size, across = p.width / p.size, lines = p.channels * int64_t(p.size);
    const int64_t values = p.streams * p.channels * p.height * p.width;
    share_ranges(p.streams * down, threads_for(values, VALUES_PER_THREAD, threads), [&](int64_t first, int64_t last) {
        for (int64_t band = first; band < last; ++band)  // a row of patches
            for (int64_t line = 0; line < lines; ++line) {
                const int64_t channel = line / p.size, y = band % down * p.size + line % p.size;
                const float* from = p.images + ((band / down * p.channels + channel) * p.height + y) * p.width;
                for (int64_t x = 0; x < across; ++x)
                    std::copy_n(from + x * p.size, p.size, p.rows + ((band * across + x) * lines + line) * p.size);
            }
    });
}
