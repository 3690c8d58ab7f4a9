// Stacks that the threads of a block run on, and the step from one to another.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cuda_host {

/// A stack with an entry function that never returns. The stack that `switch_to` is first called from is a fiber too.
class Fiber {
public:
    /// The running stack.
    Fiber() = default;
    /// A new stack; `entry` begins at the first switch to it.
    explicit Fiber(void (*entry)());
    Fiber(const Fiber &) = delete;
    ~Fiber();

    /// Leave this fiber for another; returns when some fiber switches back.
    void switch_to(Fiber &other);
    /// Begin at `entry` again at the next switch: what was on the stack is forgotten.
    void restart();
    bool holds(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(stack) < size; }

private:
    void (*entry)() = nullptr;
    char *stack = nullptr;
    size_t size = 0;
    void *pointer = nullptr;
    void *fake_stack = nullptr;  // AddressSanitizer's
    static void start();
    void arrive();
};

}  // namespace cuda_host
