"""What the GPU's multiprocessors do in a clock (rates.cu): FADD pairs, POPC, VABSDIFF4, tensor-core products.

    python benchmarks/bench_rates_cuda.py [--name NAME]

The ceilings of the search and of the KL loss are these, measured and not looked up. They also tell whether a filter
pays: Manhattan distances of bytes, where vabsdiff4_element_pairs is well above manhattan_element_pairs; Hamming
distances by 1-bit products, where mma_b1_bits is well above 32 popc_words. Needs nvcc. Writes
benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import kit

SOURCE = Path(__file__).resolve().parent / "rates.cu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="rates-cuda")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "rates"
        subprocess.run(["nvcc", "-std=c++17", "-O3", "-arch=native", "-o", program, SOURCE], check=True)
        rates = json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    for name, rate in rates.items():
        if isinstance(rate, dict):
            each = rate["per_clock_and_multiprocessor"]
            print(f"{name}: {rate['per_second']:.3g}/s, {each} a clock and multiprocessor at {rate['gigahertz']} GHz")
    kit.write_json(options.name, {"machine": kit.machine(), **rates})


if __name__ == "__main__":
    main()
