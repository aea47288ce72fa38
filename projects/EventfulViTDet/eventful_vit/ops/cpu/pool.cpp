#include "pool.h"

#include "simd.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto SPIN = std::chrono::microseconds(200);    // a worker's, before it sleeps
constexpr auto PATIENCE = std::chrono::microseconds(10);  // the caller's, before it offers its core to others

// Spins until done() or until `limit` has passed; returns whether it was done.
template <typename F>
bool spin(Clock::duration limit, F done) {
    const auto end = Clock::now() + limit;
    for (;;) {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            relax();
        }
        if (Clock::now() > end) return done();
    }
}

class Pool {
public:
    void run(int threads, void (*task)(void*), void* context) {
        // A second caller at the same time works by itself.
        std::unique_lock<std::mutex> turn(busy, std::try_to_lock);
        if (threads <= 1 || !turn.owns_lock()) return task(context);
        start_workers(threads - 1);
        this->task = task;
        this->context = context;
        failed = false;
        helpers = threads - 1;
        open = true;
        ++announced;
        if (sleeping) {
            std::lock_guard<std::mutex> lock(sleep_mutex);
            wake.notify_all();
        }
        attempt();
        close();
        if (failed) throw std::bad_alloc();
    }

private:
    std::mutex busy;  // held by the caller whose task runs
    void (*task)(void*) = nullptr;
    void* context = nullptr;
    int workers = 0;
    std::atomic<bool> open{false};        // the task may be joined
    std::atomic<bool> failed{false};      // a call of it ran out of memory
    std::atomic<int> helpers{0};          // how many workers may still join
    std::atomic<int> inside{0};           // workers that look at the task or run it
    std::atomic<uint64_t> announced{0};   // tasks so far
    std::atomic<int> sleeping{0};
    std::mutex sleep_mutex;
    std::condition_variable wake;

    void start_workers(int wanted) {
        for (; workers < wanted; ++workers) {
            try {
                std::thread([this] { work(); }).detach();
            } catch (const std::system_error&) {
                return;  // no more threads to be had: there are fewer to share with
            }
        }
    }

    void attempt() {
        try {
            task(context);
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    }

    // No worker joins from here on; waits for those that have. A worker announces itself in `inside` before it looks at
    // `open`, and the caller closes before it looks at `inside`, so one of the two sees the other.
    void close() {
        open = false;
        if (spin(PATIENCE, [this] { return inside == 0; })) return;
        while (inside) std::this_thread::yield();
    }

    [[noreturn]] void work() {
        for (uint64_t seen = 0;; seen = announced) {
            ++inside;
            if (open && helpers.fetch_sub(1) > 0) attempt();
            --inside;
            if (!spin(SPIN, [&] { return announced != seen; })) sleep(seen);
        }
    }

    void sleep(uint64_t seen) {
        std::unique_lock<std::mutex> lock(sleep_mutex);
        ++sleeping;
        wake.wait(lock, [&] { return announced != seen; });
        --sleeping;
    }
};

// Never destroyed: workers may still look at it when the process ends.
Pool* pool = nullptr;

// The child of a fork has none of its parent's threads, and perhaps its locks: it starts with a pool of its own.
void renew() { pool = new Pool; }

struct Start {
    Start() {
        renew();
        pthread_atfork(nullptr, nullptr, renew);
    }
} start;

}  // namespace

void run_in_pool(int threads, void (*task)(void*), void* context) { pool->run(threads, task, context); }
