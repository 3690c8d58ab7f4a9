// The address space of the device, and what is known of each byte in it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace cuda_host {

enum class Kind { device, pinned, mapped, global };

/// Who touched a byte last, as numbers of segments (race.h): the writer, and two readers, since a writer that races
/// with any of many readers of one moment races with at least one of two.
struct Cell {
    uint32_t writer, readers[2];

    static constexpr uint32_t forbidden = ~uint32_t{0};  // as writer: no kernel may touch the byte
};

/// An allocation, a registered range of the host, or a variable of a module.
struct Region {
    uintptr_t base;
    size_t size;
    Kind kind;
    uint64_t context;
    bool owned;  // allocated here, not registered
    bool freed = false;
    Cell *cells = nullptr;

    bool holds(uintptr_t address, size_t bytes) const {
        return address >= base && bytes <= size && address - base <= size - bytes;
    }
    bool on_device() const { return kind == Kind::device || kind == Kind::global; }
    /// Shadow of the byte at `address`, made at first use.
    Cell *shadow(uintptr_t address);
};

/// Addresses are never given out twice, so that a stale pointer is known for what it is.
class Memory {
public:
    static constexpr size_t total = size_t{8} << 30;

    /// New memory, poisoned; null when the device has no more.
    Region *allocate(size_t size, Kind kind, uint64_t context, size_t alignment = 256);
    /// Memory that exists already. Null when it overlaps with a known range.
    Region *adopt(uintptr_t base, size_t size, Kind kind, uint64_t context);
    void release(Region &region);
    /// The region that holds the address, or that it lies behind; null when there is none below it.
    Region *find(uintptr_t address);
    /// The region, alive or not, that begins at the address.
    Region *at(uintptr_t base);
    /// Whether the address was ever given out, and whether that was before the last `forget`.
    bool given(uintptr_t address) const { return address >= first && address < next; }
    bool forgotten(uintptr_t address) const { return address >= first && address < forgotten_until; }
    size_t free_bytes() const { return total - used; }
    /// "4 bytes at 0x..., 0 bytes behind the end of 1024 bytes of device memory".
    std::string describe(uintptr_t address, size_t bytes);
    void release_all_of(uint64_t context);
    void forget();
    void forget_accesses();

    unsigned char poison = 0xff;

private:
    std::map<uintptr_t, Region> regions;
    size_t used = 0;
    uintptr_t first = 0, next = 0, end = 0, forgotten_until = 0;

    uintptr_t map(size_t size, size_t alignment);
};

extern Memory memory;

}  // namespace cuda_host
