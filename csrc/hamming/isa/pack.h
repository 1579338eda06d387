// Rows of codes to panels (scan_table.h), in plain C++; and what an instruction set's own way of it starts from.
//
// Everything is in an anonymous namespace, as in scan.h.
#pragma once

#include <cstdint>

#include "hamming/isa/scan_table.h"

namespace fasthash {
namespace {

constexpr int64_t kGroup = 8;           // codes that lie side by side in a panel of uint64 words
constexpr int64_t kWeightedGroup = 16;  // and of weighted uint32 words

// A T from any address: queries and database rows need not be aligned.
template <class T>
inline T load_bytes(const void* p) {
    T value;
    __builtin_memcpy(&value, p, sizeof(T));
    return value;
}

// The first `bytes` (1..8) of p in memory order, zero padded, without reading past them.
inline uint64_t load_partial(const uint8_t* p, int64_t bytes) {
    uint8_t padded[8] = {};
    for (int64_t b = 0; b < bytes; ++b) padded[b] = p[b];
    return load_bytes<uint64_t>(padded);
}

// Rows to panel, a row at a time. kWords > 0: whole words of that number.
template <class Word, int kWords>
inline void pack_rows(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W,
                      Word* panel) {
    constexpr int64_t kBytes = sizeof(Word);
    constexpr int64_t kSide = kBytes == 8 ? kGroup : 1;
    const int64_t words = kWords > 0 ? kWords : (W + kBytes - 1) / kBytes;
    const int64_t whole = kWords > 0 ? kWords : W / kBytes;
    const int64_t room = (n + kScanBlock - 1) / kScanBlock * kScanBlock;
    for (int64_t i = 0; i < room; ++i) {
        Word* lane = panel + i / kSide * kSide * words + i % kSide;
        if (i >= n) {
            for (int64_t word = 0; word < words; ++word) lane[word * kSide] = 0;
            continue;
        }
        const uint8_t* row = database + (positions != nullptr ? int64_t{positions[i]} : i) * stride;
        for (int64_t word = 0; word < whole; ++word) lane[word * kSide] = load_bytes<Word>(row + word * kBytes);
        if (kWords == 0 && whole < words)
            lane[whole * kSide] = static_cast<Word>(load_partial(row + whole * kBytes, W - whole * kBytes));
    }
}

inline void pack_any(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W,
                     void* panel) {
    uint32_t* panel32 = static_cast<uint32_t*>(panel);
    uint64_t* panel64 = static_cast<uint64_t*>(panel);
    switch (W) {
        case 4:
            return pack_rows<uint32_t, 1>(database, stride, positions, n, W, panel32);
        case 8:
            return pack_rows<uint64_t, 1>(database, stride, positions, n, W, panel64);
        case 16:
            return pack_rows<uint64_t, 2>(database, stride, positions, n, W, panel64);
        case 32:
            return pack_rows<uint64_t, 4>(database, stride, positions, n, W, panel64);
        default:
            if (W < 4) return pack_rows<uint32_t, 0>(database, stride, positions, n, W, panel32);
            return pack_rows<uint64_t, 0>(database, stride, positions, n, W, panel64);
    }
}

// The word's bytes of a code of W bytes, under its mask.
inline uint32_t word_of(const WeightedWord& word, const uint8_t* code, int64_t W) {
    const int64_t bytes = W - word.offset;
    const uint8_t* from = code + word.offset;
    const uint64_t eight = bytes >= 8   ? load_bytes<uint64_t>(from)
                           : bytes == 4 ? load_bytes<uint32_t>(from)
                                        : load_partial(from, bytes);
    uint32_t four = 0;
    for (int i = 0; i < 4; ++i) four |= static_cast<uint32_t>(eight >> (8 * word.bytes[i]) & 255) << (8 * i);
    return four & word.mask;
}

inline void pack_weighted(const WeightedWord* weighted, int64_t words, const uint8_t* database, int64_t stride,
                          const uint32_t* positions, int64_t n, int64_t W, void* panel) {
    uint32_t* group = static_cast<uint32_t*>(panel);
    const int64_t room = (n + kScanBlock - 1) / kScanBlock * kScanBlock;
    for (int64_t i = 0; i < room; i += kWeightedGroup, group += kWeightedGroup * words) {
        const int64_t there = n - i < 0 ? 0 : n - i < kWeightedGroup ? n - i : kWeightedGroup;
        const uint8_t* rows[kWeightedGroup];
        for (int64_t c = 0; c < there; ++c)
            rows[c] = database + (positions != nullptr ? int64_t{positions[i + c]} : i + c) * stride;
        for (int64_t w = 0; w < words; ++w) {
            const WeightedWord& word = weighted[w];
            uint32_t* lanes = group + w * kWeightedGroup;
            if (load_bytes<uint32_t>(word.bytes) == 0x03020100 && W - word.offset >= 4)  // as they lie in the code
                for (int64_t c = 0; c < there; ++c) lanes[c] = load_bytes<uint32_t>(rows[c] + word.offset) & word.mask;
            else
                for (int64_t c = 0; c < there; ++c) lanes[c] = word_of(word, rows[c], W);
            for (int64_t c = there; c < kWeightedGroup; ++c) lanes[c] = 0;
        }
    }
}

// Where the bytes of a lane of 16 come from: the word's bytes of each of its codes of W = 4 or 8 bytes, then zeros.
struct PickedBytes {
    uint8_t from[16];
    PickedBytes(const WeightedWord& word, int64_t W) {
        for (int64_t i = 0; i < 16; ++i)
            from[i] = i / 4 * W < 16 ? static_cast<uint8_t>(i / 4 * W + word.offset + word.bytes[i % 4]) : 0x80;
    }
};

// As pack_weighted. Codes of 4 or 8 bytes that lie side by side are shuffled in registers: a Picker is made of (word,
// W), and pick(codes, W, lanes) gives the words of kWeightedGroup codes.
template <class Picker>
void pack_dense(const WeightedWord* weighted, int64_t words, const uint8_t* database, int64_t stride,
                const uint32_t* positions, int64_t n, int64_t W, void* panel) {
    const bool dense = (W == 4 || W == 8) && stride == W && positions == nullptr;
    const int64_t whole = dense ? n / kScanBlock * kScanBlock : 0;
    for (int64_t w = 0; whole > 0 && w < words; ++w) {
        const Picker picker(weighted[w], W);
        uint32_t* lanes = static_cast<uint32_t*>(panel) + w * kWeightedGroup;
        for (int64_t i = 0; i < whole; i += kWeightedGroup, lanes += kWeightedGroup * words)
            picker.pick(database + i * W, W, lanes);
    }
    if (whole == n) return;
    pack_weighted(weighted, words, dense ? database + whole * stride : database, stride, positions, n - whole, W,
                  static_cast<uint32_t*>(panel) + whole * words);
}

}  // namespace
}  // namespace fasthash
