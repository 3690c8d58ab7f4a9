// A launch: the threads of a block as fibers, block after block, both in seeded random order.
#pragma once
#include <cstdint>
#include <cuda.h>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda_host/abi.h"
#include "fiber.h"
#include "race.h"

namespace cuda_host {

struct Range {
    uintptr_t base = 0;
    size_t size = 0;
};

/// What a launch asks for.
struct Launch {
    const Kernel *kernel;
    uint3 grid, block;
    size_t shared;                // dynamic, bytes
    std::vector<char> arguments;  // packed as CUDA packs them
    Range image, statics;         // of the module: all its memory, its static shared memory
};

enum class State { unstarted, ready, running, at_barrier, in_warp, done };

struct Thread {
    uint3 index;
    unsigned number;  // x first, then y, then z
    State state;
    Fiber *fiber;
    Order order;
    struct {
        const char *what, *file;
        int line;
        uint32_t mask;  // of lanes; at a barrier its kind
    } waits;
    uint64_t value;  // given to a barrier or a collective
    Exchange *seen;
};

/// Runs launches, one at a time, on the thread that calls it.
class Multiprocessor {
public:
    static constexpr unsigned max_threads = 1024;
    static constexpr size_t max_shared = 164 << 10;

    Multiprocessor();
    /// CUDA_SUCCESS, or what a GPU would answer to the first thing that went wrong, which has been reported then.
    CUresult run(const Launch &launch);

    // For the kernel that runs.
    int barrier(Barrier kind, int predicate, const char *file, int line);
    void exchange(uint32_t mask, uint64_t value, Exchange *seen, const char *what, const char *file, int line);
    void fence();
    void access(uintptr_t address, size_t size, Access access, const void *code);
    /// Report, end the launch with `error`, and never return to the kernel.
    [[noreturn]] void fail(CUresult error, const std::string &what);
    const char *name() const { return launch->kernel->name; }

    std::mt19937_64 random{0};
    unsigned char poison = 0xff;

private:
    const Launch *launch = nullptr;
    std::vector<void *> arguments;
    std::vector<Thread> threads;  // of the block that runs
    std::vector<Thread *> queue;  // those that can run, taken from the back
    Thread *thread = nullptr;     // the one that runs
    unsigned live = 0, at_barrier = 0;
    int barrier_agreeing = 0;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Fiber *> spare_fibers;
    Fiber *scheduler = nullptr;
    CUresult error = CUDA_SUCCESS;
    Races races;
    std::vector<Cell> static_cells, dynamic_cells;
    Region *last_region = nullptr;

    bool bind();
    void run_block(unsigned number);
    void prepare(unsigned number);
    void resume(Thread &next);
    void enter(Thread &next);
    static void fiber_main();
    void wait();
    void wake(Thread &waiting);
    void release_barrier();
    void meet(const Thread &member);
    void leave_warp(const Thread &ended);
    void report_deadlock();
    Cell *cells(uintptr_t address, size_t size, const void *code, bool &shared);
    std::string here(const void *code) const;
};

extern Multiprocessor multiprocessor;

}  // namespace cuda_host
