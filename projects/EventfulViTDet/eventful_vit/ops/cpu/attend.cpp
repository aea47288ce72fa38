// Dense attention of whole frames and of windows.

#include "attention_group.h"

#include <vector>

namespace {

template <typename T>
class Work {
public:
    Work(const Attention& a, const Output& out)
        : a(a), out(out), keys(a.key_rows * a.key_columns, a.channels), tile(a.channels, a.key_rows, a.key_columns),
          terms(a, band_rows(a)) {}

    // One head of a group, queries in the grid rows [first, last).
    void run(const Group& group, int head, int first, int last) {
        load_keys<T>(keys, a, head, group);
        for_bands(a, first, last, [&](int first, int last) {
            terms.template compute<T>(head, group, first, last);
            for (int place = first * a.columns; place < last * a.columns; ++place) {
                if (group.token(place) < 0) continue;
                places[count++] = place;
                if (count == LANES) attend_tile(group, head);
            }
            if (count) attend_tile(group, head);
        });
    }

private:
    const Attention& a;
    const Output& out;
    Keys keys;
    Tile tile;
    PositionTerms terms;
    int32_t places[LANES];
    int count = 0;

    void attend_tile(const Group& group, int head) {
        load_queries<T>(tile, a, head, group, places, count);
        terms.read(tile, places);
        attend(tile, keys);
        for (int i = 0; i < count; ++i)
            put(out, group.stream, group.token(places[i]), int64_t(head) * a.channels,
                tile.out.get() + size_t(i) * tile.width, a.channels, 1.0f / tile.normaliser[i]);
        count = 0;
    }
};

template <typename T>
void attend_groups(const Attend& arguments, const std::vector<Group>& groups, int threads) {
    const Attention& a = arguments.attention;
    const int64_t products = 2 * int64_t(groups.size()) * a.rows * a.columns * a.key_rows * a.key_columns;
    for_pieces(
        a, int64_t(groups.size()), threads_for(products * a.heads * a.channels, PRODUCTS_PER_THREAD, threads),
        [&] { return std::make_unique<Work<T>>(a, arguments.out); },
        [&](Work<T>& work, int64_t group, int head, int first, int last) {
            work.run(groups[group], head, first, last);
        });
}

void attend_groups(const Attend& arguments, const std::vector<Group>& groups, int threads) {
    if (arguments.attention.is_bf16)
        attend_groups<bf16>(arguments, groups, threads);
    else
        attend_groups<float>(arguments, groups, threads);
}

Group window_of(const Attend& arguments, int64_t stream, int64_t window) {
    const int64_t size = int64_t(arguments.attention.rows) * arguments.attention.columns;
    return {stream, arguments.windows.members + window * size};
}

}  // namespace

KERNEL(attend, Attend) {
    std::vector<Group> groups;
    for (int64_t stream = 0; stream < arguments.attention.streams; ++stream) {
        if (!arguments.windows.members) groups.push_back({stream, nullptr});
        for (int64_t window = 0; window < arguments.windows.count; ++window)
            groups.push_back(window_of(arguments, stream, window));
    }
    attend_groups(arguments, groups, threads);
}

KERNEL(attend_touched, AttendTouched) {
    const Windows& w = arguments.all.windows;
    const int64_t streams = arguments.all.attention.streams;
    std::vector<uint8_t> marked(streams * w.count);
    for (const int64_t* i = arguments.index; i < arguments.index + arguments.selected.count(); ++i)
        marked[*i / w.tokens * w.count + w.of_token[*i % w.tokens]] = 1;
    std::vector<Group> groups;
    for (int64_t stream = 0; stream < streams; ++stream) {
        arguments.touched[stream] = 0;
        for (int64_t window = 0; window < w.count; ++window) {
            if (!marked[stream * w.count + window]) continue;
            ++arguments.touched[stream];
            groups.push_back(window_of(arguments.all, stream, window));
        }
    }
    if (!groups.empty()) attend_groups(arguments.all, groups, threads);
}
