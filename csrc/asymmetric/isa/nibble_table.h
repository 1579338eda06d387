// What each instruction set gives to the asymmetric search: a table of kernels over panels of nibbles.
//
// A nibble is four bits of a code. A query has 16 bytes for each nibble of a code: what the nibble adds to the code's
// sum for each of its values. Registers hold these tables, and one instruction looks up a nibble of 16 codes or more.
//
// A panel holds codes in blocks of 64, each padded with zeros to W' bytes, a multiple of 8. It has an index for each
// nibble, or for few queries the bytes, which cost less to write and more to look up. The instruction set says in which
// order. A query's tables are [W' / 4][high, low][4][16]: those of the high nibbles of four bytes, then of the low
// ones; the last index is the nibble's value.
//
// This header is shared by files compiled for different processors: declarations only, no inline functions.
#pragma once

#include <cstdint>

namespace fasthash {

constexpr int64_t kNibbleBlock = 64;  // codes
constexpr int64_t kPanelBlocks = 64;  // at most
constexpr int64_t kNibbleHits = 128;  // room for the hits of a call

// Which codes of a panel have a bound that does not rule them out? Stops when there are at least 64 hits.
struct NibbleScan {
    const uint8_t* tables;  // of the query, see above
    const uint8_t* panel;
    bool of_bytes;  // the panel
    int64_t bytes;  // W'
    // Distance in bytes from the panel to the bytes that are read next and are prefetched now. 0: no prefetch.
    int64_t ahead;
    int64_t n;  // codes in the panel
    // Where scales is null: the code passes if its sum is below `limit`, 0..most_sum + 1.
    uint32_t limit;
    // Else if s (base + step sum + square s) <= most, all of it in float: each operation is rounded.
    const uint16_t* scales;     // [n] half floats, readable to a whole block; s is one as a float
    const float *lows, *highs;  // of the scales of each block
    float base, step, square, most;
    int64_t code;    // where to go on
    uint32_t* hits;  // [kNibbleHits], ascending
    int64_t hit_count;
};

struct NibbleTable {
    int32_t most;      // a query's bytes are at most so large,
    int32_t most_sum;  // and their sums, for any code; below 2^24, so that floats hold them
    // Lays rows out as a panel: row i is database + (positions ? positions[i] : i) * stride, W bytes. n >= 1.
    // What fills the last block up is not said. pack[1] makes a panel of bytes.
    void (*pack[2])(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W,
                    uint8_t* panel);
    // True: take the hits, then call again. False: done, there may still be hits.
    bool (*scan)(NibbleScan* request);
    // The half floats of the codes, finite and >= 0, side by side, and the least and the greatest of each block.
    void (*scales)(const uint16_t* halves, const uint32_t* positions, int64_t n, uint16_t* scales, float* lows,
                   float* highs);
};

#define FH_ISA(name, Name, processor, ...) FH_ON_##processor(extern const NibbleTable kNibble##Name;)
#include "core/isa.def"

}  // namespace fasthash
