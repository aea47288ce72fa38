// What concerns a frame as a whole: repeating the kernel calls of one, and noticing that weights changed.

#include "kernels.h"

// Runs recorded calls in their order (tape.py).
extern "C" int32_t eventful_replay(const Replay* frame, int32_t threads) {
    for (const Call* call = frame->calls; call < frame->calls + frame->count; ++call)
        if (const int32_t status = call->kernel(call->arguments, threads)) return status;
    return 0;
}

// A number that depends on a few bytes in a few places of every parameter (FNV-1a).
KERNEL(sample, Sample) {
    constexpr int64_t PLACES = 31;
    uint64_t hash = 14695981039346656037u;
    for (int64_t i = 0; i < arguments.count; ++i) {
        const auto* data = static_cast<const unsigned char*>(arguments.data[i]);
        const int64_t bytes = arguments.bytes[i], step = std::max<int64_t>(1, bytes / (4 * PLACES)) * 4;
        for (int64_t at = 0; at < bytes; at += step) {
            uint32_t word = 0;
            std::memcpy(&word, data + at, size_t(std::min<int64_t>(4, bytes - at)));
            hash = (hash ^ word) * 1099511628211u;
        }
    }
    *arguments.result = hash;
}

// Floats of a vector: the columns of position tables are filled up to whole vectors.
extern "C" int32_t eventful_vector_length() { return VL; }
