"""Index folders with random damage, also damage with right checksums: refused clearly or read, never a crash.

FASTHASH_FUZZ_SECONDS sets for how long, a minute in continuous integration. What crashed once goes into REGRESSIONS:

    FASTHASH_FUZZ_SECONDS=600 python -m pytest tests/test_index_fuzz.py
"""

import contextlib
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from index_folders import content, files, make_folder, make_keyed_folder, random_codes, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.search import tables
from fasthash.index.store import table_file
from fasthash.index.store.manifest import current_manifest

SECONDS = float(os.environ.get("FASTHASH_FUZZ_SECONDS", "60" if os.environ.get("CI") else "4"))
NUMBERS = [0, 1, -1, 7, 8, 49, 51, 2**31, 2**32, 2**60, 2**63 - 1, 2**63, 2**64, 1e300, 0.5]
WORDS = [
    "",
    ".",
    "..",
    "lock",
    "manifest.json",
    "../x",
    "/etc/passwd",
    "explicit",
    "implicit",
    "I64",
    "U8",
    "F64",
    "\0",
    "keys",
]
LISTS = [[], [0], [[]], ["keys"], ["keys", "keys"], ["keys", "\n"], ["bit_weights"], [[64, 1]], [[40, 3], [24, 0]]]
VALUES = st.sampled_from([None, True, False, {}, *LISTS, *NUMBERS, *WORDS])

bytes_changed = st.tuples(
    st.just("bytes"), st.integers(0, 7), st.integers(0, 10**6), st.binary(min_size=1, max_size=16)
)  # fmt: skip
cut = st.tuples(st.just("cut"), st.integers(0, 7), st.integers(0, 10**6), st.booleans())
grown = st.tuples(st.just("grown"), st.integers(0, 7), st.integers(0, 10**6), st.binary(min_size=1, max_size=64))
value = st.tuples(st.just("value"), st.integers(0, 7), st.integers(0, 100), VALUES)
swapped = st.tuples(st.just("swapped"), st.integers(0, 7), st.integers(0, 7), st.none())
damage = st.lists(st.one_of(bytes_changed, cut, grown, value, swapped), min_size=1, max_size=3)


# (damage, signed, mmap): inputs that have crashed the loader, or were near to it.
REGRESSIONS = [
    ([("value", 0, 4, 2**60)], True, True),
    ([("bytes", 1, 0, b"\0\0\0\0\0\0\0\x10")], True, True),
    ([("bytes", 1, 5000, b"\xff" * 16)], True, True),  # offsets of tables that lead out of the file
    ([("bytes", 1, 4096, b"\xff" * 16)], True, False),
]
VERSIONS = [1, 2, "weighted", "keyed"]  # of the manifest that is damaged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With tables for its segments, small as they are, which are used wherever there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_file, "MIN_ROWS", 1)
        patch.setattr(tables, "SMALL_NS", {"topk": 0, "range": 0})
        patch.setitem(tables.BUDGETS, "auto", 1e12)
        path = make_folder(tmp_path_factory.mktemp("fuzz") / "index")
        with HammingIndex.open(path, writable=True) as index:
            index.build_mih()
        assert len(files(path)) == 7  # manifest; two segments with tombstones and tables
        make_keyed_folder(path.parent / "keyed")
        yield path


def places(document):
    """Every (container, key) of a JSON document."""
    found = []
    todo = [document]
    while todo:
        item = todo.pop()
        for key in list(item) if isinstance(item, dict) else range(len(item)):
            found.append((item, key))
            if isinstance(item[key], (dict, list)):
                todo.append(item[key])
    return found


def with_value(text, number, new):
    """JSON text with one of its values replaced; the same text where it is no JSON any more."""
    with contextlib.suppress(ValueError, TypeError):
        document = json.loads(text)
        options = places(document)
        if options:
            container, key = options[number % len(options)]
            container[key] = new
        return json.dumps(document).encode()
    return text


