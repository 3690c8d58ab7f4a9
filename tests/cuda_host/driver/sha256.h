// SHA-256 (FIPS 180-4), which is how a PTX text names its host build.
#pragma once
#include <string>

namespace cuda_host {

/// 64 hexadecimal digits.
std::string sha256(const std::string &message);

}  // namespace cuda_host
