// The Python module fasthash._core: one line for each function of the flat interface. Pointers arrive as integers
// (tensor.data_ptr()); fasthash/_ops/ has checked everything else. Every kernel runs without the GIL and answers
// Ctrl-C.
#include "bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "asymmetric/asymmetric_topk.h"
#include "core/cpu_features.h"
#include "hamming/asymmetric.h"
#include "hamming/hamming.h"
#include "mih/cpu/mih_cost.h"
#include "mih/mih.h"
#include "neighbors/nearest.h"
#include "pairs/pairs.h"
#include "pairwise/pairwise_l1.h"
#include "sampling/beta.h"

namespace py = pybind11;

namespace {

using fasthash::Address;
using fasthash::at;
using Hamming = fasthash::HammingProblem;
using Asymmetric = fasthash::AsymmetricProblem;
using Nearest = fh_nearest_problem;
using Pairwise = fh_pairwise_problem;

// Python's pending signals; sets the exception that check() passes on.
int32_t signals_pending() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals();
}

// Runs work(cancel) without the GIL.
template <class Work>
void run(Work work) {
    fh_cancel cancel{0, signals_pending};
    fh_status status;
    {
        py::gil_scoped_release release;
        status = work(&cancel);
    }
    fasthash::check(status);
}

// Problems are small structs that Python fills once a call.
std::unique_ptr<Hamming> hamming(Address queries, Address database, Address mask, int64_t Q, int64_t N, int64_t W,
                                 int64_t stride, const std::vector<int32_t>& bit_weights) {
    const fh_hamming_problem codes{at<const uint8_t>(queries),
                                   at<const uint8_t>(database),
                                   at<const uint64_t>(mask),
                                   Q,
                                   N,
                                   W,
                                   stride,
                                   nullptr,
                                   nullptr,
                                   0};
    return std::make_unique<Hamming>(codes, bit_weights);
}

fh_nearest_problem nearest(Address x, Address y, int64_t L, int64_t N, int64_t M, int64_t D, int64_t K,
                           int64_t y_stride, int32_t p, fh_dtype dtype) {
    return {at<const void>(x), at<const void>(y), L, N, M, D, K, y_stride, p, dtype};
}

fh_pairwise_problem pairwise(Address z, int64_t B, int64_t D, fh_dtype dtype) {
    return {at<const void>(z), B, D, dtype};
}

// The tables of multi-index hashing, and the array that fh_mih_tables points to.
struct MihTables {
    using Row =
        std::tuple<int32_t, int32_t, Address, Address, Address>;  // start, length, offsets, fingerprints, positions
    std::vector<fh_mih_table> tables;
    fh_mih_tables all;

    MihTables(const std::vector<Row>& rows, int32_t bits, int32_t fingerprint_bytes) {
        for (const auto& [start, length, offsets, fingerprints, positions] : rows)
            tables.push_back({start, length, at<const uint32_t>(offsets), at<const uint8_t>(fingerprints),
                              at<const uint32_t>(positions)});
        all = {tables.data(), static_cast<int32_t>(tables.size()), bits, fingerprint_bytes};
    }
    MihTables(const MihTables&) = delete;
};

// On what terms tables are used, and the ends that fh_mih_terms points to.
struct MihTerms {
    std::vector<int32_t> ends;
    fh_mih_terms all;

    MihTerms(double budget, double tables, double read, double compare, std::vector<int32_t> given)
        : ends(std::move(given)),
          all{{tables, read, compare}, budget, ends.data(), static_cast<int64_t>(ends.size())} {}
    MihTerms(const MihTerms&) = delete;
};

// What a range search by tables has found.
struct MihHits {
    fh_mih_hits* hits = nullptr;

    MihHits() = default;
    MihHits(const MihHits&) = delete;
    ~MihHits() { fh_mih_hits_free(hits); }
};

// A join of codes within a radius; it has copies of them.
struct PairsJoin {
    fh_pairs* join = nullptr;

    PairsJoin(Address a, Address b, int64_t Na, int64_t Nb, int64_t W, int64_t stride_a, int64_t stride_b,
              int32_t radius, int32_t plan, const std::vector<int32_t>& bit_weights, int32_t threads) {
        const Hamming groups({}, bit_weights);
        const fh_pairs_problem p{
            at<const uint8_t>(a), at<const uint8_t>(b), Na,      Nb, W, stride_a, stride_b, radius, plan,
            groups.group_bits,    groups.group_weights, groups.G};
        run([&](fh_cancel* c) { return fh_pairs_open_cpu(&p, &join, threads, c); });
    }
    PairsJoin(const PairsJoin&) = delete;
    ~PairsJoin() { fh_pairs_close(join); }

