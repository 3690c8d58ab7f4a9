#include "machine.h"

#include <cstdlib>

namespace cuda_host {

// In this order: the machine resets the others when it begins.
Memory memory;
Multiprocessor multiprocessor;
Machine machine;
thread_local std::vector<CUcontext> current;

// Beyond the numbers that CUDA has for streams without a handle.
static uint64_t next_number = 0x1000, first_number = 0x1000;

uint64_t new_number() { return next_number += 16; }

bool outdated(void *handle) {
    uint64_t number = reinterpret_cast<uint64_t>(handle);
    return number > 0x1000 && number <= first_number;
}

Machine::Machine() {
    auto find = [this](uint64_t id) -> Context * {
        for (auto &[number, context] : contexts.objects)
            if (context->id == id) return context.get();
        return nullptr;
    };
    queue.failed = [=](uint64_t id, CUresult error) {
        if (Context *context = find(id)) context->error = error;
    };
    queue.broken = [=](uint64_t id) {
        Context *context = find(id);
        return !context || context->error;
    };
    const char *seed = std::getenv("CUDA_HOST_SEED");
    reset(seed ? std::strtoull(seed, nullptr, 10) : 0);
}

void Machine::reset(uint64_t seed) {
    first_number = next_number;
    queue.reset(seed);
    functions.objects.clear();
    modules.objects.clear();
    streams.objects.clear();
    events.objects.clear();
    contexts.objects.clear();
    primary = nullptr;
    memory.forget();
    multiprocessor.random.seed(seed);
    // NaN in every floating type, and a number that is large in most: a maximum hides the one, not the other.
    memory.poison = multiprocessor.poison = seed % 2 ? 0x7e : 0xff;
}

void Machine::finish() {
    for (auto &[number, context] : contexts.objects) queue.finish_context(context->id);
}

CUcontext Machine::create(bool is_primary, unsigned flags) {
    uint64_t id = new_number();
    return contexts.add(Context{id, is_primary, flags, 0, CUDA_SUCCESS, &queue.default_stream(id)});
}

void Machine::destroy(CUcontext handle) {
    uint64_t id = contexts.find(handle, "context")->id;
    queue.finish_context(id);  // what was queued may have lost its memory already, which must show
    auto belongs = [&](const auto &object) { return object.context == id; };
    queue.forget(id);
    functions.remove_if([&](const Function &function) { return function.module->context == id; });
    modules.remove_if([&](const std::shared_ptr<Module> &module) { return module->context == id; });
    streams.remove_if(belongs);
    events.remove_if(belongs);
    memory.release_all_of(id);
    contexts.remove(handle);
    if (primary == handle) primary = nullptr;
}

Stream *Machine::stream(CUstream handle, const Context &context) {
    if (!handle || handle == CU_STREAM_LEGACY) return context.stream;
    StreamHandle *found = streams.find(handle, "stream");
    if (!found) return nullptr;
    if (found->context == context.id) return found->stream;
    report("stream %p is of another context than the current one", static_cast<void *>(handle));
    return nullptr;
}

ContextCall::ContextCall() {
    if (error) return;
    if (current.empty() || !current.back()) {
        error = refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread");
        return;
    }
    stale = outdated(current.back());
    context = machine.contexts.find(current.back(), "the current context");
    error = context ? context->error : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

}  // namespace cuda_host

/// Do all that is queued, as if time had passed. Not CUDA's: for tests.
extern "C" __attribute__((visibility("default"))) void cuda_host_finish() {
    std::lock_guard<std::recursive_mutex> lock(cuda_host::machine.lock);
    cuda_host::machine.finish();
}

/// Everything is as at the start, but for the seed; handles and pointers from before are stale.
extern "C" __attribute__((visibility("default"))) void cuda_host_reset(uint64_t seed) {
    std::lock_guard<std::recursive_mutex> lock(cuda_host::machine.lock);
    cuda_host::machine.reset(seed);
    cuda_host::current.clear();
}
