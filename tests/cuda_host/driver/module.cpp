#include "module.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <link.h>
#include <regex>

#include "device.h"
#include "report.h"
#include "sha256.h"

namespace cuda_host {

/// Bytes of one PTX type: ".u64" has 8, ".pred" none that memory knows.
static size_t type_bytes(const std::string &type) { return std::strtoul(type.c_str() + 2, nullptr, 10) / 8; }

static size_t count(const std::string &brackets) {
    return brackets.empty() ? 1 : std::strtoul(brackets.c_str() + 1, nullptr, 10);
}

static std::string without_comments(const std::string &text) {
    std::string kept;
    for (size_t i = 0; i < text.size();) {
        size_t comment = text.find("//", i), block = text.find("/*", i);
        size_t next = std::min(comment, block);
        kept.append(text, i, next == std::string::npos ? next : next - i);
        if (next == std::string::npos) break;
        i = next == comment ? text.find('\n', next) : text.find("*/", next);
        if (i == std::string::npos) break;
        if (next == block) i += 2;
    }
    return kept;
}

/// From an entry's name on: parameters, directives, body.
static Entry parse_entry(const std::string &text, size_t at) {
    static const std::regex parameter(
        R"(\.param\s+(?:\.align\s+\d+\s+)?(\.[a-z]+\d+)(?:\s+\.ptr[^,)]*)?\s+[\w$]+(\[\d+\])?)");
    static const std::regex threads(R"(\.(?:maxntid|reqntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?)");
    static const std::regex shared(R"(\.shared\s+(?:\.align\s+\d+\s+)?(\.[a-z]+\d+)\s+[\w$]+(\[\d+\])?)");
    Entry entry;
    size_t name_end = text.find_first_of("({", at), body = text.find('{', at), end = body;
    std::string head = text.substr(at, body - at), parameters;
    if (text[name_end] == '(') parameters = text.substr(name_end, text.find(')', name_end) - name_end + 1);
    for (std::sregex_iterator i(parameters.begin(), parameters.end(), parameter), none; i != none; ++i)
        entry.sizes.push_back(type_bytes((*i)[1]) * count((*i)[2]));
    std::smatch found;
    if (std::regex_search(head, found, threads)) {
        entry.max_threads = 1;
        for (int i = 1; i <= 3; ++i)
            if (found[i].matched) entry.max_threads *= std::stoul(found[i]);
    }
    for (int depth = 0; end < text.size(); ++end) {
        depth += (text[end] == '{') - (text[end] == '}');
        if (!depth) break;
    }
    for (size_t line = body; (line = text.find(".shared", line)) < end; line += 7) {
        std::string declaration = text.substr(line, text.find_first_of(";\n", line) - line);
        if (std::regex_search(declaration, found, shared, std::regex_constants::match_continuous))
            entry.static_shared += type_bytes(found[1]) * count(found[2]);
    }
    return entry;
}

Ptx Ptx::parse(const std::string &commented) {
    std::string text = without_comments(commented);
    Ptx ptx;
    int major = 0, minor = 0;
    size_t version = text.find(".version"), target = text.find(".target");
    if (version != std::string::npos && std::sscanf(text.c_str() + version, ".version %d.%d", &major, &minor) == 2)
        ptx.version = 10 * major + minor;
    if (target != std::string::npos) std::sscanf(text.c_str() + target, ".target sm_%d", &ptx.target);
    for (size_t at = 0; (at = text.find(".entry", at)) != std::string::npos;) {
        at = text.find_first_not_of(" \t\n", at + 6);
        size_t end = text.find_first_of(" \t\n({", at);
        ptx.entries[text.substr(at, end - at)] = parse_entry(text, end);
    }
    return ptx;
}

void measure(Module &module) {
    struct Search {
        Module &module;
        const char *base;
    };
    auto note = [](dl_phdr_info *info, size_t, void *argument) {
        auto &[module, base] = *static_cast<Search *>(argument);
        if (reinterpret_cast<const char *>(info->dlpi_addr) != base) return 0;
        module.image.base = info->dlpi_addr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto &segment = info->dlpi_phdr[i];
            if (segment.p_type == PT_LOAD) module.image.size = segment.p_vaddr + segment.p_memsz;
            if (segment.p_type == PT_TLS)
                module.statics = {reinterpret_cast<uintptr_t>(info->dlpi_tls_data), segment.p_memsz};
        }
        return 1;
    };
    Dl_info where;
    void *kernels = dlsym(module.library.get(), "cuda_host_kernels");
    if (!kernels || !dladdr(kernels, &where)) return;
    dlsym(module.library.get(), "cuda_host_shared");  // a thread-local variable: now the thread has them all
    Search search{module, static_cast<const char *>(where.dli_fbase)};
    dl_iterate_phdr(note, &search);
}

