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

INLINE Statistics statistics(const float* x, int channels, const Norm& norm) {
    Statistics s;
    if (!norm.present) return s;
    s.mean = sum_over(channels, [=](int c, auto kind) { return value(x + c, kind); }) / channels;
    const float variance = sum_over(channels, [=, mean = s.mean](int c, auto kind) {
        auto d = value(x + c, kind) - mean;
        return d * d;
    });
    s.scale = 1.0f / std::sqrt(variance / channels + norm.eps);
    return s;
}

template <typename Values>  // a vector or a single value
INLINE Values normalised(const float* x, int c, const Statistics& s, const Norm& norm, Values kind) {
    Values result = value(x + c, kind);
    return norm.present ? (result - s.mean) * s.scale * value(norm.weight + c, kind) + value(norm.bias + c, kind)
                        : result;
}

// |norm(x) - reference|
template <typename T>
INLINE float distance(const float* x, const T* reference, int channels, const Norm& norm) {
    const Statistics s = statistics(x, channels, norm);
    return std::sqrt(sum_over(channels, [&](int c, auto kind) {
        auto d = normalised(x, c, s, norm, kind) - value(reference + c, kind);
        return d * d;
    }));
}

template <typename T>
void error_norms(const ErrorNorms& e, int threads) {
    const Tokens& t = e.tokens;
    const T* reference = static_cast<const T*>(t.reference);
    share_ranges(t.count, threads_for(t.count * t.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i)
                         e.norms[i] = distance(t.x + i * t.channels, reference + i * t.channels, t.channels, t.norm);
                 });
}

// norm(x) as a row, and as the new reference.
template <typename T>
INLINE void send_token(const float* x, int channels, const Norm& norm, float* row, T* reference) {
    const int whole = channels / VL * VL;
    const Statistics s = statistics(x, channels, norm);
    for (int c = 0; c < whole; c += VL) {
        vec result = normalised(x, c, s, norm, vec{});
        store(row + c, result);
        write(reference + c, result);
    }
    for (int c = whole; c < channels; ++c) {
        row[c] = normalised(x, c, s, norm, 0.0f);
        assign(reference[c], row[c]);
    }
}

template <typename T>
void send(const Send& s, int threads) {
    const Tokens& t = s.tokens;
    T* reference = static_cast<T*>(t.reference);
    share_ranges(s.selected, threads_for(s.selected * t.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t i = first; i < last; ++i)
                         send_token(t.x + s.index[i] * t.channels, t.channels, t.norm, s.rows + i * t.channels,
                                    reference + s.index[i] * t.channels);
                 });
}

// Rows take their places; with `old`, what they replace from column `first` on is kept.
template <typename T>
void store_rows(const Store& s) {
    T *buffer = static_cast<T*>(s.buffer), *old = static_cast<T*>(s.old);
    for (int64_t i = 0; i < s.selected; ++i) {
        T* place = buffer + s.index[i] * s.width;
        if (old) std::copy_n(place + s.first, s.width - s.first, old + i * (s.width - s.first));
        for (int c = 0; c < s.width; ++c) assign(place[c], s.rows[i * s.width + c]);
    }
}

template <typename T>
void store_and_add(const StoreAndAdd& a, int threads) {
    store_rows<T>(a.store);
    const int64_t values = a.tokens * a.store.width;
    const T* buffer = static_cast<const T*>(a.store.buffer);
    share_ranges(values, threads_for(values, VALUES_PER_THREAD, threads), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) a.out[i] = a.x[i] + to_float(buffer[i]);
    });
}

}  // namespace

// |norm(x) - reference| of every token.
KERNEL(error_norms, ErrorNorms) {
    if (arguments.tokens.reference_is_bf16)
        error_norms<bf16>(arguments, threads);
    else
        error_norms<float>(arguments, threads);
}

// The `count` tokens with the largest norms of each stream, ascending, as indices into all tokens of all streams. Of equal
// norms the earlier token goes first; NaN counts as largest.
KERNEL(largest, Largest) {
    std::vector<int64_t> order(arguments.tokens);
    for (int64_t stream = 0; stream < arguments.streams; ++stream) {
        const float* norms = arguments.norms + stream * arguments.tokens;
        int64_t* index = arguments.index + stream * arguments.count;
        auto value = [norms](int64_t i) { return norms[i] == norms[i] ? norms[i] : INFINITY; };
        std::iota(order.begin(), order.end(), 0);
        auto before = [&](int64_t a, int64_t b) { return value(a) != value(b) ? value(a) > value(b) : a < b; };
        std::nth_element(order.begin(), order.begin() + arguments.count, order.end(), before);
        std::sort(order.begin(), order.begin() + arguments.count);
        for (int64_t i = 0; i < arguments.count; ++i) index[i] = order[i] + stream * arguments.tokens;
    }
}

// norm(x) of the selected tokens, which becomes their reference.
KERNEL(send, Send) {
    if (arguments.tokens.reference_is_bf16)
        send<bf16>(arguments, threads);
    else
        send<float>(arguments, threads);
}

KERNEL(store, Store) {
    if (arguments.is_bf16)
        store_rows<bf16>(arguments);
    else
        store_rows<float>(arguments);
}

KERNEL(store_and_add, StoreAndAdd) {
    if (arguments.store.is_bf16)
        store_and_add<bf16>(arguments, threads);
    else
        store_and_add<float>(arguments, threads);
}
