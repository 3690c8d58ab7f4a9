#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#include "report.h"

namespace cuda_host {

static constexpr size_t page = 4096;

static size_t pages(size_t bytes) { return (bytes + page - 1) / page * page; }

static size_t cell_bytes(const Region &region) { return pages(region.size * sizeof(Cell)); }

Cell *Region::shadow(uintptr_t address) {
    if (!cells)
        cells = static_cast<Cell *>(mmap(nullptr, cell_bytes(*this), PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    return cells + (address - base);
}

#ifdef __SANITIZE_ADDRESS__

// From malloc, so that the red zones of AddressSanitizer lie around it, byte by byte.
uintptr_t Memory::map(size_t size, size_t alignment) {
    void *address = nullptr;
    return posix_memalign(&address, alignment, size) ? 0 : reinterpret_cast<uintptr_t>(address);
}

static void unmap(const Region &region) { std::free(reinterpret_cast<void *>(region.base)); }

#else

uintptr_t Memory::map(size_t size, size_t alignment) {
    constexpr size_t reserve = size_t{4} << 40;
    if (!next) {
        void *address = mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address == MAP_FAILED) return 0;
        first = next = reinterpret_cast<uintptr_t>(address);
        end = next + reserve;
    }
    // Behind the start of a page by the alignment that is promised and no more; a page that nobody may touch behind it.
    size_t bytes = pages(alignment % page + size);
    if (next + bytes + page > end || mprotect(reinterpret_cast<void *>(next), bytes, PROT_READ | PROT_WRITE)) return 0;
    uintptr_t address = next + alignment % page;
    next += bytes + page;
    return address;
}

static void unmap(const Region &region) {
    uintptr_t start = region.base / page * page;
    mmap(reinterpret_cast<void *>(start), pages(region.base + region.size - start), PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

#endif

Region *Memory::allocate(size_t size, Kind kind, uint64_t context, size_t alignment) {
    bool device = kind == Kind::device;
    if (device && size > free_bytes()) return nullptr;
    uintptr_t base = map(size, alignment);
    if (!base) return nullptr;
    std::memset(reinterpret_cast<void *>(base), poison, size);
    if (device) used += size;
    return &(regions.insert_or_assign(base, Region{base, size, kind, context, true}).first->second);
}

Region *Memory::adopt(uintptr_t base, size_t size, Kind kind, uint64_t context) {
    auto above = regions.lower_bound(base + size);
    if (above != regions.begin()) {
        const Region &below = std::prev(above)->second;
        if (!below.freed && below.base + below.size > base) return nullptr;
    }
    return &(regions.insert_or_assign(base, Region{base, size, kind, context, false}).first->second);
}

void Memory::release(Region &region) {
    region.freed = true;
    if (region.kind == Kind::device) used -= region.size;
    if (region.owned) unmap(region);
    if (region.cells) munmap(region.cells, cell_bytes(region));
    region.cells = nullptr;
#ifdef __SANITIZE_ADDRESS__
    regions.erase(region.base);  // malloc may give these addresses to anybody now
#endif
}

Region *Memory::find(uintptr_t address) {
    auto above = regions.upper_bound(address);
    return above == regions.begin() ? nullptr : &std::prev(above)->second;
}

Region *Memory::at(uintptr_t base) {
    auto found = regions.find(base);
    return found == regions.end() ? nullptr : &found->second;
}

static const char *name(Kind kind) {
    switch (kind) {
        case Kind::device: return "device memory";
        case Kind::pinned: return "pinned host memory";
        case Kind::mapped: return "mapped host memory";
        case Kind::global: return "a module's variable";
    }
    return "";
}

std::string Memory::describe(uintptr_t address, size_t bytes) {
    std::string where = text("%zu bytes at 0x%zx", bytes, address);
    if (address < page) return where + ", a null pointer";
    Region *region = find(address);
    if (!region || address - region->base > region->size + (size_t{1} << 20))
        return where + ", host memory or no memory at all";
    const char *state = region->freed ? "freed" : "live";
    if (address >= region->base + region->size)
        return where + text(", %zu bytes behind the end of %zu bytes of %s %s", address - region->base - region->size,
                            region->size, state, name(region->kind));
    return where +
           text(", byte %zu of %zu bytes of %s %s", address - region->base, region->size, state, name(region->kind));
}

void Memory::release_all_of(uint64_t context) {
    for (auto next = regions.begin(); next != regions.end();) {
        Region &region = (next++)->second;
        if (region.context == context && !region.freed) release(region);
    }
}

void Memory::forget() {
    for (auto next = regions.begin(); next != regions.end();) {
        Region &region = (next++)->second;
        if (!region.freed) release(region);
    }
    regions.clear();
    forgotten_until = next;
}

void Memory::forget_accesses() {
    for (auto &[base, region] : regions)
        if (region.cells) madvise(region.cells, cell_bytes(region), MADV_DONTNEED);
}

}  // namespace cuda_host
