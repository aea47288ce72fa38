// Bringing the sums of exact incremental attention up to date (attention/exact.py).

#include "attention_group.h"

#include <atomic>
#include <cmath>
#include <vector>

namespace {

// What changed in one stream.
struct Change {
    bool everything = true;              // all sums are computed again
    int64_t count = 0;                   // changed keys
    const int64_t* keys = nullptr;       // they, as indices into the keys of all streams
    int64_t before = 0;                  // changed keys of the streams before
    const uint8_t* renew = nullptr;      // per token: its query is new
};

template <typename T>
class Work {
public:
    Work(const Update& u, int64_t most_keys)
        : u(u), a(u.attention), all(a.key_rows * a.key_columns, a.channels), delta(int(2 * most_keys), a.channels),
          tile(a.channels, a.key_rows, a.key_columns), terms(a, band_rows(a)) {}

    // One head of a stream, queries in the grid rows [first, last).
    void run(int64_t stream, const Change& change, int head, int first, int last) {
        this->group = {stream, nullptr};
        this->change = &change;
        this->head = head;
        all.count = 0;
        exchanged = recomputed = 0;
        if (!change.everything) load_delta();
        for_bands(a, first, last, [&](int first, int last) { run_band(first, last); });
    }

    int64_t exchanged = 0, recomputed = 0;  // queries of the last run

private:
    const Update& u;
    const Attention& a;
    Keys all, delta;
    Tile tile;
    PositionTerms terms;
    Group group{};
    const Change* change = nullptr;
    int head = 0;
    std::vector<int32_t> to_recompute;  // queries of the band

    void run_band(int first, int last) {
        terms.template compute<T>(head, group, first, last);
        to_recompute.clear();
        if (change->everything)
            for (int place = first * a.columns; place < last * a.columns; ++place) to_recompute.push_back(place);
        else
            exchange_terms(first, last);
        if (to_recompute.empty()) return;
        if (!all.count) load_keys<T>(all, a, head, group);
        for (size_t done = 0; done < to_recompute.size(); done += LANES)
            recompute(to_recompute.data() + done, int(std::min<size_t>(LANES, to_recompute.size() - done)));
        recomputed += int64_t(to_recompute.size());
    }

    size_t slot(int32_t place) const {
        return (size_t(group.stream) * a.heads + head) * a.rows * a.columns + place;
    }

    // New keys and values of the changed keys, and behind them the old ones with the sign turned.
    void load_delta() {
        const int64_t offset = int64_t(head) * a.channels, width = int64_t(a.heads) * a.channels;
        const int64_t keys_of_stream = int64_t(a.key_rows) * a.key_columns;
        delta.count = 0;
        for (int64_t i = 0; i < change->count; ++i) {
            const int64_t key = change->keys[i] - group.stream * keys_of_stream;
            add_key(delta, a, at<T>(a.k, a.kv_stream, a.kv_token, group.stream, key, offset),
                    at<T>(a.v, a.kv_stream, a.kv_token, group.stream, key, offset), 1.0f, key);
        }
        for (int64_t i = 0; i < change->count; ++i) {
            const T* old = static_cast<const T*>(u.old) + (change->before + i) * 2 * width + offset;
            add_key(delta, a, old, old + width, -1.0f, change->keys[i] - group.stream * keys_of_stream);
        }
    }

    void exchange_terms(int first, int last) {
        int32_t places[LANES];
        int count = 0;
        for (int place = first * a.columns; place < last * a.columns; ++place) {
            if (change->renew[place]) {
                to_recompute.push_back(place);
                continue;
            }
            places[count++] = place;
            if (count == LANES) {
                exchange_tile(places, count);
                count = 0;
            }
        }
        if (count) exchange_tile(places, count);
    }

    void exchange_tile(const int32_t* places, int count) {
        load_queries<T>(tile, a, head, group, places, count);
        terms.read(tile, places);
        for (int i = 0; i < tile.lanes; ++i) tile.reference[i] = i < count ? u.sums.references[slot(places[i])] : 0;
        for (int i = 0; i < count; ++i) {
            float* to = tile.out.get() + size_t(i) * tile.width;
            std::copy_n(u.sums.sums + slot(places[i]) * a.channels, a.channels, to);
            std::fill(to + a.channels, to + tile.width, 0.0f);
        }
        exchange(tile, delta, int(change->count));
        for (int i = 0; i < count; ++i) {
            const size_t at = slot(places[i]);
            const float added = tile.normaliser[i], removed = tile.removed[i], before = u.sums.normalisers[at];
            const float after = before + (added - removed);
            const float drift =
                (u.sums.drift[at] * before + (added + removed) + u.limits.accumulation * std::fabs(after)) / after;
            u.sums.normalisers[at] = after;
            u.sums.drift[at] = drift;
            std::copy_n(tile.out.get() + size_t(i) * tile.width, a.channels, u.sums.sums + at * a.channels);
            // Written so that NaN, infinity and a normaliser below zero count as drifted.
            if (!(after > 0 && drift <= u.limits.drift && tile.top[i] <= u.limits.score))
                to_recompute.push_back(places[i]);
        }
        exchanged += count;
    }

