#include "queue.h"

#include <algorithm>
#include <chrono>
#include <unordered_set>

namespace cuda_host {

void Queue::reset(uint64_t seed) {
    pending.clear();
    streams.clear();
    random.seed(seed);
    // Every third seed is as lazy as can be, which shows a missing wait best.
    eagerness = seed % 3 == 0 ? 0.0 : seed % 3 == 1 ? 0.3 : 0.7;
    // The others starve a stream for as long as it may be: what chance would show once in a thousand runs.
    order = seed / 3 % 3 == 0 ? Order::random : seed / 3 % 3 == 1 ? Order::latest_first : Order::oldest_first;
}

Stream &Queue::create_stream(uint64_t context, bool blocking) {
    return streams.emplace_back(Stream{context, blocking, nullptr});
}

Stream &Queue::default_stream(uint64_t context) {
    for (Stream &stream : streams)
        if (stream.context == context) return stream;  // the first one that a context makes
    return create_stream(context, true);
}

// Its work stays and is done in its time.
void Queue::destroy_stream(Stream &stream) {
    streams.remove_if([&](const Stream &each) { return &each == &stream; });
}

WorkPointer Queue::submit(Stream &stream, std::function<CUresult()> run, std::vector<WorkPointer> after) {
    Stream &legacy = default_stream(stream.context);
    if (stream.last) after.push_back(stream.last);
    if (&stream == &legacy) {
        for (const Stream &other : streams)
            if (other.context == stream.context && other.blocking && other.last) after.push_back(other.last);
    } else if (stream.blocking && legacy.last) {
        after.push_back(legacy.last);
    }
    auto work = std::make_shared<Work>(Work{std::move(after), std::move(run), stream.context});
    stream.last = work;
    pending.push_back(work);
    pass_time();
    return work;
}

bool Queue::ready(const Work &work) {
    return std::all_of(work.after.begin(), work.after.end(), [](const WorkPointer &each) { return each->done; });
}

/// Of the work that is wanted, what could be done next.
std::vector<size_t> Queue::choices(const std::function<bool(const Work &)> &wanted) const {
    std::vector<size_t> choice;
    for (size_t i = 0; i < pending.size(); ++i)
        if (wanted(*pending[i]) && ready(*pending[i])) choice.push_back(i);
    return choice;
}

static bool anything(const Work &) { return true; }

void Queue::perform(const std::vector<size_t> &choice) {
    size_t index = order == Order::random         ? choice[random() % choice.size()]
                   : order == Order::latest_first ? choice.back()
                                                  : choice.front();
    WorkPointer work = pending[index];
    pending.erase(pending.begin() + index);
    CUresult error = broken(work->context) ? CUDA_SUCCESS : work->run();
    work->run = nullptr;
    work->after.clear();
    work->done = true;
    std::chrono::duration<double, std::milli> now = std::chrono::steady_clock::now().time_since_epoch();
    work->time = now.count();
    if (error) failed(work->context, error);
}

void Queue::pass_time() {
    while (!pending.empty() && std::uniform_real_distribution<>()(random) < eagerness) perform(choices(anything));
}

void Queue::proceed() {
    if (!pending.empty()) perform(choices(anything));
}

void Queue::finish(const WorkPointer &work) {
    if (!work) return;
    std::unordered_set<const Work *> needed{work.get()};
    for (size_t i = pending.size(); i--;)  // what work comes after was submitted before it
        if (needed.count(pending[i].get()))
            for (const WorkPointer &each : pending[i]->after) needed.insert(each.get());
    while (!work->done) {
        bool any = std::uniform_real_distribution<>()(random) < eagerness;
        perform(choices([&](const Work &each) { return any || needed.count(&each); }));
    }
}

void Queue::finish_context(uint64_t context) {
    for (;;) {
        std::vector<size_t> choice = choices([&](const Work &each) { return each.context == context; });
        if (choice.empty()) return;
        perform(choice);
    }
}

void Queue::forget(uint64_t context) {
    pending.erase(std::remove_if(pending.begin(), pending.end(),
                                 [&](const WorkPointer &work) { return work->context == context; }),
                  pending.end());
    streams.remove_if([&](const Stream &stream) { return stream.context == context; });
}

}  // namespace cuda_host