static const Kernel *kernels_of(const Module &module) {
    return static_cast<const Kernel *>(dlsym(module.library.get(), "cuda_host_kernels"));
}

const Kernel *find_kernel(const Module &module, const std::string &name) {
    for (const Kernel *kernel = kernels_of(module); kernel && kernel->name; ++kernel)
        if (kernel->name == name) return kernel;
    return nullptr;
}

size_t argument_bytes(const Kernel &kernel) {
    size_t offset = 0;
    for (unsigned i = 0; i < kernel.parameters; ++i)
        offset = (offset + kernel.alignments[i] - 1) / kernel.alignments[i] * kernel.alignments[i] + kernel.sizes[i];
    return offset;
}

/// A PTX text that was not made from the sources of its host build would let the tests test something else.
static bool agree(const Module &module) {
    for (const Kernel *kernel = kernels_of(module); kernel && kernel->name; ++kernel) {
        auto entry = module.ptx.entries.find(kernel->name);
        if (entry == module.ptx.entries.end()) {
            report("the PTX has no entry %s, its host build has", kernel->name);
            return false;
        }
        if (entry->second.sizes != std::vector<size_t>(kernel->sizes, kernel->sizes + kernel->parameters)) {
            report("the parameters of %s differ between the PTX and its host build", kernel->name);
            return false;
        }
    }
    for (const auto &[name, entry] : module.ptx.entries)
        if (!find_kernel(module, name)) {
            report("the PTX has an entry %s, its host build has not", name.c_str());
            return false;
        }
    return true;
}

void unload(void *library) {
    if (!library) return;
    Dl_info where{};
    dladdr(dlsym(library, "cuda_host_kernels"), &where);
    std::string path = where.dli_fname ? where.dli_fname : "";
    dlclose(library);
    std::filesystem::remove(path);
}

CUresult load(const std::string &text, Module &module) {
    static unsigned copies = 0;
    if (text.compare(0, 4, "\177ELF") == 0) {
        note("a cubin is for one GPU: load PTX");
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    module.ptx = Ptx::parse(text);
    if (!module.ptx.version || !module.ptx.target) {
        note("the module is no PTX: .version or .target is missing");
        return CUDA_ERROR_INVALID_PTX;
    }
    if (module.ptx.version > device::ptx_version) {
        note("PTX %d.%d is newer than the driver, which knows %d.%d", module.ptx.version / 10, module.ptx.version % 10,
             device::ptx_version / 10, device::ptx_version % 10);
        return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    }
    if (module.ptx.target > device::capability) {
        note("PTX for sm_%d does not run on a device of sm_%d", module.ptx.target, device::capability);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    const char *builds = std::getenv("CUDA_HOST_MODULES");
    std::string build = std::string(builds ? builds : ".") + "/" + sha256(text) + ".so";
    // A copy for each module, since each has variables of its own.
    std::string own = build + "." + std::to_string(++copies);
    std::error_code failure;
    std::filesystem::copy_file(build, own, failure);
    module.library.reset(dlopen(own.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (!module.library) {
        note("no host build of this PTX is registered: %s", failure ? failure.message().c_str() : dlerror());
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    return agree(module) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

}  // namespace cuda_host
