"""python examples/duplicates.py: near-duplicates among short texts, by SimHash codes, without training.

The texts are those inside the package, and copies with one word changed. A SimHash code says for each bit on which side
of a random plane the text's letter triples lie, so texts that share most of them differ in few bits.
"""

from __future__ import annotations

import zlib

import numpy as np

import fasthash
from fasthash.datasets import clinc150

BITS, RADIUS = 64, 8


def simhash(texts: list[str]) -> np.ndarray:
    """Packed codes uint8 [N, 8] of texts."""
    planes = np.random.default_rng(0).choice([-1, 1], (4096, BITS))
    codes = []
    for text in texts:
        padded = f"  {text} "
        triples = [zlib.crc32(padded[i : i + 3].encode()) % len(planes) for i in range(len(padded) - 2)]
        codes.append(planes[triples].sum(0) > 0)
    return np.packbits(codes, axis=1)


def main() -> None:
    rng = np.random.default_rng(0)
    texts = list(clinc150("val").texts)
    long = [text for text in texts if len(text.split()) >= 12][:200]
    for text in long:  # a copy with one word said twice
        words = text.split()
        place = rng.integers(0, len(words))
        texts.append(" ".join([*words[:place], words[place], *words[place:]]))

    codes = simhash(texts)
    pairs = fasthash.hamming_pairs(codes, radius=RADIUS)  # every pair once, exactly
    groups = fasthash.duplicate_groups(codes, radius=RADIUS)
    first = len(texts) - len(long)
    found = set(zip(pairs.ids_a.tolist(), pairs.ids_b.tolist(), strict=True))
    planted = {(texts.index(text), first + number) for number, text in enumerate(long)}
    print(f"{len(pairs.ids_a):,} pairs within {RADIUS} bits among {len(texts):,} texts")
    print(f"of {len(planted)} copies, {len(planted & found) / len(planted):.0%} are found")
    print(f"{int(np.sum(groups.keep)):,} texts remain if one of each group is kept")
    for a, b in sorted(found - planted)[:3]:
        print(f'  "{texts[a]}"  ~  "{texts[b]}"')


if __name__ == "__main__":
    main()