    int64_t find(int64_t first, int64_t last, int64_t most, int32_t threads) {
        int64_t total = 0;
        run([&](fh_cancel* c) { return fh_pairs_find_cpu(join, first, last, most, &total, threads, c); });
        return total;
    }
    void write(Address ids_a, Address ids_b, Address distances, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_pairs_write_cpu(join, at<int64_t>(ids_a), at<int64_t>(ids_b), at<int32_t>(distances), threads, c);
        });
    }
    void unite(int64_t first_a, int64_t first_b, Address parents, int32_t threads) {
        run([&](fh_cancel* c) { return fh_pairs_unite_cpu(join, first_a, first_b, at<int64_t>(parents), threads, c); });
    }
    void stars(int64_t most, Address representatives, int32_t threads) {
        run([&](fh_cancel* c) { return fh_pairs_stars_cpu(join, most, at<int64_t>(representatives), threads, c); });
    }
    void lowest(Address rows, int32_t threads) {
        run([&](fh_cancel* c) { return fh_pairs_lowest_cpu(join, at<int64_t>(rows), threads, c); });
    }
    void knn(int64_t K, Address distances, Address ids, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_pairs_knn_cpu(join, K, at<int32_t>(distances), at<int64_t>(ids), threads, c);
        });
    }
};

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa)
        if (fh_isa_available(isa)) names.emplace_back(fh_isa_name(isa));
    return names;
}

