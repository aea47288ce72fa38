// A later frame in one call: every block's gates, linear layers, attention and buffers, one after the other. In a small
// model, calling them one by one from Python takes longer than they do.

#include "kernels.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr int64_t MLP_ROWS = 1024;  // rows of an MLP at a time: their hidden values are still in cache when read again

struct Gate {
    float* reference;
    Norm norm;
};

struct Layer {
    const float *weights, *packed, *bias;  // weights as the parameter has them, and packed
};

struct Block {
    Gate qkv_gate, projection_gate, mlp_gate;
    Layer qkv, projection, fc1, fc2;
    float *qkv_buffer, *projection_buffer, *mlp_buffer;
    Problem attention;     // on the QKV buffer: of all streams with windows, of the first stream without
    Windows windows;       // no members: every token sees the whole grid
    float* window_output;  // attention's output, kept from frame to frame; with windows alone
    Sums sums;             // of all streams; without windows alone
};

struct Frame {
    const Block* blocks;
    int64_t depth, streams, tokens;
    int64_t selected;  // tokens that every gate chooses in each stream
    int32_t channels, hidden;
    int32_t recompute_all;  // too many keys change for exchanging their terms
    int32_t threads;
    Limits limits;
    float* x;           // [streams][tokens][channels]: in, the embedded tokens; out, the last block's
    float* norms;       // [block][gate][streams][tokens]
    int64_t* index;     // [block][gate][streams * selected]
    int64_t* executed;  // [block][streams][2]: windows computed and 0, or queries exchanged and computed anew
};

struct Free {
    void operator()(float* p) const { std::free(p); }
};

class Runner {
public:
    explicit Runner(const Frame& f)
        : f(f), count(f.streams * f.selected), rows(allocate(count * f.channels)),
          results(allocate(3 * count * f.channels)), old(allocate(2 * count * f.channels)),
          hidden(allocate(std::min(count, MLP_ROWS) * f.hidden)), renew(f.tokens), keys(f.selected) {}

    void run(int64_t number) {
        const Block& b = f.blocks[number];
        const int64_t* index = choose(number, 0, f.x, b.qkv_gate);
        multiply(b.qkv, rows.get(), count, f.channels, 3 * f.channels, false, results.get());
        const float* attention = attend(b, index, f.executed + 2 * f.streams * number);
        index = choose(number, 1, attention, b.projection_gate);
        multiply(b.projection, rows.get(), count, f.channels, f.channels, false, results.get());
        add(b.projection_buffer, index);
        index = choose(number, 2, f.x, b.mlp_gate);
        for (int64_t first = 0; first < count; first += MLP_ROWS) {
            const int64_t part = std::min(MLP_ROWS, count - first);
            multiply(b.fc1, rows.get() + first * f.channels, part, f.channels, f.hidden, true, hidden.get());
            multiply(b.fc2, hidden.get(), part, f.hidden, f.channels, false, results.get() + first * f.channels);
        }
        add(b.mlp_buffer, index);
    }

private:
    using Buffer = std::unique_ptr<float[], Free>;

    const Frame& f;
    const int64_t count;   // rows, of all streams
    Buffer rows, results;  // what a gate sent on, and what a layer made of it
    Buffer old;            // former keys and values of the rows
    Buffer hidden;         // of the MLP
    Buffer output;         // attention's output, where it is not kept
    std::vector<uint8_t> renew;
    std::vector<int64_t> keys;

