"""The loops of a CUDA kernel and the instructions in them, which docs/gpu.md and docs/kl-loss.md count.

    python tools/sass.py csrc/neighbors/cuda/tiles_cuda.cu nearest_tiles [--arch sm_90a]

Needs nvcc and cuobjdump. A loop ends in a branch backwards; an inner loop is part of those around it, and what a loop
does seldom (a branch that is hardly ever taken) is counted with the rest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)([^;]*);")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("kernel", help="a part of the kernel's name")
    parser.add_argument("--arch", default="sm_90a")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernels.cubin"
        flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch={options.arch}", f"-I{ROOT / 'csrc'}"]
        subprocess.run(["nvcc", *flags, "-cubin", "-o", binary, options.source], check=True)
        text = subprocess.run(["cuobjdump", "-sass", binary], check=True, capture_output=True, text=True).stdout
    for part in re.split(r"Function : ", text)[1:]:
        name = part.split(maxsplit=1)[0]
        if options.kernel not in name:
            continue
        found = [(int(at, 16), word, rest) for at, word, rest in LINE.findall(part)]
        print(f"{name}: {len(found)} instructions")
        for end, word, rest in found:
            target = re.search(r"0x([0-9a-f]+)", rest) if word == "BRA" else None
            if target is not None and int(target.group(1), 16) < end:
                body = Counter(word for at, word, _ in found if int(target.group(1), 16) <= at <= end)
                most = ", ".join(f"{word} {count}" for word, count in body.most_common(10))
                print(f"  {target.group(0)} .. {end:#x}: {body.total()}: {most}")


if __name__ == "__main__":
    main()
