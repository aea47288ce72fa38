// What gates do with all tokens of a frame, in one pass over them: residual additions, layer norms and error norms.

#include "kernels.h"

#include <algorithm>
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
    if (!norm.weight) return s;
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
    return norm.weight ? (result - s.mean) * s.scale * value(norm.weight + c, kind) + value(norm.bias + c, kind)
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
void errors(const Tokens<T>& t, float* result) {
    const int64_t tokens = t.streams * t.tokens;
#pragma omp parallel for schedule(static) num_threads(threads_for(tokens * t.channels, VALUES_PER_THREAD, t.threads))
    for (int64_t i = 0; i < tokens; ++i)
        result[i] = distance(t.x + i * t.channels, t.reference + i * t.channels, t.channels, t.norm);
}

template <typename T>
void take(const Tokens<T>& t, const int64_t* index, int64_t count, float* rows) {
    const int whole = t.channels / VL * VL;
#pragma omp parallel for schedule(static) num_threads(threads_for(count * t.channels, VALUES_PER_THREAD, t.threads))
    for (int64_t i = 0; i < count; ++i) {
        const float* from = t.x + index[i] * t.channels;
        const Statistics s = statistics(from, t.channels, t.norm);
        T* kept = t.reference + index[i] * t.channels;
        float* to = rows + i * t.channels;
        for (int c = 0; c < whole; c += VL) {
            vec result = normalised(from, c, s, t.norm, vec{});
            store(to + c, result);
            write(kept + c, result);
        }
        for (int c = whole; c < t.channels; ++c) {
            to[c] = normalised(from, c, s, t.norm, 0.0f);
            assign(kept[c], to[c]);
        }
    }
}

// The `count` tokens with the largest norms of each stream, [streams][count], ascending, as indices into all tokens of
// all streams. Of equal norms the earlier token goes first; NaN counts as largest.
void largest(const float* norms, int64_t streams, int64_t tokens, int64_t count, int64_t* index) {
    std::vector<int64_t> order(tokens);
    for (int64_t stream = 0; stream < streams; ++stream) {
        const float* own = norms + stream * tokens;
        auto value = [own](int64_t i) { return own[i] == own[i] ? own[i] : INFINITY; };
        std::iota(order.begin(), order.end(), 0);
        auto before = [&](int64_t a, int64_t b) { return value(a) != value(b) ? value(a) > value(b) : a < b; };
        std::nth_element(order.begin(), order.begin() + count, order.end(), before);
        std::sort(order.begin(), order.begin() + count);
        for (int64_t i = 0; i < count; ++i) index[stream * count + i] = order[i] + stream * tokens;
    }
}

// A gate with a fixed budget: norms, indices and rows of the tokens that go on, which become the reference.
template <typename T>
void gate(const Tokens<T>& t, int64_t count, float* norms, int64_t* index, float* rows) {
    errors(t, norms);
    largest(norms, t.streams, t.tokens, count, index);
    take(t, index, t.streams * count, rows);
}

template <typename T>
void store_and_add(const float* x, T* buffer, int64_t tokens, int channels, const int64_t* index, int64_t count,
                   const float* rows, float* out, int threads) {
    for (int64_t i = 0; i < count; ++i)
        for (int c = 0; c < channels; ++c) assign(buffer[index[i] * channels + c], rows[i * channels + c]);
#pragma omp parallel for schedule(static) num_threads(threads_for(tokens * channels, VALUES_PER_THREAD, threads))
    for (int64_t i = 0; i < tokens; ++i) {
        const float* from = x + i * channels;
        const T* kept = buffer + i * channels;
        for (int c = 0; c < channels; ++c) out[i * channels + c] = from[c] + to_float(kept[c]);
    }
}

}  // namespace

// Every function for gates and buffers exists for each type that state may have.
#define FOR_STATE(T, suffix)                                                                                      \
    extern "C" void errors_##suffix(const Tokens<T>* t, float* result) { errors(*t, result); }                    \
    extern "C" void take_##suffix(const Tokens<T>* t, const int64_t* index, int64_t count, float* rows) {         \
        take(*t, index, count, rows);                                                                             \
    }                                                                                                             \
    extern "C" void gate_##suffix(const Tokens<T>* t, int64_t count, float* norms, int64_t* index, float* rows) { \
        gate(*t, count, norms, index, rows);                                                                      \
    }                                                                                                             \
    extern "C" void store_and_add_##suffix(const float* x, T* buffer, int64_t tokens, int channels,               \
                                           const int64_t* index, int64_t count, const float* rows, float* out,    \
                                           int threads) {                                                         \
        store_and_add(x, buffer, tokens, channels, index, count, rows, out, threads);                             \
    }

FOR_STATE(float, f32)
FOR_STATE(bf16, bf16)

// out[token] = sums / normalisers, the heads of a token side by side; from [head][token][channel] and [head][token].
extern "C" void divide_sums(const float* sums, const float* normalisers, int64_t tokens, int heads, int channels,
                            float* out, int threads) {
#pragma omp parallel for schedule(static) \
    num_threads(threads_for(tokens * heads * channels, VALUES_PER_THREAD, threads))
    for (int64_t i = 0; i < tokens; ++i)
        for (int h = 0; h < heads; ++h) {
            const float* from = sums + (h * tokens + i) * channels;
            float* to = out + (i * heads + h) * channels;
            float factor = 1.0f / normalisers[h * tokens + i];
            for (int c = 0; c < channels; ++c) to[c] = from[c] * factor;
        }
}
