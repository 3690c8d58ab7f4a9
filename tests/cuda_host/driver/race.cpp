#include "race.h"

namespace cuda_host {

bool Races::begin_launch() {
    first += static_cast<uint32_t>(segments.size());
    segments.clear();
    channels.clear();
    bool wrapped = first > atomic / 2;
    if (wrapped) first = 1;
    begin_block();
    return wrapped;
}

void Races::begin_block() {
    first_of_block = first + static_cast<uint32_t>(segments.size());
    acquired.clear();
}

uint32_t Races::open(Order &order) {
    if (!order.segment) {
        order.segment = first + static_cast<uint32_t>(segments.size());
        segments.push_back({order.block, order.thread, order.interval, order.clock()});
    }
    return order.segment;
}

bool Races::ordered(const Segment &earlier, const Order &order) const {
    if (earlier.block == order.block)
        return earlier.thread == order.thread || earlier.interval < order.interval ||
               (earlier.thread / 32 == order.thread / 32 && earlier.clock <= order.clocks[earlier.thread % 32]);
    for (const Acquired &acquisition : acquired) {
        if (acquisition.thread != order.thread && acquisition.interval >= order.interval) continue;
        auto block = acquisition.channel->by_block.find(earlier.block);
        if (block == acquisition.channel->by_block.end()) continue;
        for (const Release &release : block->second)
            if (release.order < acquisition.releases &&
                (earlier.interval < release.interval ||
                 (earlier.thread == release.thread && earlier.clock <= release.clock)))
                return true;
    }
    return false;
}

bool Races::conflicts(const Order &order, uint32_t earlier, uint32_t floor) const {
    earlier &= ~atomic;
    return earlier >= floor && earlier != order.segment && !ordered(segments[earlier - first], order);
}

std::optional<Objection> Races::touch(Order &order, Cell *cells, size_t bytes, bool shared, Access access) {
    uint32_t self = open(order), floor = shared ? first_of_block : first;
    uint32_t mark = access == Access::atomic ? self | atomic : self;
    for (Cell *cell = cells; cell != cells + bytes; ++cell) {
        if (cell->writer == Cell::forbidden) return Objection{true, 0, 0, false};
        uint32_t other = 0;
        bool both_atomic = access == Access::atomic && cell->writer & atomic;
        if (!both_atomic && conflicts(order, cell->writer, floor)) other = cell->writer;
        if (access != Access::read)
            for (uint32_t reader : cell->readers)
                if (!other && conflicts(order, reader, floor)) other = reader;
        if (other) {
            const Segment &earlier = segments[(other & ~atomic) - first];
            return Objection{false, earlier.block, earlier.thread, other == cell->writer};
        }
        if (access != Access::read) {
            *cell = {mark, {0, 0}};
        } else if (cell->readers[0] != self) {
            // A reader that is ordered before this one is ordered before whatever comes after this one.
            cell->readers[conflicts(order, cell->readers[0], floor)] = self;
        }
    }
    return std::nullopt;
}

void Races::synchronize(Order &order, uintptr_t address) {
    Channel &channel = channels[address];
    acquired.push_back({&channel, channel.releases, order.thread, order.interval});
    if (order.fenced)
        channel.by_block[order.block].push_back(
            {channel.releases++, order.thread, order.fence_interval, order.fence_clock});
}

}  // namespace cuda_host
