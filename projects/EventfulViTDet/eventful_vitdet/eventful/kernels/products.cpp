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

// Bias and activation of a tile's complete sums.
INLINE void finish(const Product& p, float* sums, ptrdiff_t step, int rows, int begin, int width) {
    for (int i = 0; i < rows; ++i) {
        float* values = sums + i * step;
        if (p.bias)
            for (int c = 0; c < width; ++c) values[c] += p.bias[begin + c];
        if (p.gelu)
            for (int c = 0; c < width; c += VL) store(values + c, gelu(load(values + c)));
    }
}

// One register tile: ROWS rows from `row` on, one panel, inputs [first, last).
template <int ROWS>
void run_tile(const Product& p, int64_t row, int panel, int first, int last) {
    const int begin = panel * PANEL, width = std::min(PANEL, p.outputs - begin);
    float* out = p.out + row * p.outputs + begin;
    // The last panel may be wider than the outputs: it is summed beside them.
    float aside[ROWS * PANEL];
    float* to = width == PANEL ? out : aside;
    const ptrdiff_t step = width == PANEL ? p.outputs : PANEL;
    vec sums[ROWS][OUT_VECS] = {};
    if (first) {
        if (to == aside)
            for (int i = 0; i < ROWS; ++i) std::copy_n(out + i * p.outputs, width, aside + i * PANEL);
        load_tile(to, step, sums);
    }
    multiply_rows(p.rows + row * p.inputs + first, p.inputs, 1, p.weights + (size_t(panel) * p.inputs + first) * PANEL,
                  PANEL, last - first, sums);
    store_tile(sums, to, step);
    if (last == p.inputs) finish(p, to, step, ROWS, begin, width);
    if (to == aside)
        for (int i = 0; i < ROWS; ++i) std::copy_n(aside + i * PANEL, width, out + i * p.outputs);
}

}  // namespace

// Floats of a packed weight matrix.
extern "C" int64_t packed_size(int32_t outputs, int32_t inputs) {
    return int64_t(divide_up(outputs, PANEL)) * PANEL * inputs;
}

// weights [outputs][inputs] -> packed, with zeros for the outputs that fill up the last panel.
extern "C" void pack(const float* weights, int32_t outputs, int32_t inputs, float* packed, int32_t threads) {
#pragma omp parallel for schedule(static) \
    num_threads(threads_for(int64_t(outputs) * inputs, VALUES_PER_THREAD, threads))
    for (int panel = 0; panel < divide_up(outputs, PANEL); ++panel)
        for (int k = 0; k < inputs; ++k)
            for (int c = 0; c < PANEL; ++c) {
                int output = panel * PANEL + c;
                packed[(size_t(panel) * inputs + k) * PANEL + c] =
                    output < outputs ? weights[int64_t(output) * inputs + k] : 0;
            }
}

// Whether a packed matrix still agrees with the weights, in a few dozen places over all of it.
extern "C" int32_t packed_agrees(const float* weights, int32_t outputs, int32_t inputs, const float* packed) {
    const int64_t size = int64_t(outputs) * inputs, step = std::max<int64_t>(1, size / 37);
    for (int64_t i = 0; i < size; i += step) {
        const int64_t output = i / inputs, k = i % inputs;
        const float kept = packed[(output / PANEL * inputs + k) * PANEL + output % PANEL];
        if (kept != weights[i] && (kept == kept || weights[i] == weights[i])) return 0;
    }
    return 1;
}

// out = rows W^T + bias, and GELU.
extern "C" void linear(const Product* product) {
    const Product& p = *product;
    const int panels = divide_up(p.outputs, PANEL);
    const int blocks = std::max(1, divide_up(p.count, BLOCK_ROWS));
    const int64_t rows = divide_up(divide_up(p.count, blocks), TILE_ROWS) * TILE_ROWS;
    // Few rows: threads share the panels. Many: they share blocks of rows, and panels to even out the last ones.
    const int threads = threads_for(p.count * p.inputs * p.outputs, PRODUCTS_PER_THREAD, p.threads);
    const int shares = threads == 1 ? 1 : std::min(panels, blocks < 4 * threads ? 2 * threads : 1);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (int block = 0; block < blocks; ++block)
        for (int share = 0; share < shares; ++share) {
            const int64_t row = block * rows, end = std::min(p.count, row + rows);
            for (int first = 0; first < p.inputs; first += BLOCK_INPUTS)
                for (int panel = panels * share / shares; panel < panels * (share + 1) / shares; ++panel)
                    for_row_tiles(row, end, [&](auto rows, int64_t at) {
                        run_tile<rows.value>(p, at, panel, first, std::min(p.inputs, first + BLOCK_INPUTS));
                    });
        }
}
