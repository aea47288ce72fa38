// Vectors of floats for whatever the compiler targets, and the few functions on them that the kernels need.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#if defined(__AVX__) || defined(__SSE__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))

// Tells the processor that this thread waits in a loop.
INLINE void relax() {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Elements per vector, and the register tiles of the two matrix products: as many accumulators as leave a few
// registers.
#if defined(__AVX512F__)
constexpr int VL = 16, KEY_ROWS = 8, QUERY_VECS = 3, OUT_VECS = 4;
#elif defined(__AVX__)
constexpr int VL = 8, KEY_ROWS = 6, QUERY_VECS = 2, OUT_VECS = 2;
#else
constexpr int VL = 4, KEY_ROWS = 4, QUERY_VECS = 3, OUT_VECS = 2;
#endif

typedef float vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

struct bf16 {
    uint16_t bits;
};

INLINE vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
INLINE void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
INLINE vec splat(float x) { return x - vec{}; }
INLINE vec choose(ivec mask, vec a, vec b) { return mask ? a : b; }
INLINE vec maximum(vec a, vec b) { return choose(a > b, a, b); }

// a b + c, rounded once where the processor can. A compiler decides from loop to loop whether it fuses a product and a
// sum; results would then depend on how many queries or rows are computed together.
INLINE vec multiply_add(vec a, vec b, vec c) {
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX__) && defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

INLINE float to_float(float x) { return x; }
INLINE float to_float(bf16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

INLINE void assign(float& to, float x) { to = x; }
INLINE void assign(bf16& to, float x) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        to.bits = uint16_t((bits >> 16) | 0x40);  // NaN stays NaN
        return;
    }
    to.bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// A vector's worth of values of either type.
INLINE vec read(const float* p) { return load(p); }
INLINE vec read(const bf16* p) {
    uvec bits;
    for (int i = 0; i < VL; ++i) bits[i] = uint32_t(p[i].bits) << 16;
    return reinterpret_cast<vec>(bits);
}
INLINE void write(float* p, vec x) { store(p, x); }
INLINE void write(bf16* p, vec x) {
    for (int i = 0; i < VL; ++i) assign(p[i], x[i]);
}

INLINE float sum(vec x) {
    typedef float half __attribute__((vector_size(2 * VL), aligned(4), may_alias));
    half halves[2];
    std::memcpy(halves, &x, sizeof x);
    halves[0] += halves[1];
    float total[2] = {};  // additions that do not wait for one another
    for (int i = 0; i < VL / 2; i += 2) {
        total[0] += halves[0][i];
        total[1] += halves[0][i + 1];
    }
    return total[0] + total[1];
}

// e^x to about 2 ulp. Below -87.3 the result is 1e-38 instead of a denormal, above 88 it stays at 1e38; NaN stays NaN.
INLINE vec exponential(vec x) {
    x = choose(x < splat(-87.3f), splat(-87.3f), x);
    x = choose(x > splat(88.0f), splat(88.0f), x);
    const vec shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    vec n = multiply_add(x, splat(1.44269504f), shift);
    ivec whole = reinterpret_cast<ivec>(n) - reinterpret_cast<ivec>(shift);
    n = n - shift;
    vec r = multiply_add(n, splat(-0.693145752f), x);
    r = multiply_add(n, splat(-1.42860677e-6f), r);
    vec p = splat(1.3888889e-3f);
    for (float c : {8.3333333e-3f, 4.1666667e-2f, 1.6666667e-1f, 0.5f, 1.0f, 1.0f}) p = multiply_add(p, r, splat(c));
    return reinterpret_cast<vec>(reinterpret_cast<ivec>(p) + (whole << 23));
}
