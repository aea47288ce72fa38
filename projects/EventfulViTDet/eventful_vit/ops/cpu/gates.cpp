// What gates do with all tokens of a frame, in one pass over them: residual additions, layer norms and error norms.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

struct Statistics {
    float mean = 0, scale = 1;
};

// Sum of at(c), a vector or a single value, over all channels. Four partial sums do not wait for one another.
template <typename F>
INLINE float sum_over(int channels, F at) {
    vec partial[4] = {};
    int c = 0;
    for (; c + 4 * VL <= channels; c += 4 * VL)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) partial[j] += at(c + j * VL, vec{});
    for (; c + VL <= channels; c += VL) partial[0] += at(c, vec{});
    float total = sum((partial[0] + partial[1]) + (partial[2] + partial[3]));
    for (; c < channels; ++c) total += at(c, 0.0f);
    return total;
}

INLINE vec value(const float* p, vec) { return load(p); }
INLINE float value(const float* p, float) { return *p; }
INLINE vec value(const bf16* p, vec) { return read(p); }
INLINE float value(const bf16* p, float) { return to_float(*p); }

INLINE Statistics statistics(const float* x, int channels, const Gate& g) {
    Statistics s;
    if (!g.normalised) return s;
    s.mean = sum_over(channels, [=](int c, auto kind) { return value(x + c, kind); }) / channels;
    const float variance = sum_over(channels, [=, mean = s.mean](int c, auto kind) {
        auto d = value(x + c, kind) - mean;
        return d * d;
    });
    s.scale = 1.0f / std::sqrt(variance / channels + g.eps);
    return s;
}

template <typename Values>  // a vector or a single value
INLINE Values normalised(const float* x, int c, const Statistics& s, const Gate& g, Values kind) {
    Values result = value(x + c, kind);
    return g.normalised ? (result - s.mean) * s.scale * value(g.weight + c, kind) + value(g.bias + c, kind) : result;
}

// |norm(x) - reference|
template <typename T>
INLINE float distance(const float* x, const T* reference, int channels, const Gate& g) {
    const Statistics s = statistics(x, channels, g);
    return std::sqrt(sum_over(channels, [&](int c, auto kind) {
        auto d = normalised(x, c, s, g, kind) - value(reference + c, kind);
        return d * d;
    }));
}

template <typename T>
INLINE void add(float* x, const T* buffer, int64_t values) {
    for (int64_t i = 0; i < values; ++i) x[i] += to_float(buffer[i]);
}

template <typename T>
void compare(const Gate& g, int threads) {
    const T *reference = static_cast<const T*>(g.reference), *added = static_cast<const T*>(g.added);
    const int64_t tokens = g.streams * g.tokens;
    share_ranges(tokens, threads_for(tokens * g.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i) {
                         float* x = g.x + i * g.channels;
                         if (added) add(x, added + i * g.channels, g.channels);
                         g.norms[i] = g.flush && g.flush[i / g.tokens]
                                          ? INFINITY
                                          : distance(x, reference + i * g.channels, g.channels, g);
                     }
                 });
}

// Writes the places of one stream's tokens that go on; returns their number.
int64_t choose(const Gate& g, int64_t stream, std::vector<int64_t>& order, int64_t* index) {
    const float* norms = g.norms + stream * g.tokens;
    const bool all = g.flush && g.flush[stream];
    auto value = [norms](int64_t i) { return norms[i] == norms[i] ? norms[i] : INFINITY; };
    order.clear();
    for (int64_t i = 0; i < g.tokens; ++i)
        if (all || value(i) > *g.threshold) order.push_back(i);
    const int64_t count = all ? g.tokens : std::min<int64_t>(*g.count, order.size());
    if (count < int64_t(order.size())) {
        auto before = [&](int64_t a, int64_t b) { return value(a) != value(b) ? value(a) > value(b) : a < b; };
        std::nth_element(order.begin(), order.begin() + count, order.end(), before);
        std::sort(order.begin(), order.begin() + count);
    }
    for (int64_t i = 0; i < count; ++i) index[i] = order[i] + stream * g.tokens;
    return count;
}

