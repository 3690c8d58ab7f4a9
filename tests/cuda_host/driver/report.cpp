#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <vector>

namespace cuda_host {

static std::vector<std::string> violations;

static std::string formatted(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    std::string line(std::vsnprintf(nullptr, 0, format, again), '\0');
    va_end(again);
    std::vsnprintf(line.data(), line.size() + 1, format, arguments);
    return line;
}

std::string text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string line = formatted(format, arguments);
    va_end(arguments);
    return line;
}

void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fprintf(stderr, "cuda_host: %s\n", formatted(format, arguments).c_str());
    va_end(arguments);
}

void report(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    violations.push_back(formatted(format, arguments));
    va_end(arguments);
    std::fprintf(stderr, "cuda_host: %s\n", violations.back().c_str());
}

std::string source_line(const void *code) {
    Dl_info where;
    if (!code || !dladdr(code, &where)) return text("%p", code);
    // A return address is that of the next instruction.
    auto offset = static_cast<const char *>(code) - static_cast<const char *>(where.dli_fbase) - 1;
    std::string command = text("addr2line -i -e '%s' 0x%zx 2>/dev/null", where.dli_fname, static_cast<size_t>(offset));
    std::unique_ptr<FILE, int (*)(FILE *)> pipe(popen(command.c_str(), "r"), pclose);
    // Innermost first, and what is inlined from our own header is not what the reader wrote.
    char line[1024];
    while (pipe && std::fgets(line, sizeof line, pipe.get()))
        if (line[0] != '?' && !std::strstr(line, "/cuda_host/device.h:")) return {line, std::strcspn(line, " \n")};
    return text("%p", code);
}

}  // namespace cuda_host

/// The lines reported so far, newline after each, into `buffer` if they fit, and forgotten then; their length.
extern "C" __attribute__((visibility("default"))) size_t cuda_host_violations(char *buffer, size_t size) {
    std::string lines;
    for (const std::string &line : cuda_host::violations) lines += line + "\n";
    if (lines.size() <= size) {
        lines.copy(buffer, size);
        cuda_host::violations.clear();
    }
    return lines.size();
}
