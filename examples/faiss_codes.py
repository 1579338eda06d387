"""python examples/faiss_codes.py: codes into faiss and back. Both sides find the same distances.

    pip install faiss-cpu

Both libraries have the same order of bits, so no code is changed on the way. faiss orders ties as it likes, fasthash by
id: distances are equal, and ids may differ among ties.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np

import fasthash


def main() -> None:
    rng = np.random.default_rng(0)
    codes, ids = rng.integers(0, 256, (20_000, 8), dtype=np.uint8), np.arange(20_000) + 1_000
    index = fasthash.HammingIndex(bits=64)
    index.add(codes, ids)
    found = index.search(codes[:50], 10)

    with TemporaryDirectory() as folder:
        out, back = str(Path(folder) / "codes.faiss"), str(Path(folder) / "back.faiss")
        index.export(out)  # into faiss: an IndexBinaryFlat, here with ids
        other = faiss.read_index_binary(out)
        distances, theirs = other.search(codes[:50], 10)
        print(f"faiss reads {other.ntotal:,} codes; distances are equal: {np.array_equal(distances, found.distances)}")
        print(f"ids are equal where there are no ties: {np.array_equal(theirs[:, 0], found.ids[:, 0])}")

        faiss.write_index_binary(other, back)  # and back
        again = fasthash.HammingIndex.build(Path(folder) / "index", back, bits=64, progress=False)
        same = np.array_equal(again.search(codes[:50], 10).ids, found.ids)
        print(f"fasthash reads {len(again):,} codes; results are equal: {same}")
        again.close()


if __name__ == "__main__":
    main()
