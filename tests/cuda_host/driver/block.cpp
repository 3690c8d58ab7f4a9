#include "block.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

#include "memory.h"
#include "report.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

using namespace cuda_host;

uint3 cuda_host_threadIdx, cuda_host_blockIdx, cuda_host_blockDim, cuda_host_gridDim;
unsigned char *cuda_host_dynamic_shared;

namespace cuda_host {

static uint3 unpack(unsigned number, uint3 extent) {
    return {number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y};
}

static unsigned volume(uint3 extent) { return extent.x * extent.y * extent.z; }

static std::string show(uint3 index) { return text("(%u, %u, %u)", index.x, index.y, index.z); }

Multiprocessor::Multiprocessor() : dynamic_cells(max_shared) {
    // 16 bytes are what CUDA promises of dynamic shared memory's alignment.
    auto start = static_cast<unsigned char *>(
        mmap(nullptr, max_shared + 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    cuda_host_dynamic_shared = start + 16;
}

CUresult Multiprocessor::run(const Launch &launched) {
    Fiber origin;
    launch = &launched;
    scheduler = &origin;
    error = CUDA_SUCCESS;
    cuda_host_gridDim = launch->grid;
    cuda_host_blockDim = launch->block;
    static_cells.resize(std::max(static_cells.size(), launch->statics.size));
    if (races.begin_launch()) {
        memory.forget_accesses();
        std::fill(static_cells.begin(), static_cells.end(), Cell{});
        std::fill(dynamic_cells.begin(), dynamic_cells.end(), Cell{});
    }
    last_region = nullptr;
    if (!bind()) return CUDA_ERROR_ILLEGAL_ADDRESS;

    std::vector<unsigned> blocks(volume(launch->grid));
    for (unsigned i = 0; i < blocks.size(); ++i) blocks[i] = i;
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (unsigned block : blocks) {
        run_block(block);
        if (error) break;
    }
    return error;
}

/// Take the argument block apart. False when a pointer in it is none of the device's.
bool Multiprocessor::bind() {
    const Kernel &kernel = *launch->kernel;
    arguments.clear();
    size_t offset = 0;
    for (unsigned i = 0; i < kernel.parameters; ++i) {
        offset = (offset + kernel.alignments[i] - 1) / kernel.alignments[i] * kernel.alignments[i];
        arguments.push_back(const_cast<char *>(launch->arguments.data()) + offset);
        offset += kernel.sizes[i];
        uintptr_t pointer = 0;
        if (kernel.pointers[i]) std::memcpy(&pointer, arguments.back(), sizeof pointer);
        if (!pointer) continue;
        Region *region = memory.find(pointer);
        if (!region || region->freed || region->kind == Kind::pinned || pointer - region->base > region->size) {
            report("argument %u of %s points to no device memory: %s", i, kernel.name,
                   memory.describe(pointer, 1).c_str());
            return false;
        }
    }
    return true;
}

void Multiprocessor::run_block(unsigned number) {
    prepare(number);
    while (!queue.empty() && !error) {
        Thread &next = *queue.back();
        queue.pop_back();
        resume(next);
    }
    if (live && !error) report_deadlock();
    if (!error) return;
    spare_fibers.clear();  // each is there once, or two threads would share a stack
    for (auto &each : fibers) {  // what still stands on the stacks is forgotten
        each->restart();
        spare_fibers.push_back(each.get());
    }
}

void Multiprocessor::prepare(unsigned number) {
    cuda_host_blockIdx = unpack(number, launch->grid);
    unsigned count = volume(launch->block);
    live = count;
    at_barrier = 0;
    threads.resize(count);
    queue.clear();
    races.begin_block();
    for (unsigned i = 0; i < count; ++i) {
        Thread &each = threads[i];
        each.index = unpack(i, launch->block);
        each.number = i;
        each.state = State::unstarted;
        each.fiber = nullptr;
        each.order = {};
        each.order.block = number;
        each.order.thread = i;
        each.order.clock() = 1;
        queue.push_back(&each);
    }
    std::shuffle(queue.begin(), queue.end(), random);
    std::memset(reinterpret_cast<void *>(launch->statics.base), poison, launch->statics.size);
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(cuda_host_dynamic_shared, max_shared);
    std::memset(cuda_host_dynamic_shared, poison, launch->shared);
    ASAN_POISON_MEMORY_REGION(cuda_host_dynamic_shared + launch->shared, max_shared - launch->shared);
#else
    std::memset(cuda_host_dynamic_shared, poison, launch->shared);
#endif
}

void Multiprocessor::resume(Thread &next) {
    if (!next.fiber) {
        if (spare_fibers.empty()) {
            fibers.push_back(std::make_unique<Fiber>(fiber_main));
            spare_fibers.push_back(fibers.back().get());
        }
        next.fiber = spare_fibers.back();
        spare_fibers.pop_back();
    }
    enter(next);
    scheduler->switch_to(*next.fiber);
}

void Multiprocessor::enter(Thread &next) {
    thread = &next;
    next.state = State::running;
    cuda_host_threadIdx = next.index;
}

/// Threads that meet no barrier run one after the other here, without a switch between them.
void Multiprocessor::fiber_main() {
    Multiprocessor &m = multiprocessor;
    for (;;) {
        m.launch->kernel->run(m.arguments.data());
        Thread &self = *m.thread;
        self.state = State::done;
        --m.live;
        m.leave_warp(self);
        if (!m.queue.empty() && m.queue.back()->state == State::unstarted) {
            Thread &next = *m.queue.back();
            m.queue.pop_back();
            next.fiber = self.fiber;
            m.enter(next);
        } else {
            m.spare_fibers.push_back(self.fiber);
            self.fiber->switch_to(*m.scheduler);
        }
    }
}

void Multiprocessor::wait() { thread->fiber->switch_to(*scheduler); }

/// Let waiting threads go on, each at a random place among those that can.
void Multiprocessor::wake(Thread &waiting) {
    waiting.state = State::ready;
    waiting.order.tick();
    queue.push_back(&waiting);
    std::swap(queue.back(), queue[random() % queue.size()]);
}

int Multiprocessor::barrier(Barrier kind, int predicate, const char *file, int line) {
    Thread &self = *thread;
    self.state = State::at_barrier;
    self.waits = {"__syncthreads", file, line, static_cast<uint32_t>(kind)};
    self.value = predicate != 0;
    if (++at_barrier == threads.size()) release_barrier();
    wait();
    int agreeing = barrier_agreeing;
    switch (kind) {
        case Barrier::plain: break;
        case Barrier::count: return agreeing;
        case Barrier::all: return agreeing == static_cast<int>(threads.size());
        case Barrier::any: return agreeing > 0;
    }
    return 0;
}

void Multiprocessor::release_barrier() {
    at_barrier = 0;
    barrier_agreeing = 0;
    for (Thread &each : threads)
        if (each.waits.mask != thread->waits.mask || each.waits.line != thread->waits.line ||
            std::strcmp(each.waits.file, thread->waits.file) != 0)
            fail(CUDA_ERROR_LAUNCH_FAILED, text("divergent barrier: thread %s waits at %s:%d, thread %s at %s:%d",
                                                show(each.index).c_str(), each.waits.file, each.waits.line,
                                                show(thread->index).c_str(), thread->waits.file, thread->waits.line));
    for (Thread &each : threads) {
        barrier_agreeing += static_cast<int>(each.value);
        ++each.order.interval;
        wake(each);
    }
}

void Multiprocessor::exchange(uint32_t mask, uint64_t value, Exchange *seen, const char *what, const char *file,
                              int line) {
    Thread &self = *thread;
    self.state = State::in_warp;
    self.waits = {what, file, line, mask};
    self.value = value;
    self.seen = seen;
    if (!(mask >> self.number % 32 & 1))
        fail(CUDA_ERROR_LAUNCH_FAILED, text("%s at %s:%d: the mask %#x leaves the calling lane %u out", what, file,
                                            line, mask, self.number % 32));
    meet(self);
    wait();
}

/// A thread that has ended keeps the rest of its warp waiting no longer.
void Multiprocessor::leave_warp(const Thread &ended) {
    for (unsigned i = ended.number / 32 * 32; i < std::min<size_t>(ended.number / 32 * 32 + 32, threads.size()); ++i)
        if (threads[i].state == State::in_warp) {
            meet(threads[i]);
            return;
        }
}

/// Finish the collective that `member` waits in when every lane of its mask that has not ended has come.
void Multiprocessor::meet(const Thread &member) {
    unsigned warp = member.number / 32 * 32;
    uint32_t mask = member.waits.mask;
    std::vector<Thread *> lanes;
    for (unsigned i = warp; i < std::min<size_t>(warp + 32, threads.size()); ++i) {
        Thread &lane = threads[i];
        if (!(mask >> (i - warp) & 1) || lane.state == State::done) continue;
        if (lane.state != State::in_warp) return;
        if (lane.waits.mask != mask || lane.waits.line != member.waits.line ||
            std::strcmp(lane.waits.what, member.waits.what) != 0)
            fail(CUDA_ERROR_LAUNCH_FAILED,
                 text("lanes of a warp disagree: thread %s is in %s(%#x) at %s:%d, thread %s in %s(%#x) at %s:%d",
                      show(lane.index).c_str(), lane.waits.what, lane.waits.mask, lane.waits.file, lane.waits.line,
                      show(member.index).c_str(), member.waits.what, mask, member.waits.file, member.waits.line));
        lanes.push_back(&lane);
    }
    Exchange all{};
    uint32_t clocks[32] = {};
    for (Thread *lane : lanes) {
        all.given |= 1u << lane->number % 32;
        all.value[lane->number % 32] = lane->value;
        for (int i = 0; i < 32; ++i) clocks[i] = std::max(clocks[i], lane->order.clocks[i]);
    }
    for (Thread *lane : lanes) {
        *lane->seen = all;
        std::copy(clocks, clocks + 32, lane->order.clocks);
        wake(*lane);
    }
}

void Multiprocessor::fence() {
    Order &order = thread->order;
    order.fenced = true;
    order.fence_interval = order.interval;
    order.fence_clock = order.clock();
    order.tick();
}

void Multiprocessor::access(uintptr_t address, size_t size, Access access, const void *code) {
    if (thread->fiber->holds(address)) return;
    bool shared = false;
    Cell *touched = cells(address, size, code, shared);
    if (!touched) return;
    if (auto objection = races.touch(thread->order, touched, size, shared, access)) {
        if (objection->forbidden)
            fail(CUDA_ERROR_ILLEGAL_ADDRESS, text("%s touches forbidden bytes among %s", here(code).c_str(),
                                                  memory.describe(address, size).c_str()));
        const char *verbs[] = {"reads", "writes", "updates"};
        fail(CUDA_ERROR_LAUNCH_FAILED,
             text("race: %s %s %zu bytes of %s memory, which thread %s of block %s %s, and nothing orders the two",
                  here(code).c_str(), verbs[static_cast<int>(access)], size, shared ? "shared" : "global",
                  show(unpack(objection->thread, launch->block)).c_str(),
                  show(unpack(objection->block, launch->grid)).c_str(), objection->wrote ? "wrote" : "read"));
    }
    if (access == Access::atomic && !shared) races.synchronize(thread->order, address);
}

/// What is known of the bytes; null for memory that only this thread has, or that is constant.
Cell *Multiprocessor::cells(uintptr_t address, size_t size, const void *code, bool &shared) {
    if (last_region && last_region->holds(address, size)) return last_region->shadow(address);

    uintptr_t offset = address - reinterpret_cast<uintptr_t>(cuda_host_dynamic_shared);
    if (offset < max_shared) {
        if (offset + size > launch->shared)
            fail(CUDA_ERROR_ILLEGAL_ADDRESS,
                 text("%s touches %zu bytes at byte %zu of %zu bytes of dynamic shared memory", here(code).c_str(),
                      size, offset, launch->shared));
        shared = true;
        return &dynamic_cells[offset];
    }
    offset = address - launch->statics.base;
    if (offset < launch->statics.size) {
        shared = true;
        return &static_cells[offset];
    }
    if (address - launch->image.base < launch->image.size) return nullptr;

    Region *region = memory.find(address);
    if (!region || region->freed || region->kind == Kind::pinned || !region->holds(address, size))
        fail(CUDA_ERROR_ILLEGAL_ADDRESS,
             text("%s touches %s", here(code).c_str(), memory.describe(address, size).c_str()));
    last_region = region;
    return region->shadow(address);
}

void Multiprocessor::fail(CUresult code, const std::string &what) {
    error = code;
    report("%s", what.c_str());
    wait();
    std::abort();  // a launch that failed is not resumed
}

std::string Multiprocessor::here(const void *code) const {
    std::string line = code ? " at " + source_line(code) : "";
    return text("%s%s: thread %s of block %s", launch->kernel->name, line.c_str(), show(thread->index).c_str(),
                show(cuda_host_blockIdx).c_str());
}

/// Threads wait for others that will never come.
void Multiprocessor::report_deadlock() {
    error = CUDA_ERROR_LAUNCH_FAILED;
    const Thread *waiting = nullptr, *other = nullptr;
    for (const Thread &each : threads)
        if (each.state != State::done) waiting = &each;
    for (const Thread &each : threads)
        if (each.state == State::done || std::strcmp(each.waits.what, waiting->waits.what) != 0) other = &each;
    if (!other) other = waiting;
    report("divergent barrier: %s: thread %s of block %s waits in %s at %s:%d, thread %s %s%s", launch->kernel->name,
           show(waiting->index).c_str(), show(cuda_host_blockIdx).c_str(), waiting->waits.what, waiting->waits.file,
           waiting->waits.line, show(other->index).c_str(), other->state == State::done ? "has ended" : "waits in ",
           other->state == State::done ? "" : other->waits.what);
}

}  // namespace cuda_host

// What the kernels call -----------------------------------------------------------------------------------------------

int cuda_host_barrier(Barrier kind, int predicate, const char *file, int line) {
    return multiprocessor.barrier(kind, predicate, file, line);
}

void cuda_host_exchange(uint32_t mask, uint64_t value, Exchange *seen, const char *what, const char *file, int line) {
    multiprocessor.exchange(mask, value, seen, what, file, line);
}

void cuda_host_fence() { multiprocessor.fence(); }

void cuda_host_access(uintptr_t address, size_t size, Access access, const void *code) {
    multiprocessor.access(address, size, access, code);
}

void cuda_host_trap(const char *what, const char *file, unsigned line) {
    multiprocessor.fail(CUDA_ERROR_LAUNCH_FAILED, text("%s: %s:%u: %s", multiprocessor.name(), file, line, what));
}

void cuda_host_misaligned(uintptr_t address, size_t alignment, const char *file, unsigned line) {
    multiprocessor.fail(CUDA_ERROR_MISALIGNED_ADDRESS,
                        text("%s: %s:%u: %s is not aligned to %zu bytes", multiprocessor.name(), file, line,
                             memory.describe(address, alignment).c_str(), alignment));
}