// norm(x) as a row, and as the new reference where there is one.
template <typename T>
INLINE void send_token(const float* x, const Gate& g, float* row, T* reference) {
    const int whole = g.channels / VL * VL;
    const Statistics s = statistics(x, g.channels, g);
    for (int c = 0; c < whole; c += VL) {
        vec result = normalised(x, c, s, g, vec{});
        store(row + c, result);
        if (reference) write(reference + c, result);
    }
    for (int c = whole; c < g.channels; ++c) {
        row[c] = normalised(x, c, s, g, 0.0f);
        if (reference) assign(reference[c], row[c]);
    }
}

template <typename T>
void send(const Gate& g, int64_t selected, int threads) {
    T* reference = static_cast<T*>(g.reference);
    share_ranges(selected, threads_for(selected * g.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i) {
                         const int64_t place = (g.index ? g.index[i] : i) * g.channels;
                         send_token(g.x + place, g, g.rows + i * g.channels, reference ? reference + place : nullptr);
                     }
                 });
}

template <typename T>
void store(const Store& s, int threads) {
    T *buffer = static_cast<T*>(s.buffer), *old = static_cast<T*>(s.old);
    const int64_t selected = s.selected.count();
    share_ranges(selected, threads_for(selected * s.width, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i) {
                         T* place = buffer + (s.index ? s.index[i] : i) * s.width;
                         if (old) std::copy_n(place + s.first, s.width - s.first, old + i * (s.width - s.first));
                         for (int c = 0; c < s.width; ++c) assign(place[c], s.rows[i * s.width + c]);
                     }
                 });
}

template <typename T>
void add_all(const Add& a, int threads) {
    const T* buffer = static_cast<const T*>(a.buffer);
    share_ranges(a.values, threads_for(a.values, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) { add(a.x + first, buffer + first, last - first); });
}

// f(T{}) for the type of a state.
template <typename F>
void for_type(int32_t is_bf16, F f) {
    if (is_bf16)
        f(bf16{});
    else
        f(0.0f);
}

}  // namespace

// |norm(x) - reference| of every token.
KERNEL(error_norms, Gate) {
    for_type(arguments.is_bf16, [&](auto type) { compare<decltype(type)>(arguments, threads); });
}

// norm(x) of the selected tokens, which becomes their reference.
KERNEL(send, Gate) {
    for_type(arguments.is_bf16,
             [&](auto type) { send<decltype(type)>(arguments, arguments.selected.count(), threads); });
}

// Adds a buffer to x, where there is one; then the norms, the tokens with the largest ones, and `send` of these. Of equal
// norms the earlier token goes first; NaN counts as largest.
KERNEL(gate, Gate) {
    const Gate& g = arguments;
    for_type(g.is_bf16, [&](auto type) {
        compare<decltype(type)>(g, threads);
        std::vector<int64_t> order;
        order.reserve(g.tokens);
        g.offsets[0] = 0;
        for (int64_t stream = 0; stream < g.streams; ++stream)
            g.offsets[stream + 1] = g.offsets[stream] + choose(g, stream, order, g.index + g.offsets[stream]);
        send<decltype(type)>(g, g.offsets[g.streams], threads);
    });
}

// Rows take their places; with `old`, what they replace is kept.
KERNEL(store, Store) {
    for_type(arguments.is_bf16, [&](auto type) { store<decltype(type)>(arguments, threads); });
}

// Adds all of a buffer to tokens.
KERNEL(add, Add) {
    for_type(arguments.is_bf16, [&](auto type) { add_all<decltype(type)>(arguments, threads); });
}

KERNEL(finite, Finite) {
    constexpr int64_t RANGE = 1 << 15;
    const int64_t ranges = (arguments.values + RANGE - 1) / RANGE;
    std::fill_n(arguments.result, arguments.streams, uint8_t(1));
    share_ranges(arguments.streams * ranges,
                 threads_for(arguments.streams * arguments.values, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i) {
                         const int64_t stream = i / ranges, begin = i % ranges * RANGE;
                         const float* x = arguments.x + stream * arguments.values + begin;
                         const int64_t count = std::min(RANGE, arguments.values - begin);
                         // x - x is zero for a finite number, and NaN otherwise: so is the sum.
                         const float zero = sum_over(int(count), [x](int c, auto kind) {
                             auto number = value(x + c, kind);
                             return number - number;
                         });
                         if (zero != 0) __atomic_store_n(arguments.result + stream, 0, __ATOMIC_RELAXED);
                     }
                 });
}
