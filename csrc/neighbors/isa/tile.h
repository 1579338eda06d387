// Distance tiles: a few rows against one panel of candidates, for one instruction set.
//
// A panel is kPanel candidates side by side, [D][kPanel], so that one vector holds one dimension of consecutive
// candidates and no horizontal sum is needed. Each ISA file instantiates the templates below over its own Vec and
// exports one table. Only <cstdint>, intrinsics, this folder and core/isa.def may be included here: a template of the
// standard library instantiated in an AVX-512 file could be kept by the linker for every processor.
#pragma once

#include <cstdint>

namespace fasthash {

template <class T>
struct TileKernels {
    int32_t rows;   // rows of a tile
    int32_t panel;  // candidates of a panel, at most 32

    // out[r, c] = sum_d |x_r[d] - y_c[d]| (l1) or sum_d (x_r[d] - y_c[d])^2 (l2), r < rows, c < panel; x [rows] points
    // to rows [D]; panel_y [D, panel]; out [rows, panel]. Summed in blocks of kBlockD dimensions, in order: d(i, j) and
    // d(j, i) are the same bits wherever they fall in a tile.
    void (*l1)(const T* const* x, const T* panel_y, int64_t D, T* out);
    void (*l2)(const T* const* x, const T* panel_y, int64_t D, T* out);

    // Bit c of row_hits[r]: out[r, c] <= row_limit[r]; of column_hits[r]: out[r, c] <= column_limit[c]. NaN never hits.
    // column_limit may be null (then column_hits is not touched).
    void (*hits)(const T* out, const T* row_limit, const T* column_limit, uint32_t* row_hits, uint32_t* column_hits);

    // out[d] = sum_c g[c] sign(x[d] - y[c, d]) over c < count, in order of c; y [count, D].
    void (*sign_sum)(const T* x, const T* y, const T* g, int64_t count, int64_t D, T* out);
};

struct TileTable {
    TileKernels<float> f32;
    TileKernels<double> f64;
};

#define FH_ISA(name, Name, processor, ...) FH_ON_##processor(extern const TileTable kTile##Name;)
#include "core/isa.def"

}  // namespace fasthash
