// What each instruction set gives to the Hamming search: a table of kernels over panels.
//
// A panel is a run of codes laid out for vertical work: each vector lane is one code, so that distances need no
// horizontal sums. Codes of up to 4 bytes are uint32 lanes, [n]. Wider ones are cut into W' = ceil(W / 8) uint64 words,
// zero padded, and lie in groups of 8 codes: [ceil(n / 8)][W'][8]. With 4- or 8-byte codes a contiguous database is a
// panel already. The last panel block is readable to a multiple of 64 codes; what lies there beyond n is ignored.
//
// Codes whose bits are weighted lie as uint32 words in groups of 16 codes, [ceil(n / 16)][words][16], whatever their
// width. A word is four bytes of the code under a mask, and each of the four has a weight for its differing bits: for
// each word a xor, the bit counts of its bytes, and their weighted sum. A byte whose bits have several weights is in
// several words. Where all words have the same weights their counts are added first, and weighted once.
//
// This header is shared by files compiled for different processors: declarations only, no inline functions.
#pragma once

#include <cstdint>

namespace fasthash {

struct WeightedWord {
    int64_t offset;          // byte i of the word is byte offset + bytes[i] of the code, 0 beyond its end;
    uint8_t bytes[4];        // below 8
    uint32_t mask, weights;  // of the four bytes, the first the lowest
};
constexpr int64_t kSharedWords = 8;  // so many words of one kind may be counted before they are weighted

enum PanelWidth : int32_t { kPanel32, kPanel64, kPanel128, kPanel256, kPanel512, kPanel1024, kPanelAny, kPanelWidths };

// A block of queries against one panel: which codes are nearer than each query's limit? The scan stops whenever it has
// hits for a query and goes on where it stopped, with the limits read anew.
struct ScanRequest {
    const uint8_t* queries;          // query q at queries + q * (bytes of a code in the panel), any alignment
    const int32_t* limits;           // limits[q] >= 0
    const void* panel;               // see above
    const uint64_t* mask;            // [ceil(n / 64)] or null: bit c % 64 of word c / 64 set = code c is eligible
    int64_t words;                   // W'
    int64_t largest;                 // the greatest distance
    int64_t n;                       // codes in the panel, < 2^32
    uint64_t* hits;                  // [kHitsRoom]
    const uint8_t* next;             // what will be read after this panel, fetched while the queries pass:
    int64_t next_bytes;              // so many bytes for each query
    int64_t query, query_end, code;  // where to go on
    int64_t hit_query, hit_count;    // hits of this query: distance << 32 | code, ascending by code
    const WeightedWord* weighted;    // [W'], for the weighted functions
    bool shared;                     // all of them have the same weights, and there are at most kSharedWords
};

constexpr int64_t kScanBlock = 64;   // codes: panels are readable to a multiple of it
constexpr int64_t kHitsRoom = 2176;  // far more than the hits of a span

struct ScanTable {
    // Lays rows out as a panel: row i is database + (positions ? positions[i] : i) * stride, W bytes.
    // panel holds ceil(n / 64) * 64 codes; those from n on become 0.
    void (*pack)(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W, void* panel);
    // True: take the hits, then call again. False: done. Indexed by PanelWidth.
    bool (*scan[kPanelWidths])(ScanRequest* request);
    // Distances of codes [begin, end) of the panel; begin is a multiple of kScanBlock; out [end - begin].
    void (*distances[kPanelWidths])(const void* query, const void* panel, int64_t words, int64_t begin, int64_t end,
                                    int32_t* out);
    int64_t (*count_bits)(const uint64_t* words, int64_t n);
    // 64 booleans, one byte each, 0 or anything else for true, to each of n words.
    void (*mask)(const uint8_t* booleans, int64_t n, uint64_t* words);

    // The same for weighted bits. W: bytes of a code; words: how many `weighted` has. A query is [words] too.
    void (*pack_weighted)(const WeightedWord* weighted, int64_t words, const uint8_t* database, int64_t stride,
                          const uint32_t* positions, int64_t n, int64_t W, void* panel);
    bool (*scan_weighted)(ScanRequest* request);
    void (*distances_weighted)(const WeightedWord* weighted, const void* query, const void* panel, int64_t words,
                               int64_t begin, int64_t end, int32_t* out);
};

#define FH_ISA(name, Name, processor, ...) FH_ON_##processor(extern const ScanTable kScan##Name;)
#include "core/isa.def"

}  // namespace fasthash
