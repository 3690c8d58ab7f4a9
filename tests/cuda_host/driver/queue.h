// Queued work: what was asked for and has not happened yet.
//
// A GPU promises the order within a stream, the order by events, and the legacy default stream's; nothing else. So work
// is left undone until somebody waits for it, and the seed chooses among what could come next: at random, or always
// what was queued last, or first.
#pragma once
#include <cstdint>
#include <cuda.h>
#include <functional>
#include <list>
#include <memory>
#include <random>
#include <vector>

namespace cuda_host {

/// A copy, a launch, or a mark. `after`: what must be done first.
struct Work {
    std::vector<std::shared_ptr<Work>> after;
    std::function<CUresult()> run;
    uint64_t context;
    bool done = false;
    double time = 0;  // of completion, ms
};
using WorkPointer = std::shared_ptr<Work>;

struct Stream {
    uint64_t context;
    bool blocking;     // takes part in the legacy default stream's order
    WorkPointer last;  // null before the first
};

class Queue {
public:
    /// Queue work on a stream. `stream` may be the context's default stream.
    WorkPointer submit(Stream &stream, std::function<CUresult()> run, std::vector<WorkPointer> after = {});
    /// Do what must be done for `work` to be done, and possibly more.
    void finish(const WorkPointer &work);
    void finish_context(uint64_t context);
    /// Time passes: some work may be done.
    void pass_time();
    /// Time passes: some work is done, where there is any.
    void proceed();
    void forget(uint64_t context);
    void reset(uint64_t seed);

    Stream &default_stream(uint64_t context);
    Stream &create_stream(uint64_t context, bool blocking);
    void destroy_stream(Stream &stream);

    /// Told of work that failed; asked whether a context has failed before, since nothing of its is done then.
    std::function<void(uint64_t context, CUresult error)> failed;
    std::function<bool(uint64_t context)> broken;

private:
    enum class Order { random, latest_first, oldest_first };

    std::list<Stream> streams;
    std::vector<WorkPointer> pending;  // as submitted
    std::mt19937_64 random{0};
    double eagerness = 0;  // how often work that nobody waits for is done
    Order order = Order::random;  // of what could come next

    std::vector<size_t> choices(const std::function<bool(const Work &)> &wanted) const;
    static bool ready(const Work &work);
    void perform(const std::vector<size_t> &choice);
};

}  // namespace cuda_host
