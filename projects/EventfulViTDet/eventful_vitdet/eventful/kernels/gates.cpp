// What gates do with all tokens of a frame, in one pass over them: residual additions, layer norms and error norms.

#include "simd.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {

// Reading state of another type a vector at a time.
INLINE vec read(const float* p) { return load(p); }
INLINE vec read(const bf16* p) {
    uvec bits;
    for (int i = 0; i < VL; ++i) bits[i] = uint32_t(p[i].bits) << 16;
    return reinterpret_cast<vec>(bits);
}

struct Norm {
    const float *weight, *bias;  // null: values as they are
    float eps;
};

struct Statistics {
    float mean = 0, scale = 1;
};

Statistics statistics(const float* x, int channels, const Norm& norm) {
    Statistics s;
    if (!norm.weight) return s;
    int whole = channels / VL * VL;
    vec total{};
    for (int c = 0; c < whole; c += VL) total += load(x + c);
    float mean = sum(total);
    for (int c = whole; c < channels; ++c) mean += x[c];
    s.mean = mean / channels;
    vec squares{};
    for (int c = 0; c < whole; c += VL) {
        vec d = load(x + c) - s.mean;
        squares += d * d;
    }
    float variance = sum(squares);
    for (int c = whole; c < channels; ++c) variance += (x[c] - s.mean) * (x[c] - s.mean);
    s.scale = 1.0f / std::sqrt(variance / channels + norm.eps);
    return s;
}

INLINE float normalised(float x, int c, const Statistics& s, const Norm& norm) {
    return norm.weight ? (x - s.mean) * s.scale * norm.weight[c] + norm.bias[c] : x;
}

// |norm(x) - reference|
template <typename T>
float distance(const float* x, const T* reference, int channels, const Norm& norm) {
    const Statistics s = statistics(x, channels, norm);
    int whole = channels / VL * VL;
    vec squares{};
    for (int c = 0; c < whole; c += VL) {
        vec value = load(x + c);
        if (norm.weight) value = (value - s.mean) * s.scale * load(norm.weight + c) + load(norm.bias + c);
        vec d = value - read(reference + c);
        squares += d * d;
    }
    float total = sum(squares);
    for (int c = whole; c < channels; ++c) {
        float d = normalised(x[c], c, s, norm) - to_float(reference[c]);
        total += d * d;
    }
    return std::sqrt(total);
}

template <typename T>
void errors(const float* x, const T* reference, int64_t tokens, int channels, const Norm& norm, float* result, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < tokens; ++i)
        result[i] = distance(x + i * channels, reference + i * channels, channels, norm);
}

template <typename T>
void take(const float* x, T* reference, const int64_t* index, int64_t count, int channels, const Norm& norm, float* rows,
          int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
        const float* from = x + index[i] * channels;
        const Statistics s = statistics(from, channels, norm);
        T* kept = reference + index[i] * channels;
        for (int c = 0; c < channels; ++c) {
            float value = normalised(from[c], c, s, norm);
            rows[i * channels + c] = value;
            assign(kept[c], value);
        }
    }
}

}  // namespace

// result[token] = |norm(x) - reference|, for x and reference of [tokens][channels].
extern "C" void errors_f32(const float* x, const float* reference, int64_t tokens, int channels, const Norm* norm,
                           float* result, int threads) {
    errors(x, reference, tokens, channels, *norm, result, threads);
}
extern "C" void errors_bf16(const float* x, const bf16* reference, int64_t tokens, int channels, const Norm* norm,
                            float* result, int threads) {
    errors(x, reference, tokens, channels, *norm, result, threads);
}

// rows = norm(x)[index], stored in the reference too.
extern "C" void take_f32(const float* x, float* reference, const int64_t* index, int64_t count, int channels,
                         const Norm* norm, float* rows, int threads) {
    take(x, reference, index, count, channels, *norm, rows, threads);
}
extern "C" void take_bf16(const float* x, bf16* reference, const int64_t* index, int64_t count, int channels,
                          const Norm* norm, float* rows, int threads) {
    take(x, reference, index, count, channels, *norm, rows, threads);
}

// out[token] = sums / normalisers, the heads of a token side by side; from [head][token][channel] and [head][token].
extern "C" void divide_sums(const float* sums, const float* normalisers, int64_t tokens, int heads, int channels,
                            float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < tokens; ++i)
        for (int h = 0; h < heads; ++h) {
            const float* from = sums + (h * tokens + i) * channels;
            float* to = out + (i * heads + h) * channels;
            float factor = 1.0f / normalisers[h * tokens + i];
            for (int c = 0; c < channels; ++c) to[c] = from[c] * factor;
        }
}

// The `count` tokens with the largest norms of each stream, [streams][count], ascending, as indices into all tokens of
// all streams. Of equal norms the earlier token goes first; NaN counts as largest.
extern "C" void largest(const float* norms, int64_t streams, int64_t tokens, int64_t count, int64_t* index) {
    std::vector<int64_t> order(tokens);
    for (int64_t stream = 0; stream < streams; ++stream) {
        const float* own = norms + stream * tokens;
        auto value = [own](int64_t i) { return own[i] == own[i] ? own[i] : INFINITY; };
        std::iota(order.begin(), order.end(), 0);
        auto before = [&](int64_t a, int64_t b) {
            return value(a) != value(b) ? value(a) > value(b) : a < b;
        };
        std::nth_element(order.begin(), order.begin() + count, order.end(), before);
        std::sort(order.begin(), order.begin() + count);
        for (int64_t i = 0; i < count; ++i) index[stream * count + i] = order[i] + stream * tokens;
    }
}