    static Buffer allocate(int64_t values) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, std::max<int64_t>(values, 1) * sizeof(float))) throw std::bad_alloc();
        return Buffer(static_cast<float*>(memory));
    }

    // Fills `rows`; returns their indices.
    const int64_t* choose(int64_t block, int gate, const float* x, const Gate& g) {
        const int64_t place = 3 * block + gate;
        int64_t* index = f.index + place * count;
        const Tokens<float> tokens{x, g.reference, f.streams, f.tokens, f.channels, g.norm, f.threads};
        gate_f32(&tokens, f.selected, f.norms + place * f.streams * f.tokens, index, rows.get());
        return index;
    }

    void multiply(const Layer& layer, const float* from, int64_t number, int inputs, int outputs, bool gelu,
                  float* to) {
        const Product product{from, number, inputs, outputs, layer.packed, layer.bias, gelu, to, f.threads};
        linear(&product);
    }

    void add(float* buffer, const int64_t* index) {
        store_and_add_f32(f.x, buffer, f.streams * f.tokens, f.channels, index, count, results.get(), f.x, f.threads);
    }

    // Attention over the buffered queries, keys and values, which take the new rows first.
    const float* attend(const Block& b, const int64_t* index, int64_t* executed) {
        const int64_t width = 3 * f.channels;
        for (int64_t i = 0; i < count; ++i) {
            float* kept = b.qkv_buffer + index[i] * width;
            if (!b.windows.members) std::copy_n(kept + f.channels, 2 * f.channels, old.get() + i * 2 * f.channels);
            std::copy_n(results.get() + i * width, width, kept);
        }
        return b.windows.members ? attend_windows(b, index, executed) : attend_globally(b, index, executed);
    }

    const float* attend_windows(const Block& b, const int64_t* index, int64_t* executed) {
        std::vector<int64_t> touched(f.streams);
        attend_touched_f32(&b.attention, &b.windows, index, count, f.streams, b.window_output, f.channels,
                           touched.data());
        for (int64_t stream = 0; stream < f.streams; ++stream) {
            executed[2 * stream] = touched[stream];
            executed[2 * stream + 1] = 0;
        }
        return b.window_output;
    }

    const float* attend_globally(const Block& b, const int64_t* index, int64_t* executed) {
        const int64_t size = f.tokens * f.channels, queries = f.tokens * b.attention.heads;
        if (!output) output = allocate(f.streams * size);
        for (int64_t stream = 0; stream < f.streams; ++stream) {
            const Sums& all = b.sums;
            const Sums sums{all.sums + stream * size, all.normalisers + stream * queries,
                            all.references + stream * queries, all.drift + stream * queries};
            exchange(b, sums, stream, index + stream * f.selected, executed + 2 * stream);
            divide_sums(sums.sums, sums.normalisers, f.tokens, b.attention.heads, b.attention.channels,
                        output.get() + stream * size, f.threads);
        }
        return output.get();
    }

    void exchange(const Block& b, const Sums& sums, int64_t stream, const int64_t* index, int64_t* executed) {
        executed[0] = executed[1] = 0;
        if (!f.selected) return;
        Problem problem = b.attention;
        const int64_t offset = stream * f.tokens * 3 * f.channels;
        problem.q = static_cast<const float*>(problem.q) + offset;
        problem.k = static_cast<const float*>(problem.k) + offset;
        problem.v = static_cast<const float*>(problem.v) + offset;
        std::fill(renew.begin(), renew.end(), 0);
        for (int64_t i = 0; i < f.selected; ++i) {
            keys[i] = index[i] - stream * f.tokens;
            renew[keys[i]] = 1;
        }
        const float* before = old.get() + stream * f.selected * 2 * f.channels;
        const Change change{f.recompute_all ? nullptr : renew.data(), keys.data(), before,
                            f.recompute_all ? 0 : f.selected};
        update_f32(&problem, &sums, &change, &f.limits, executed);
    }
};

bool agrees(const Layer& layer, int outputs, int inputs) {
    return packed_agrees(layer.weights, outputs, inputs, layer.packed);
}

}  // namespace

// Runs all blocks on x, in place. Returns 0, with nothing touched, if weights changed after they were packed.
extern "C" int32_t run_frame(const Frame* frame) {
    const Frame& f = *frame;
    for (const Block* b = f.blocks; b < f.blocks + f.depth; ++b)
        if (!agrees(b->qkv, 3 * f.channels, f.channels) || !agrees(b->projection, f.channels, f.channels) ||
            !agrees(b->fc1, f.hidden, f.channels) || !agrees(b->fc2, f.channels, f.hidden))
            return 0;
    Runner runner(f);
    for (int64_t block = 0; block < f.depth; ++block) runner.run(block);
    return 1;
}
