// One query of the asymmetric search: its exact distances, and a bound below them that sums of small integers give.
//
// The query adds t[j][v] = B (sum of nibble j whose value is v) to the distance. A byte e[j][v] = floor((t[j][v] - m_j)
// / step), m_j = min over v of t[j][v], says how much at least: B S >= base + step U with base = sum of m_j and U the
// sum of a code's bytes. Bytes are as large as the instruction set allows, and less where a code has so many nibbles
// that U would pass its largest sum (nibble_table.h). What doubles and floats round away is bounded too: by parts of
// `magnitude`, which no intermediate result passes.
//
// A code may be left out if it cannot be at the distance T of the K-th nearest so far, or nearer. T is a float, and
// distances are rounded to floats, so that is: if A + s (base + step U) + E s^2 >= the float after T.
#pragma once

#include <cstdint>
#include <vector>

#include "asymmetric/asymmetric_topk.h"
#include "asymmetric/isa/nibble_table.h"

namespace fasthash {

// Floats as integers in the same order; infinity is the greatest.
uint32_t float_key(float x);
float float_of_key(uint32_t key);

// Half floats that are finite and >= 0.
double half_value(uint16_t half);

class QueryBound {
  public:
    // What the filter of a panel compares a code with (nibble_table.h).
    struct Limit {
        uint32_t sum;  // without scales
        float most;    // with scales
    };

    // weights [D]; zeros and ones [D] are scratch.
    QueryBound(const fh_asymmetric_topk_problem& problem, const NibbleTable& table, int64_t query,
               const double* weights, double* zeros, double* ones);

    static int64_t bytes_of(const fh_asymmetric_topk_problem& problem);

    float distance(double sum, double scale) const;
    float distance(double sum) const { return distance(sum, scale_); }

    Limit limit(float nearest) const;  // codes that cannot be at this distance or nearer do not pass

    const double* sums() const { return sums_.data(); }       // [2 W, 16]: S of asymmetric_topk.h, by nibble
    const uint8_t* tables() const { return tables_.data(); }  // as in nibble_table.h
    float base() const { return scaled_base_; }
    float step() const { return scaled_step_; }
    float square() const { return scaled_square_; }

  private:
    template <class Real>
    void add_query(const Real* query, const fh_asymmetric_topk_problem& problem, const double* weights, double* zeros,
                   double* ones);
    void quantise(int64_t W, int32_t most_byte);
    void scale_to_floats();

    int32_t most_sum_;
    bool clamped_;                                 // a distance is at least 0
    double offset_ = 0, factor_ = 1, square_ = 0;  // A, B, E
    double scale_ = 1;                             // s where codes have none
    double base_ = 0, step_ = 1, magnitude_ = 0;
    double unit_ = 1;  // a power of two: floats are what they stand for times this
    float scaled_base_ = 0, scaled_step_ = 0, scaled_square_ = 0;
    std::vector<double> sums_;
    std::vector<uint8_t> tables_;
};

}  // namespace fasthash
