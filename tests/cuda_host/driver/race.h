// Which accesses of a launch are ordered, and which race.
//
// Within a block a barrier orders everything before it and everything after it, and a warp's collective does so for the
// lanes that take part. Between blocks only a chain of fence, atomic and atomic does (the "last block" pattern). Two
// accesses to a byte that nothing orders, one of them a write and not both atomic, are a race, however they happened to
// run this time. After Lamport's clocks; FastTrack (Flanagan and Freund, 2009) keeps its last readers likewise.
#pragma once
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cuda_host/abi.h"
#include "memory.h"

namespace cuda_host {

/// Where a thread stands: its own clock, and of each lane of its warp the clock that is known to lie behind.
struct Order {
    uint32_t block, thread, interval;  // barriers passed
    uint32_t clocks[32];
    uint32_t segment;  // number of what it does until its clock ticks; 0 before its first access
    uint32_t fence_interval, fence_clock;
    bool fenced;

    uint32_t lane() const { return thread % 32; }
    uint32_t &clock() { return clocks[lane()]; }
    void tick() {
        ++clock();
        segment = 0;
    }
};

/// Why an access may not be: the byte is forbidden, or another thread touched it and nothing orders the two.
struct Objection {
    bool forbidden;
    uint32_t block, thread;  // the other's
    bool wrote;
};

class Races {
public:
    /// True when numbers have run out and begin again: every cell must be cleared then.
    bool begin_launch();
    void begin_block();
    /// Note an access to the bytes behind `cells`, unless there is an objection.
    std::optional<Objection> touch(Order &order, Cell *cells, size_t bytes, bool shared, Access access);
    /// An atomic access to global memory hands on what was fenced and takes what others handed on there.
    void synchronize(Order &order, uintptr_t address);

private:
    struct Segment {
        uint32_t block, thread, interval, clock;
    };
    struct Release {
        uint32_t order, thread, interval, clock;
    };
    struct Channel {
        uint32_t releases = 0;
        std::unordered_map<uint32_t, std::vector<Release>> by_block;
    };
    struct Acquired {
        const Channel *channel;
        uint32_t releases, thread, interval;
    };
    static constexpr uint32_t atomic = 1u << 31;

    std::vector<Segment> segments;  // of this launch
    uint32_t first = 1;             // number of segments[0]
    uint32_t first_of_block = 1;
    std::unordered_map<uintptr_t, Channel> channels;
    std::vector<Acquired> acquired;  // by this block

    uint32_t open(Order &order);
    bool conflicts(const Order &order, uint32_t earlier, uint32_t floor) const;
    bool ordered(const Segment &earlier, const Order &order) const;
};

}  // namespace cuda_host
