// The records that the host and the kernels share. mag_rt/layout.py has the same layouts as numpy dtypes.
#pragma once

#include "element.cuh"

namespace mag {

// One picture of a batch: its 8-bit pixels (BGR where they are read, one grey channel where a mask is written) and the
// top left part of its H x W plane in the network's tensors that it takes up. No side is longer than 32767.
struct Placement {
    Byte* pixels;
    unsigned long long pitch;  // bytes from the start of one row to the start of the next
    int width, height;
    int placed_width, placed_height;
};
static_assert(sizeof(Placement) == 32, "mag_rt.layout.PLACEMENT has this layout");

constexpr int MOST_CHANNELS = 32;

// What `finish` counts for one picture. All but the box and `suspicious` is of the map as the network made it, within
// the placed part; those two are of the mask.
struct Statistics {
    unsigned nan, infinite;            // such values in all channels
    unsigned suspicious;               // mask pixels that reach the threshold ...
    int left, top, right, bottom;      // ... and their bounding box, inclusive; right < left where there are none
    unsigned unused;
    unsigned histogram[256];           // of channel 0, by grey level; NaN counts as 0
    unsigned likely[MOST_CHANNELS];    // values of 1/2 or more, by channel
};
static_assert(sizeof(Statistics) == 4 * (8 + 256 + MOST_CHANNELS), "mag_rt.layout.STATISTICS has this layout");

constexpr int FAR_AWAY = 0x7fffffff;  // left and top of an empty box

}  // namespace mag
