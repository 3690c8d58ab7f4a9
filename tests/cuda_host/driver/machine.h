// What the driver's calls share: contexts, the handles that it gave out, and the lock.
#pragma once
#include <cstdint>
#include <cuda.h>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "memory.h"
#include "module.h"
#include "queue.h"
#include "report.h"

#define API extern "C" __attribute__((visibility("default"))) CUresult

namespace cuda_host {

struct Context {
    uint64_t id;
    bool primary;
    unsigned flags = 0;
    int users = 0;
    CUresult error = CUDA_SUCCESS;  // of a launch or a copy; stays, as on a GPU
    Stream *stream = nullptr;       // the legacy default stream
};

struct Event {
    uint64_t context;
    bool timing;
    WorkPointer recorded;
};

/// Handles are numbers that are never used twice, so that a stale one is known for what it is.
uint64_t new_number();
/// Whether a handle is from before the last reset, whose owner may still let go of it.
bool outdated(void *handle);

template <class Handle, class Object>
class Table {
public:
    Handle add(Object object) {
        uint64_t number = new_number();
        objects[number] = std::make_unique<Object>(std::move(object));
        return reinterpret_cast<Handle>(number);
    }
    /// Null for a handle that is none of these (reported).
    Object *find(Handle handle, const char *what) {
        auto found = objects.find(reinterpret_cast<uint64_t>(handle));
        if (found != objects.end()) return found->second.get();
        if (!outdated(handle)) report("%s %p is not, or no longer, there", what, static_cast<void *>(handle));
        return nullptr;
    }
    void remove(Handle handle) { objects.erase(reinterpret_cast<uint64_t>(handle)); }
    template <class Condition>
    void remove_if(Condition condition) {
        for (auto i = objects.begin(); i != objects.end();) i = condition(*i->second) ? objects.erase(i) : std::next(i);
    }

    std::unordered_map<uint64_t, std::unique_ptr<Object>> objects;
};

struct StreamHandle {
    uint64_t context;
    Stream *stream;
};

struct Machine {
    std::recursive_mutex lock;
    bool initialised = false;
    Queue queue;
    Table<CUcontext, Context> contexts;
    Table<CUmodule, std::shared_ptr<Module>> modules;
    Table<CUfunction, Function> functions;
    Table<CUstream, StreamHandle> streams;
    Table<CUevent, Event> events;
    CUcontext primary = nullptr;

    Machine();
    void reset(uint64_t seed);
    void finish();
    CUcontext create(bool primary, unsigned flags);
    void destroy(CUcontext context);
    /// The stream behind a handle that belongs to the context; null when there is none (reported).
    Stream *stream(CUstream handle, const Context &context);
};
extern Machine machine;

/// The stack of contexts of the calling thread.
extern thread_local std::vector<CUcontext> current;

/// One call at a time, and only when the driver is initialised.
struct Call {
    std::lock_guard<std::recursive_mutex> lock{machine.lock};
    CUresult error = machine.initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
};

/// A call that needs a current context, and one that no launch has broken.
struct ContextCall : Call {
    Context *context = nullptr;
    bool stale = false;  // the current context is from before a reset
    ContextCall();
};

/// Report, and the error to return.
template <class... Arguments>
CUresult refuse(CUresult error, const char *format, Arguments... arguments) {
    report(format, arguments...);
    return error;
}

#define CALL \
    Call call; \
    if (call.error) return call.error
#define CONTEXT_CALL \
    ContextCall call; \
    if (call.error) return call.error
// Who lets go of something that a reset took already is told that all is well.
#define CLEANUP_CALL \
    ContextCall call; \
    if (call.error) return call.stale ? CUDA_SUCCESS : call.error
#define REQUIRE(pointer) \
    if (!(pointer)) return refuse(CUDA_ERROR_INVALID_VALUE, "%s: " #pointer " is null", __func__)

}  // namespace cuda_host
