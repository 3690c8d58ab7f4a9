// Broken rules: a line on stderr for the reader, a record for the tests.
#pragma once
#include <string>

namespace cuda_host {

/// Say that a rule was broken.
[[gnu::format(printf, 1, 2)]] void report(const char *format, ...);

/// Say why a call was refused that a correct program may make too: on stderr only.
[[gnu::format(printf, 1, 2)]] void note(const char *format, ...);

/// As printf, into a string.
[[gnu::format(printf, 1, 2)]] std::string text(const char *format, ...);

/// "file:line" of an instruction in a module, or its bare address where addr2line cannot tell.
std::string source_line(const void *code);

}  // namespace cuda_host
