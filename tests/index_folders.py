"""What the tests of index folders share: a folder with every feature of the format, and its files."""

import json

import numpy as np
import xxhash

from fasthash.index import HammingIndex


def random_codes(rows, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, width), np.uint8)


def content(index):
    """All that an index holds, in a form that compares."""
    ids = index.ids
    keys = index.keys_of(ids).tolist() if index.keyed else None
    return index.bits, ids.tolist(), index.get(ids).tolist(), index._contents.next_id, index.bit_weights, keys


def make_folder(path, bit_weights=None):
    """Writes an index of 64 bits: implicit and explicit ids, deleted rows in both."""
    HammingIndex(64, bit_weights=bit_weights).save(path)
    with HammingIndex.open(path, writable=True) as index:
        index.add(random_codes(50))
        index.add(random_codes(30, seed=1), ids=np.arange(1000, 1300, 10)[::-1].copy())
        index.remove([3, 20, 1000, 1290])
    return path


def make_keyed_folder(path):
    """The same with keys, of different lengths and some of them not ASCII."""
    HammingIndex(64).save(path)
    with HammingIndex.open(path, writable=True) as index:
        index.add(random_codes(50), keys=[f"köy {number}"[: 5 + number % 3] + str(number) for number in range(50)])
        ids = np.arange(1000, 1300, 10)[::-1].copy()
        index.add(random_codes(30, seed=1), ids=ids, keys=[f"{id:0{id % 7 + 4}d}" for id in ids.tolist()])
        index.remove([3, 20, 1000, 1290])
    return path


def read_manifest(path):
    return json.loads((path / "manifest.json").read_text())


def write_manifest(path, document, sign=True):
    """Writes a manifest as another program would, by the words of docs/index-format.md."""
    document = {key: value for key, value in document.items() if key != "xxh3_128"}
    if sign:
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        document["xxh3_128"] = xxhash.xxh3_128_hexdigest(canonical.encode())
    (path / "manifest.json").write_text(json.dumps(document))


def files(path, kind=""):
    return sorted(file for file in path.iterdir() if file.name.startswith(kind) and file.name != "lock")
