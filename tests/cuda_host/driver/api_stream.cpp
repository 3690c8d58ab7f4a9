// The driver API: streams and events.
#include "machine.h"

using namespace cuda_host;

#define STREAM(handle) \
    Stream *stream = machine.stream(handle, *call.context); \
    if (!stream) return CUDA_ERROR_INVALID_HANDLE
#define EVENT(handle) \
    Event *event = machine.events.find(handle, "event"); \
    if (!event) return CUDA_ERROR_INVALID_HANDLE

API cuStreamCreate(CUstream *stream, unsigned flags) {
    CONTEXT_CALL;
    REQUIRE(stream);
    bool blocking = !(flags & CU_STREAM_NON_BLOCKING);
    uint64_t context = call.context->id;
    *stream = machine.streams.add(StreamHandle{context, &machine.queue.create_stream(context, blocking)});
    return CUDA_SUCCESS;
}

API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

API cuStreamDestroy(CUstream handle) {
    CALL;
    if (outdated(handle)) return CUDA_SUCCESS;
    StreamHandle *stream = machine.streams.find(handle, "stream");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    machine.queue.destroy_stream(*stream->stream);
    machine.streams.remove(handle);
    return CUDA_SUCCESS;
}

API cuStreamSynchronize(CUstream handle) {
    CONTEXT_CALL;
    STREAM(handle);
    machine.queue.finish(stream->last);
    return call.context->error;
}

API cuStreamQuery(CUstream handle) {
    CONTEXT_CALL;
    STREAM(handle);
    if (!stream->last || stream->last->done) return CUDA_SUCCESS;
    machine.queue.proceed();  // who asks again and again sees an end
    return call.context->error ? call.context->error : CUDA_ERROR_NOT_READY;
}

API cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
    CONTEXT_CALL;
    STREAM(handle);
    EVENT(event_handle);
    // What was recorded when the wait was asked for; a later record is another matter.
    if (event->recorded) machine.queue.submit(*stream, [] { return CUDA_SUCCESS; }, {event->recorded});
    return CUDA_SUCCESS;
}

// What a library does in the stream's order, or work of its own that stands for a library's kernels.
API cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data) {
    CONTEXT_CALL;
    STREAM(handle);
    REQUIRE(function);
    machine.queue.submit(*stream, [=] { return function(data), CUDA_SUCCESS; });
    return call.context->error;
}

API cuEventCreate(CUevent *event, unsigned flags) {
    CONTEXT_CALL;
    REQUIRE(event);
    *event = machine.events.add(Event{call.context->id, !(flags & CU_EVENT_DISABLE_TIMING), nullptr});
    return CUDA_SUCCESS;
}

API cuEventDestroy(CUevent handle) {
    CALL;
    if (outdated(handle)) return CUDA_SUCCESS;
    EVENT(handle);
    machine.events.remove(handle);
    return CUDA_SUCCESS;
}

API cuEventRecord(CUevent handle, CUstream stream_handle) {
    CONTEXT_CALL;
    STREAM(stream_handle);
    EVENT(handle);
    if (event->context != call.context->id)
        return refuse(CUDA_ERROR_INVALID_HANDLE, "an event is recorded on a stream of another context");
    event->recorded = machine.queue.submit(*stream, [] { return CUDA_SUCCESS; });
    return CUDA_SUCCESS;
}

API cuEventSynchronize(CUevent handle) {
    CONTEXT_CALL;
    EVENT(handle);
    machine.queue.finish(event->recorded);
    return call.context->error;
}

API cuEventQuery(CUevent handle) {
    CONTEXT_CALL;
    EVENT(handle);
    if (!event->recorded || event->recorded->done) return CUDA_SUCCESS;
    machine.queue.proceed();
    return call.context->error ? call.context->error : CUDA_ERROR_NOT_READY;
}

API cuEventElapsedTime(float *milliseconds, CUevent from_handle, CUevent to_handle) {
    CONTEXT_CALL;
    Event *from = machine.events.find(from_handle, "event"), *to = machine.events.find(to_handle, "event");
    if (!from || !to || !from->timing || !to->timing) return CUDA_ERROR_INVALID_HANDLE;
    if (!from->recorded || !to->recorded)
        return refuse(CUDA_ERROR_INVALID_HANDLE, "the time between events is asked for, one of which was not recorded");
    if (!from->recorded->done || !to->recorded->done) return CUDA_ERROR_NOT_READY;
    *milliseconds = static_cast<float>(to->recorded->time - from->recorded->time);
    return CUDA_SUCCESS;
}