std::string isa_chosen() {
    const int32_t isa = fh_isa_chosen();
    if (isa < 0) throw py::value_error(fh_last_error());
    return fh_isa_name(isa);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "The compiled kernels of fasthash, over raw addresses: fasthash/_ops/ alone calls them.";
    m.attr("__version__") = FASTHASH_VERSION;
    m.attr("compiler") = FASTHASH_COMPILER;
    m.attr("cuda_architectures") = FASTHASH_CUDA_ARCHS;  // "" where CUDA was not built

    m.def("isa_names", &isa_names, "Instruction sets that this machine can run, the preferred one last.");
    m.def("isa_chosen", &isa_chosen, "The instruction set in use; ValueError where FASTHASH_ISA names none of them.");
    m.def("isa_force", [](const std::string& name) { fasthash::check(fh_isa_force(name.c_str())); }, py::arg("name"));

    py::enum_<fh_dtype>(m, "Dtype").value("float32", FH_FLOAT32).value("float64", FH_FLOAT64);
    py::class_<Hamming>(m, "HammingProblem")
        .def(py::init(&hamming), py::arg("queries"), py::arg("database"), py::arg("mask"), py::arg("Q"), py::arg("N"),
             py::arg("W"), py::arg("stride"), py::arg("bit_weights") = std::vector<int32_t>());
    py::class_<Asymmetric>(m, "AsymmetricProblem")
        .def(py::init<Address, fh_dtype, Address, Address, Address, int64_t, int64_t, int64_t, int64_t, int64_t,
                      int32_t, const std::vector<int32_t>&>(),
             py::arg("queries"), py::arg("dtype"), py::arg("database"), py::arg("mask"), py::arg("scales"),
             py::arg("Q"), py::arg("D"), py::arg("N"), py::arg("W"), py::arg("stride"), py::arg("metric"),
             py::arg("bit_weights"));
    py::class_<fh_nearest_problem>(m, "NearestProblem")
        .def(py::init(&nearest), py::arg("x"), py::arg("y"), py::arg("L"), py::arg("N"), py::arg("M"), py::arg("D"),
             py::arg("K"), py::arg("y_stride"), py::arg("p"), py::arg("dtype"));
    py::class_<fh_pairwise_problem>(m, "PairwiseProblem")
        .def(py::init(&pairwise), py::arg("z"), py::arg("B"), py::arg("D"), py::arg("dtype"));
    py::class_<MihTables>(m, "MihTables")
        .def(py::init<const std::vector<MihTables::Row>&, int32_t, int32_t>(), py::arg("tables"), py::arg("bits"),
             py::arg("fingerprint_bytes"));

    // Hamming search. Addresses: distances, ids, counts, ... as hamming.h names them.
    m.def("hamming_topk_cpu", [](const Hamming& p, int64_t K, Address distances, Address ids, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_hamming_topk_cpu(&p, K, at<int32_t>(distances), at<int64_t>(ids), threads, c);
        });
    });
    m.def("hamming_range_count_cpu", [](const Hamming& p, int32_t radius, Address counts, int32_t threads) {
        run([&](fh_cancel* c) { return fh_hamming_range_count_cpu(&p, radius, at<int64_t>(counts), threads, c); });
    });
    m.def("hamming_range_fill_cpu",
          [](const Hamming& p, int32_t radius, Address offsets, Address distances, Address ids, int32_t threads) {
              run([&](fh_cancel* c) {
                  return fh_hamming_range_fill_cpu(&p, radius, at<int64_t>(offsets), at<int32_t>(distances),
                                                   at<int64_t>(ids), threads, c);
              });
          });
    m.def("hamming_distances_cpu", [](const Hamming& p, Address distances, int32_t threads) {
        run([&](fh_cancel* c) { return fh_hamming_distances_cpu(&p, at<int32_t>(distances), threads, c); });
    });
    m.def("hamming_histogram_cpu", [](const Hamming& p, Address labels, Address weights, int64_t C, Address counts,
                                      Address sums, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_hamming_histogram_cpu(&p, at<int64_t>(labels), at<double>(weights), C, at<int64_t>(counts),
                                            at<double>(sums), threads, c);
        });
    });

    m.def("hamming_mask_cpu", [](Address allowed, int64_t N, Address mask, int32_t threads) {
        run([&](fh_cancel*) { return fh_hamming_mask_cpu(at<uint8_t>(allowed), N, at<uint64_t>(mask), threads); });
    });

    m.def("asymmetric_distances_cpu", [](Address queries, Address codes, int64_t Q, int64_t C, int64_t D, int64_t W,
                                         const std::vector<int32_t>& bit_weights, Address distances, int32_t threads) {
        const Hamming groups({}, bit_weights);
        const fh_asymmetric_problem p{at<double>(queries), at<uint8_t>(codes),   Q,       C, D, W,
                                      groups.group_bits,   groups.group_weights, groups.G};
        run([&](fh_cancel* c) { return fh_asymmetric_distances_cpu(&p, at<float>(distances), threads, c); });
    });

    m.def("asymmetric_topk_cpu", [](const Asymmetric& p, int64_t K, Address distances, Address ids, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_asymmetric_topk_cpu(&p, K, at<float>(distances), at<int64_t>(ids), threads, c);
        });
    });

    // Multi-index hashing. Addresses as mih.h names them.
    m.def("mih_offsets_cpu", [](const Hamming& p, int32_t start, int32_t length, Address offsets, int32_t threads) {
        run([&](fh_cancel* c) { return fh_mih_offsets_cpu(&p, start, length, at<uint32_t>(offsets), threads, c); });
    });
    m.def("mih_fill_cpu", [](const Hamming& p, const MihTables& t, int32_t table, int64_t first, int64_t last,
                             Address fingerprints, Address positions, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_mih_fill_cpu(&p, &t.all, table, first, last, at<uint8_t>(fingerprints), at<uint32_t>(positions),
                                   threads, c);
        });
    });
    py::class_<MihTerms>(m, "MihTerms")
        .def(py::init<double, double, double, double, std::vector<int32_t>>(), py::arg("budget"), py::arg("tables"),
             py::arg("read"), py::arg("compare"), py::arg("ends"));
    py::class_<MihHits>(m, "MihHits")
        .def(py::init<>())
        .def("write", [](const MihHits& h, Address distances, Address ids) {
            py::gil_scoped_release release;
            fh_mih_hits_write(h.hits, at<int32_t>(distances), at<int64_t>(ids));
        });
    m.def("mih_topk_cpu", [](const Hamming& p, const MihTables& t, int64_t K, Address bounds, const MihTerms& terms,
                             Address distances, Address ids, Address visited, Address spent, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_mih_topk_cpu(&p, &t.all, K, at<const int32_t>(bounds), &terms.all, at<int32_t>(distances),
                                   at<int64_t>(ids), at<int64_t>(visited), at<fh_mih_spent>(spent), threads, c);
        });
    });
    m.def("mih_range_cpu", [](const Hamming& p, const MihTables& t, int32_t radius, const MihTerms& terms,
                              MihHits& hits, Address offsets, Address visited, Address spent, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_mih_range_cpu(&p, &t.all, radius, &terms.all, at<int64_t>(offsets), at<int64_t>(visited),
                                    at<fh_mih_spent>(spent), &hits.hits, threads, c);
        });
    });
    // How tables are chosen (mih_cost.h): pure functions of given prices.
    m.def("mih_scan_ns",
          [](int64_t N, int64_t W, int64_t Q, int32_t threads, bool weighted, double read, double compare) {
              return fasthash::ScanPrice{N, W, threads, weighted, {1, read, compare}}.ns(Q);
          });
    m.def("mih_scanned_from", [](std::vector<double> table_ns, int32_t table_threads, int64_t N, int64_t W,
                                 int32_t threads, bool weighted, double read, double compare) {
        return fasthash::scanned_from(std::move(table_ns), table_threads,
                                      {N, W, threads, weighted, {1, read, compare}});
    });
    m.def("mih_best_stop", [](const std::vector<int32_t>& found, const std::vector<double>& ns,
                              const std::vector<int32_t>& ends, double scan_ns) {
        const fasthash::MihStop stop = fasthash::best_stop(found, ns, ends, scan_ns);
        return std::make_pair(stop.radius, stop.ns);
    });

    // Pairs within a radius. Addresses as pairs.h names them.
    py::class_<PairsJoin>(m, "PairsJoin")
        .def(py::init<Address, Address, int64_t, int64_t, int64_t, int64_t, int64_t, int32_t, int32_t,
                      const std::vector<int32_t>&, int32_t>())
        .def("find", &PairsJoin::find)
        .def("write", &PairsJoin::write)
        .def("unite", &PairsJoin::unite)
        .def("stars", &PairsJoin::stars)
        .def("lowest", &PairsJoin::lowest)
        .def("knn", &PairsJoin::knn)
        .def_property_readonly("plan", [](const PairsJoin& j) { return fh_pairs_plan(j.join); });
    m.def("pairs_roots", [](Address parents, int64_t N) {
        py::gil_scoped_release release;
        fh_pairs_roots_cpu(at<int64_t>(parents), N);
    });

    // Nearest neighbours and the KL loss. Addresses as nearest.h names them.
    m.def("nearest_cpu", [](const Nearest& p, Address distances, Address indices, int32_t threads) {
        run([&](fh_cancel* c) { return fh_nearest_cpu(&p, at<void>(distances), at<int64_t>(indices), threads, c); });
    });
    m.def("nearest_backward_cpu", [](const Nearest& p, Address weights, Address distances, Address indices, int64_t C,
                                     Address grad_x, Address grad_y, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_nearest_backward_cpu(&p, at<void>(weights), at<void>(distances), at<int64_t>(indices), C,
                                           at<void>(grad_x), at<void>(grad_y), threads, c);
        });
    });
    m.def("kl_loss_cpu", [](const Nearest& p, double eps, Address loss, Address nu, Address nu_index, Address rho,
                            Address rho_index, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_kl_loss_cpu(&p, eps, at<void>(loss), at<void>(nu), at<int64_t>(nu_index), at<void>(rho),
                                  at<int64_t>(rho_index), threads, c);
        });
    });
    m.def("kl_loss_backward_cpu",
          [](const Nearest& p, double eps, Address grad_loss, Address nu, Address nu_index, Address rho,
             Address rho_index, Address grad_z, Address grad_target, int32_t threads) {
              run([&](fh_cancel* c) {
                  return fh_kl_loss_backward_cpu(&p, eps, at<void>(grad_loss), at<void>(nu), at<int64_t>(nu_index),
                                                 at<void>(rho), at<int64_t>(rho_index), at<void>(grad_z),
                                                 at<void>(grad_target), threads, c);
              });
          });

    // Pairwise distances and samples.
    m.def("pairwise_l1_cpu", [](const Pairwise& p, Address distances, int32_t threads) {
        run([&](fh_cancel* c) { return fh_pairwise_l1_cpu(&p, at<void>(distances), threads, c); });
    });
    m.def("pairwise_l1_backward_cpu", [](const Pairwise& p, Address grad, Address grad_z, int32_t threads) {
        run([&](fh_cancel* c) {
            return fh_pairwise_l1_backward_cpu(&p, at<void>(grad), at<void>(grad_z), threads, c);
        });
    });
    m.def("beta_sample_cpu", [](Address seed, int64_t count, Address out, int32_t threads) {
        run([&](fh_cancel* c) { return fh_beta_sample_cpu(at<int64_t>(seed), count, at<float>(out), threads, c); });
    });

#if FASTHASH_WITH_CUDA
    fasthash::bind_cuda(m);
#endif
}
