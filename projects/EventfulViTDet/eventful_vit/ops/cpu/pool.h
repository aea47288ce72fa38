// Threads that share out a kernel's work.
//
// Workers spin for some microseconds after a task, since the next kernel of a frame follows at once, and then sleep: on
// a busy machine nobody burns time that others could use. Work is taken piece by piece, and nobody waits for a worker
// that has not begun: if the other cores are taken, the calling thread does the work itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

// Numbers 0 ... count - 1, each handed out once.
class Pieces {
public:
    explicit Pieces(int64_t count) : count(count) {}
    // The next number, or -1 when all are taken.
    int64_t next() {
        const int64_t piece = taken.fetch_add(1, std::memory_order_relaxed);
        return piece < count ? piece : -1;
    }
    void stop() { taken.store(count, std::memory_order_relaxed); }

private:
    const int64_t count;
    std::atomic<int64_t> taken{0};
};

// Calls task(context) in up to `threads` threads at once, one of them the caller, and returns when all calls have.
// Throws std::bad_alloc if a task did.
void run_in_pool(int threads, void (*task)(void*), void* context);

// body(pieces) in up to `threads` threads; each takes pieces until there are none.
template <typename F>
void share_out(int64_t count, int threads, F body) {
    Pieces pieces(count);
    struct Context {
        F& body;
        Pieces& pieces;
    } context{body, pieces};
    run_in_pool(
        count < threads ? int(count) : threads,
        [](void* pointer) {
            auto& c = *static_cast<Context*>(pointer);
            try {
                c.body(c.pieces);
            } catch (...) {
                c.pieces.stop();
                throw;
            }
        },
        &context);
}

// body(first, last) for ranges that cover [0, count), a few for each of up to `threads` threads.
template <typename F>
void share_ranges(int64_t count, int threads, F body) {
    const int64_t ranges = threads == 1 ? 1 : 4 * threads, size = (count + ranges - 1) / ranges;
    if (!count) return;
    share_out((count + size - 1) / size, threads, [&](Pieces& pieces) {
        for (int64_t piece; (piece = pieces.next()) >= 0;)
            body(piece * size, piece * size + size < count ? piece * size + size : count);
    });
}
