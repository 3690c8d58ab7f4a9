#include "fiber.h"

#include <new>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)

// Saves the registers that a call keeps, and takes those of the other stack. A system call (as in swapcontext) would
// cost more than most kernels do between two barriers.
extern "C" void cuda_host_switch(void **from, void *to);
asm(R"(
.text
.hidden cuda_host_switch
.globl cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_host_switch, .-cuda_host_switch
)");
static constexpr size_t saved_registers = 6;

#elif defined(__aarch64__)

extern "C" void cuda_host_switch(void **from, void *to);
asm(R"(
.text
.hidden cuda_host_switch
.globl cuda_host_switch
.type cuda_host_switch, %function
cuda_host_switch:
    sub sp, sp, #160
    stp x30, x29, [sp]
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x30, x29, [sp]
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size cuda_host_switch, .-cuda_host_switch
)");

#else
#error "cuda_host runs on x86-64 and aarch64"
#endif

namespace cuda_host {

static Fiber *leaving, *entering;

static constexpr size_t page = 4096;
#ifdef __SANITIZE_ADDRESS__
static constexpr size_t stack_bytes = 512 << 10;
#else
static constexpr size_t stack_bytes = 128 << 10;
#endif

Fiber::Fiber(void (*entry)()) : entry(entry), size(stack_bytes) {
    void *memory =
        mmap(nullptr, page + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, page, PROT_NONE);  // an overflow of the stack stops here
    stack = static_cast<char *>(memory) + page;
    restart();
}

Fiber::~Fiber() {
    if (entry) munmap(stack - page, page + size);
}

void Fiber::restart() {
#if defined(__x86_64__)
    // Behind the saved registers the address to return to, and a stack that is aligned as after a call.
    auto top = reinterpret_cast<void **>(stack + size) - 2;
    *top = reinterpret_cast<void *>(&Fiber::start);
    pointer = top - saved_registers;
#else
    auto frame = reinterpret_cast<void **>(stack + size - 160);
    frame[0] = reinterpret_cast<void *>(&Fiber::start);
    pointer = frame;
#endif
    fake_stack = nullptr;
}

void Fiber::start() {
    entering->arrive();
    entering->entry();
}

void Fiber::switch_to(Fiber &other) {
    leaving = this;
    entering = &other;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake_stack, other.stack, other.size);
#endif
    cuda_host_switch(&pointer, other.pointer);
    arrive();
}

void Fiber::arrive() {
#ifdef __SANITIZE_ADDRESS__
    const void *stack_left;
    size_t size_left;
    __sanitizer_finish_switch_fiber(fake_stack, &stack_left, &size_left);
    if (!leaving->entry) {  // the first stack is known only now
        leaving->stack = static_cast<char *>(const_cast<void *>(stack_left));
        leaving->size = size_left;
    }
#endif
}

}  // namespace cuda_host
