#include "sha256.h"

#include <cmath>
#include <cstdint>
#include <cstdio>

namespace cuda_host {

static uint32_t rotated(uint32_t word, int by) { return word >> by | word << (32 - by); }

static bool prime(int n) {
    for (int i = 2; i * i <= n; ++i)
        if (n % i == 0) return false;
    return true;
}

/// The constants of the standard: the first 32 bits of the fractions of roots of the first primes.
static void constants(uint32_t *state, uint32_t *round) {
    for (int n = 2, count = 0; count < 64; ++n) {
        if (!prime(n)) continue;
        long double square = std::sqrt(static_cast<long double>(n)), cube = std::cbrt(static_cast<long double>(n));
        if (count < 8) state[count] = static_cast<uint32_t>((square - std::floor(square)) * 0x1p32L);
        round[count++] = static_cast<uint32_t>((cube - std::floor(cube)) * 0x1p32L);
    }
}

static void compress(uint32_t *state, const uint32_t *round, const unsigned char *block) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; ++i, block += 4)
        w[i] = uint32_t{block[0]} << 24 | uint32_t{block[1]} << 16 | uint32_t{block[2]} << 8 | block[3];
    for (int i = 16; i < 64; ++i) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) +
               (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; ++i) s[i] = state[i];
    for (int i = 0; i < 64; ++i) {
        uint32_t sum1 = rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25),
                 choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t sum0 = rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t first = s[7] + sum1 + choice + round[i] + w[i], second = sum0 + majority;
        for (int j = 7; j > 0; --j) s[j] = s[j - 1];
        s[4] += first;
        s[0] = first + second;
    }
    for (int i = 0; i < 8; ++i) state[i] += s[i];
}

std::string sha256(const std::string &message) {
    uint32_t state[8], round[64];
    constants(state, round);
    std::string padded = message + '\x80';
    padded.resize((padded.size() + 8 + 63) / 64 * 64 - 8);
    for (int shift = 56; shift >= 0; shift -= 8) padded += static_cast<char>(uint64_t{message.size()} * 8 >> shift);
    for (size_t i = 0; i < padded.size(); i += 64)
        compress(state, round, reinterpret_cast<const unsigned char *>(padded.data()) + i);
    char digits[65];
    for (int i = 0; i < 8; ++i) std::snprintf(digits + 8 * i, 9, "%08x", state[i]);
    return digits;
}

}  // namespace cuda_host