    void recompute(const int32_t* places, int count) {
        load_queries<T>(tile, a, head, group, places, count);
        terms.read(tile, places);
        attend(tile, all);
        for (int i = 0; i < count; ++i) {
            const size_t at = slot(places[i]);
            std::copy_n(tile.out.get() + size_t(i) * tile.width, a.channels, u.sums.sums + at * a.channels);
            u.sums.normalisers[at] = tile.normaliser[i];
            u.sums.references[at] = tile.reference[i];
            u.sums.drift[at] = 1;
        }
    }
};

// What changed in each stream; `renew` has a place for every token.
std::vector<Change> changes_of(const Update& u, std::vector<uint8_t>& renew) {
    const int64_t tokens = int64_t(u.attention.rows) * u.attention.columns;
    const int64_t keys = int64_t(u.attention.key_rows) * u.attention.key_columns;
    std::vector<Change> changes(u.attention.streams);
    if (u.everything) return changes;
    for (int64_t i = 0; i < u.offsets[u.attention.streams]; ++i) renew[u.index[i]] = 1;
    for (int64_t stream = 0; stream < u.attention.streams; ++stream) {
        Change& c = changes[stream];
        c.before = u.key_offsets[stream];
        c.count = u.key_offsets[stream + 1] - c.before;
        c.keys = u.keys + c.before;
        c.renew = renew.data() + stream * tokens;
        c.everything = double(c.count) > u.limits.dense * double(keys);
    }
    return changes;
}

template <typename T>
void update(const Update& u, int threads) {
    const Attention& a = u.attention;
    const int64_t tokens = int64_t(a.rows) * a.columns, keys = int64_t(a.key_rows) * a.key_columns;
    std::vector<uint8_t> renew(u.everything ? 0 : a.streams * tokens);
    const std::vector<Change> changes = changes_of(u, renew);
    std::vector<int64_t> streams;  // those in which something changed
    int64_t scores = 0, most_keys = 0;
    for (int64_t stream = 0; stream < a.streams; ++stream) {
        const Change& c = changes[stream];
        if (!c.everything) most_keys = std::max(most_keys, c.count);
        if (c.everything || c.count) streams.push_back(stream);
        scores += tokens * (c.everything ? keys : 2 * c.count);
    }
    std::vector<std::atomic<int64_t>> executed(2 * a.streams);
    for_pieces(
        a, int64_t(streams.size()),
        threads_for(2 * scores * a.heads * a.channels, PRODUCTS_PER_THREAD, threads),
        [&] { return std::make_unique<Work<T>>(u, most_keys); },
        [&](Work<T>& work, int64_t number, int head, int first, int last) {
            const int64_t stream = streams[number];
            work.run(stream, changes[stream], head, first, last);
            executed[2 * stream] += work.exchanged;
            executed[2 * stream + 1] += work.recomputed;
        });
    std::copy(executed.begin(), executed.end(), u.executed);
}

}  // namespace

KERNEL(update_sums, Update) {
    if (arguments.attention.is_bf16)
        update<bf16>(arguments, threads);
    else
        update<float>(arguments, threads);
}

KERNEL(divide, Divide) {
    const Divide& d = arguments;
    const int64_t rows = d.streams * d.tokens;
    share_ranges(rows, threads_for(rows * d.heads * d.channels, VALUES_PER_THREAD, threads),
                 [&](int64_t first, int64_t last) {
                     for (int64_t row = first; row < last; ++row) {
                         const int64_t stream = row / d.tokens, token = row % d.tokens;
                         for (int head = 0; head < d.heads; ++head) {
                             const int64_t at = (stream * d.heads + head) * d.tokens + token;
                             put(d.out, stream, token, int64_t(head) * d.channels, d.sums + at * d.channels,
                                 d.channels, 1.0f / d.normalisers[at]);
                         }
                     }
                 });
}
