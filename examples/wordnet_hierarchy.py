"""python examples/wordnet_hierarchy.py [data.noun]: codes that know how near two classes are in WordNet.

Without a file the script writes a piece of WordNet, as a table, and uses that. With WordNet's own `data.noun` (of
https://wordnet.princeton.edu) the hierarchy is the whole one. The embeddings are made here. They tell the classes
apart, but not which class is near which. The codes learn that from the hierarchy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fasthash
from fasthash import metrics

# wnid, word, hypernym: offsets of WordNet 3.0; steps between are left out.
PIECE = [
    ("n00001740", "entity", ""),
    ("n00015388", "animal", "n00001740"),
    ("n02084071", "dog", "n00015388"),
    ("n02085620", "Chihuahua", "n02084071"),
    ("n02099601", "golden retriever", "n02084071"),
    ("n02120997", "feline", "n00015388"),
    ("n02123045", "tabby", "n02120997"),
    ("n02129165", "lion", "n02120997"),
    ("n04524313", "vehicle", "n00001740"),
    ("n02958343", "car", "n04524313"),
    ("n03594945", "jeep", "n02958343"),
    ("n04285008", "sports car", "n02958343"),
    ("n03510583", "heavier-than-air craft", "n04524313"),
    ("n02690373", "airliner", "n03510583"),
    ("n04552348", "warplane", "n03510583"),
]
CLASSES = ["n02085620", "n02099601", "n02123045", "n02129165", "n03594945", "n04285008", "n02690373", "n04552348"]


def written(folder: str) -> Path:
    path = Path(folder) / "piece.tsv"
    rows = ["wnid\thypernyms\tinstance_hypernyms", *(f"{wnid}\t{above}\t" for wnid, _, above in PIECE)]
    path.write_text("\n".join(rows) + "\n")
    return path


def embeddings(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [N, 32] and wnids [N]."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(7).normal(size=(len(CLASSES), 32))
    y = rng.integers(0, len(CLASSES), rows)
    return (centres[y] + 0.9 * rng.normal(size=(rows, 32))).astype(np.float32), np.array(CLASSES)[y]


def main() -> None:
    with TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else written(folder)
        hierarchy = fasthash.Hierarchy.from_wordnet(path, synsets=CLASSES)
    words = {wnid: word for wnid, word, _ in PIECE}
    print(f"{len(hierarchy)} synsets. From the Chihuahua it is")
    for other in CLASSES[1:]:
        print(f"  {hierarchy.distance(CLASSES[0], other):.2f} to the {words[other]}")

    (x, y), (queries, theirs) = embeddings(2000, seed=0), embeddings(300, seed=1)
    similarity = hierarchy.similarity_matrix(CLASSES)
    place = {wnid: number for number, wnid in enumerate(CLASSES)}
    labels = [np.array([place[wnid] for wnid in own]) for own in (theirs, y)]
    print("hierarchical precision of the first 500 results, 1 at best")
    for name, given in (("with WordNet", hierarchy), ("without", None)):
        hasher = fasthash.Hasher(32, given, epochs=10, hidden=(64,), seed=0, progress=False).fit(x, y)
        codes = hasher.encode(queries), hasher.encode(x)
        print(f"  {name:13}{metrics.hierarchical_precision(*codes, *labels, similarity, at=500):.3f}")


if __name__ == "__main__":
    main()
