#include "asymmetric/cpu/nibble_bound.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "hamming/cpu/nibble_sums.h"

namespace fasthash {
namespace {

// Parts of `magnitude` that rounding may take away. A sum of 2 W + 8 doubles, W <= 8192, loses less than 2^-38 of it.
constexpr double kDoubleSlack = 0x1p-36, kFloatSlack = 0x1p-19;
constexpr double kTiny = 1e-30;  // of a float in units of the magnitude: subnormal numbers may be lost
constexpr int kMostExponent = 1000;
constexpr double kMostSquare = 1e28;  // times the square of a half it is still a float

int64_t padded_bytes(int64_t W) { return (W + 7) / 8 * 8; }

float rounded_down(double x) {
    const float f = static_cast<float>(x);
    return static_cast<double>(f) > x ? std::nextafter(f, -std::numeric_limits<float>::infinity()) : f;
}
float rounded_up(double x) { return -rounded_down(-x); }

}  // namespace

uint32_t float_key(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float float_of_key(uint32_t key) {
    const uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}

double half_value(uint16_t half) {
    const int exponent = half >> 10, fraction = half & 1023;
    return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
}

QueryBound::QueryBound(const fh_asymmetric_topk_problem& p, const NibbleTable& table, int64_t query,
                       const double* weights, double* zeros, double* ones)
    : most_sum_(table.most_sum),
      clamped_(p.metric == FH_L2),
      sums_(static_cast<size_t>(32 * p.W)),
      tables_(static_cast<size_t>(32 * padded_bytes(p.W))) {
    if (p.dtype == FH_FLOAT32)
        add_query(static_cast<const float*>(p.queries) + query * p.D, p, weights, zeros, ones);
    else
        add_query(static_cast<const double*>(p.queries) + query * p.D, p, weights, zeros, ones);
    fill_nibbles(zeros, ones, p.D, p.W, sums_.data());
    quantise(p.W, table.most);
    scale_to_floats();
}

int64_t QueryBound::bytes_of(const fh_asymmetric_topk_problem& p) {
    return 256 * p.W + 32 * padded_bytes(p.W) + static_cast<int64_t>(sizeof(QueryBound));
}

template <class Real>
void QueryBound::add_query(const Real* query, const fh_asymmetric_topk_problem& p, const double* weights, double* zeros,
                           double* ones) {
    double squares = 0;
    for (int64_t d = 0; d < p.D; ++d) {
        const double q = query[d];
        squares += q * q;
        zeros[d] = p.metric == FH_L1 ? weights[d] * std::fabs(q) : q;
        ones[d] = p.metric == FH_L1 ? weights[d] * std::fabs(q - 1) : -q;
    }
    const double bits = static_cast<double>(p.D);
    if (p.metric == FH_COSINE) {
        offset_ = 1;
        factor_ = squares > 0 ? 1 / std::sqrt(squares) : 0;
        scale_ = 1 / std::sqrt(bits);
    } else if (p.metric == FH_L2) {
        offset_ = squares;
        factor_ = 2;
        square_ = bits;
    }
}

void QueryBound::quantise(int64_t W, int32_t most_byte) {
    const int64_t nibbles = 2 * W;
    const int most = static_cast<int>(std::clamp<int64_t>(most_sum_ / nibbles, 1, most_byte));
    double widest = 0;
    for (int64_t j = 0; j < nibbles; ++j) {
        const double *first = &sums_[j * 16], *last = first + 16;
        widest = std::max(widest, factor_ * *std::max_element(first, last) - factor_ * *std::min_element(first, last));
    }
    step_ = widest / most;
    const bool told_apart = step_ > DBL_MIN;  // else all bytes are 0
    if (!told_apart) step_ = 1;
    for (int64_t j = 0; j < nibbles; ++j) {
        const double* sums = &sums_[j * 16];
        const double least = factor_ * *std::min_element(sums, sums + 16);
        uint8_t* table = &tables_[j / 8 * 128 + j % 2 * 64 + j % 8 / 2 * 16];
        double largest = 0;
        int greatest = 0;
        for (int value = 0; value < 16; ++value) {
            const double term = factor_ * sums[value];
            const int byte = told_apart ? std::min(most, static_cast<int>((term - least) / step_)) : 0;
            table[value] = static_cast<uint8_t>(byte);
            largest = std::max(largest, std::fabs(term));
            greatest = std::max(greatest, byte);
        }
        base_ += least;
        magnitude_ += largest + step_ * greatest;
    }
}

// The scaled bound is s (base + step U + square s). Its floats stand for numbers in units of about the magnitude, so
// that they neither overflow nor vanish.
void QueryBound::scale_to_floats() {
    if (magnitude_ > 0) unit_ = std::ldexp(1.0, std::clamp(-std::ilogb(magnitude_), -kMostExponent, kMostExponent));
    scaled_base_ = rounded_down((base_ - kFloatSlack * magnitude_) * unit_);
    scaled_step_ = rounded_down(step_ * unit_);
    scaled_square_ = rounded_down(std::min(square_ * unit_ * (1 - kFloatSlack), kMostSquare));
}

float QueryBound::distance(double sum, double scale) const {
    const double distance = (offset_ + factor_ * (sum * scale)) + square_ * (scale * scale);
    return static_cast<float>(clamped_ && distance < 0 ? 0 : distance) + 0.0f;  // -0 is 0
}

QueryBound::Limit QueryBound::limit(float nearest) const {
    const double beyond = std::nextafter(nearest, std::numeric_limits<float>::infinity());
    if (std::isinf(beyond)) return {static_cast<uint32_t>(most_sum_) + 1, std::numeric_limits<float>::infinity()};
    const double constant = offset_ + square_ * scale_ * scale_;
    const double slack = kDoubleSlack * (magnitude_ + (std::fabs(beyond) + constant) / scale_);
    const double sum = ((beyond - constant) / scale_ - base_ + slack) / step_ + 2;
    const double most = (beyond - offset_) * unit_ + kDoubleSlack * (std::fabs(beyond) + offset_) * unit_ + kTiny;
    return {static_cast<uint32_t>(std::clamp(sum, 0.0, most_sum_ + 1.0)), rounded_up(most)};
}

}  // namespace fasthash