def damaged(data, is_manifest, kind, at, what):
    if kind == "bytes":
        at %= len(data) + 1
        return data[:at] + what + data[at + len(what) :]
    if kind == "cut":
        at %= len(data) + 1
        return data[at:] if what else data[:at]
    if kind == "grown":
        at %= len(data) + 1
        return data[:at] + what + data[at:]
    if is_manifest:
        return with_value(data, at, what)
    length = int.from_bytes(data[:8], "little")
    header = with_value(data[8 : 8 + length], at, what).ljust(min(length, len(data)))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def sign(folder):
    """Makes the checksums right, as someone would who wants the damage to be believed."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, OSError):
        manifest = read_manifest(folder)
        for entry in manifest["segments"]:
            for name in ("file", "tombstones", "mih", "keys"):
                checksum = "xxh3_128" if name == "file" else f"{name}_xxh3_128"
                if isinstance(entry.get(name), str) and (folder / entry[name]).parent == folder:
                    entry[checksum] = xxhash.xxh3_128_hexdigest((folder / entry[name]).read_bytes())
        write_manifest(folder, manifest)


def use(index):
    """Everything that a reader does. The content of mapped segments is not checked, so it may be nonsense."""
    queries = random_codes(2, -(-index.bits // 8)) & 0
    for filter in (None, [0, 5, 1010], index.ids >= 0):
        with contextlib.suppress(ValueError):  # ids that are live twice make a mask of another length
            found = (
                index.search(queries, 3, filter=filter),
                index.range_search(queries, min(index.bits, 20), filter=filter),
            )
            for part in found if index.keyed else ():
                assert part.keys.shape == part.ids.shape
                assert isinstance("1" in index, bool)
                assert len(index.ids_of([f"köy {number}" for number in range(20)])) == 20
    with contextlib.suppress(KeyError):
        index.get(index.ids[:3])
    assert isinstance(5 in index, bool)
    assert isinstance(index.id_range, tuple | None)


def try_damage(folder, damage, signed, mmap, version=1):
    folder = folder.parent / "keyed" if version == "keyed" else folder
    before = content(HammingIndex.open(folder))
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "index"
        shutil.copytree(folder, copy)
        if version in (2, "weighted"):
            weighted = {"features": ["bit_weights"], "bit_weights": [[40, 3], [24, 1]]}
            write_manifest(
                copy, {**read_manifest(copy), "version": 2, **({"features": []} if version == 2 else weighted)}
            )
            before = content(HammingIndex.open(copy))
        names = files(copy)
        for kind, number, at, what in damage:
            file = names[number % len(names)]
            if kind == "swapped":
                other = names[at % len(names)]
                mine, theirs = file.read_bytes(), other.read_bytes()
                file.write_bytes(theirs)
                other.write_bytes(mine)
            else:
                file.write_bytes(damaged(file.read_bytes(), file.name == "manifest.json", kind, at, what))
        if signed:
            sign(copy)
        listed = {file.name: file.read_bytes() for file in copy.iterdir()}
        try:
            index = HammingIndex.open(copy, mmap=mmap)
        except IndexFolderError:
            outcome = "refused"
        else:
            with contextlib.suppress(IndexFolderError):  # a filter walks the ids in order, and finds that they are not
                use(index)
            try:
                index.verify()
            except IndexFolderError:
                outcome = "verify refuses"
            else:
                outcome = "good"
                assert signed or content(index) == before
        assert {file.name: file.read_bytes() for file in copy.iterdir()} == listed  # reading writes nothing
        assert os.listdir(place) == ["index"]
    return outcome


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("damage", "signed", "mmap"), REGRESSIONS)
def test_what_has_crashed_once(folder, damage, signed, mmap, version):
    try_damage(folder, damage, signed, mmap, version)


NAMES = st.one_of(st.sampled_from(["graph", "sketches", *WORDS]), st.text(max_size=70), st.integers(), st.none())


@settings(max_examples=100, deadline=None)
@given(features=st.one_of(VALUES, st.lists(NAMES, max_size=4)), known=st.sets(st.sampled_from(["graph", "sketches"])))
def test_any_features(folder, features, known):
    """An index opens where its features are a list of distinct names, all of them known, and is refused otherwise."""
    good = isinstance(features, list) and all(isinstance(name, str) and name in known for name in features)
    good = good and len(set(features)) == len(features)
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasthash.index.store.manifest.KNOWN_FEATURES", frozenset(known))
        copy = Path(shutil.copytree(folder, Path(place) / "index"))
        write_manifest(copy, {**read_manifest(copy), "version": 2, "features": features})
        if good:
            assert current_manifest(copy).features == tuple(features)
            HammingIndex.open(copy).verify()
        else:
            with pytest.raises(IndexFolderError, match=r"manifest\.json: .*feature"):
                HammingIndex.open(copy)


def test_random_damage(folder):
    """Rounds of a hundred examples until the time is over; a failure prints the seed of its round."""
    rounds = settings(
        max_examples=100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    outcomes, end = Counter(), time.monotonic() + SECONDS
    while True:
        number = random.randrange(2**32)

        @seed(number)
        @rounds
        @given(damage=damage, signed=st.booleans(), mmap=st.booleans(), version=st.sampled_from(VERSIONS))
        def one_round(damage, signed, mmap, version):
            outcomes[try_damage(folder, damage, signed, mmap, version)] += 1

        one_round()
        if time.monotonic() > end:
            break
    print(dict(outcomes))
    assert outcomes["refused"]
    assert outcomes["good"] or sum(outcomes.values()) < 300  # else hardly anything gets past the manifest
