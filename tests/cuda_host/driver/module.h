// Modules: PTX texts, and the builds of the same sources by g++ that stand in for them.
#pragma once
#include <cstdint>
#include <cuda.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "block.h"
#include "cuda_host/abi.h"

namespace cuda_host {

/// What PTX says of an entry point.
struct Entry {
    std::vector<size_t> sizes;  // of the parameters, bytes
    size_t static_shared = 0;   // bytes
    unsigned max_threads = 0;   // of a block, 0 when not said
};

/// ".version", ".target" and the entry points of a PTX text.
struct Ptx {
    int version = 0;  // 85 for 8.5
    int target = 0;   // 75 for sm_75
    std::map<std::string, Entry> entries;

    static Ptx parse(const std::string &text);
};

/// Close a library that `load` opened, and remove its file.
void unload(void *library);

struct Module {
    uint64_t context;
    Ptx ptx = {};
    std::unique_ptr<void, void (*)(void *)> library{nullptr, unload};
    Range image = {}, statics = {};
    bool unloaded = false;
};

struct Function {
    std::shared_ptr<Module> module;
    const Kernel *kernel;
    const Entry *entry;
    size_t max_dynamic_shared;
    // State of the launches of old: cuFuncSetBlockShape, cuFuncSetSharedSize, cuParamSet*.
    uint3 block{0, 0, 0};
    size_t shared = 0;
    std::vector<char> arguments = {};
};

/// Fill in `module` from the text of a PTX file. Otherwise the error that CUDA has for it, reported.
CUresult load(const std::string &text, Module &module);
/// Find out where the module lies, and where its static shared memory: g++ has it as thread-local variables, so it is
/// the module's thread-local storage of the calling thread.
void measure(Module &module);
const Kernel *find_kernel(const Module &module, const std::string &name);
/// Size of the packed arguments, bytes.
size_t argument_bytes(const Kernel &kernel);

}  // namespace cuda_host
