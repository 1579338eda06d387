"""Index folders: the format, other programs, readers and writers, saving."""

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import xxhash
from index_folders import content, files, make_folder, random_codes, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError, merge


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "index")


# The format


def test_manifest_and_files_are_as_documented(folder):
    manifest = read_manifest(folder)
    first, second = manifest["segments"]
    assert {key: manifest[key] for key in ("format", "version", "bits", "code_bytes", "generation", "next_id")} == {
        "format": "fasthash-index",
        "version": 1,
        "bits": 64,
        "code_bytes": 8,
        "generation": 4,
        "next_id": 1291,
    }
    assert (first["rows"], first["ids"], first["first_id"], first["deleted"]) == (50, "implicit", 0, 2)
    assert (second["rows"], second["ids"], second["first_id"], second["deleted"]) == (30, "explicit", 1000, 2)
    named = {name for entry in (first, second) for name in (entry["file"], entry["tombstones"])}
    assert {file.name for file in folder.iterdir()} == named | {"manifest.json", "lock"}
    for entry in (first, second):
        data = (folder / entry["file"]).read_bytes()
        assert entry["xxh3_128"] == xxhash.xxh3_128_hexdigest(data)
        assert entry["tombstones_xxh3_128"] == xxhash.xxh3_128_hexdigest((folder / entry["tombstones"]).read_bytes())
        assert int.from_bytes(data[:8], "little") == 4088
        metadata = json.loads(data[8:4096])["__metadata__"]
        assert (metadata["bits"], metadata["ids"], metadata["first_id"]) == ("64", entry["ids"], str(entry["first_id"]))


def test_safetensors_library_reads_our_files(folder):
    first, second = read_manifest(folder)["segments"]
    tensors = safetensors.numpy.load_file(folder / first["file"])
    np.testing.assert_array_equal(tensors["codes"], random_codes(50))
    assert set(tensors) == {"codes"}
    tensors = safetensors.numpy.load_file(folder / second["file"])
    np.testing.assert_array_equal(tensors["ids"], np.arange(1000, 1300, 10))
    np.testing.assert_array_equal(tensors["codes"], random_codes(30, seed=1)[::-1])
    deleted = safetensors.numpy.load_file(folder / first["tombstones"])["deleted"]
    np.testing.assert_array_equal(np.unpackbits(deleted).nonzero()[0], [3, 20])


def test_programs_of_the_documentation(folder, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "index-format.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", page, re.MULTILINE)]
    reader, check = (next(block for block in blocks if start in block) for start in ("import json", "expected ="))
    monkeypatch.chdir(folder.parent)
    folder.rename("my-index")
    index = HammingIndex.open("my-index")
    exec(reader, {})
    expected = [f"{index.ids[:48]} {index.get(index.ids[:48])}", f"{index.ids[48:]} {index.get(index.ids[48:])}"]
    assert capsys.readouterr().out.split() == " ".join(expected).split()
    text = Path("my-index/manifest.json").read_text()
    exec(check, {"json": json, "xxhash": xxhash, "text": text})
    with pytest.raises(AssertionError):
        exec(check, {"json": json, "xxhash": xxhash, "text": text.replace('"bits": 64', '"bits": 63')})


@pytest.mark.parametrize("sign", [True, False])
def test_an_index_that_another_program_wrote(tmp_path, sign):
    """Only the words of DESIGN.md: a plain manifest, segments by the safetensors library."""
    codes = random_codes(20, 3)
    safetensors.numpy.save_file({"codes": codes[:12]}, tmp_path / "part0.safetensors")
    safetensors.numpy.save_file(
        {"codes": codes[12:], "ids": np.arange(100, 116, 2)}, tmp_path / "part1.safetensors", {"made": "elsewhere"}
    )
    safetensors.numpy.save_file({"deleted": np.packbits(np.arange(12) == 5)}, tmp_path / "gone")
    names = ("part0.safetensors", "part1.safetensors")
    sums = [xxhash.xxh3_128_hexdigest((tmp_path / name).read_bytes()) for name in names]
    segments = [
        {"file": names[0], "rows": 12, "ids": "implicit", "first_id": 0, "xxh3_128": sums[0]}
        | {"tombstones": "gone", "deleted": 1},
        {"file": names[1], "rows": 8, "ids": "explicit", "first_id": 100, "xxh3_128": sums[1]}
        | {"tombstones": None, "deleted": 0},
    ]
    header = {"format": "fasthash-index", "version": 1, "bits": 24, "code_bytes": 3, "generation": 0, "next_id": 200}
    write_manifest(tmp_path, {**header, "segments": segments}, sign)
    ids = [*range(5), *range(6, 12), *range(100, 116, 2)]
    with HammingIndex.open(tmp_path, writable=True) as index:
        index.verify()
        assert index.ids.tolist() == ids
        np.testing.assert_array_equal(index.get(ids), codes[np.arange(20) != 5])
        assert index.add(codes[:1]).tolist() == [200]
    assert HammingIndex.open(tmp_path, mmap=False).ids.tolist() == [*ids, 200]
    assert read_manifest(tmp_path)["generation"] == 1


def test_keys_of_later_versions_are_ignored_where_the_checksum_vouches_for_them(folder):
    before = content(HammingIndex.open(folder))
    manifest = {**read_manifest(folder), "future": [1]}
    manifest["segments"][0]["future"] = {"a": None}
    write_manifest(folder, manifest)
    assert content(HammingIndex.open(folder)) == before
    write_manifest(folder, manifest, sign=False)
    with pytest.raises(IndexFolderError, match="unknown key 'future' and no checksum that confirms it"):
        HammingIndex.open(folder)


@pytest.mark.parametrize("mmap", [True, False])
def test_round_trip(tmp_path, mmap):
    index = HammingIndex(60)
    index.add(random_codes(40) & 0xF0, ids=np.arange(40) * 3)
    index.remove([0, 3, 39])
    index.add(random_codes(5) & 0xF0)
    index.remove([index.ids[-1]])
    index.save(tmp_path / "a" / "b")
    opened = HammingIndex.open(tmp_path / "a" / "b", mmap=mmap)
    assert content(opened) == content(index)
    assert opened.path == tmp_path / "a" / "b"
    assert repr(opened) == f"HammingIndex(bits=60, codes=41, path='{tmp_path}/a/b')"
    opened.verify()
    empty = HammingIndex(7)
    empty.save(str(tmp_path / "empty"))
    assert content(HammingIndex.open(tmp_path / "empty", mmap=mmap)) == content(empty)
    assert len(files(tmp_path / "empty")) == 1


def test_open_maps_and_does_not_copy(tmp_path):
    index = HammingIndex(64)
    index.add(random_codes(4))
    index.save(tmp_path / "index")
    mapped = HammingIndex.open(tmp_path / "index")
    loaded = HammingIndex.open(tmp_path / "index", mmap=False)
    (segment,) = files(tmp_path / "index", "segment")
    with open(segment, "r+b") as file:  # never done to an index in use: it shows whose memory is read
        file.seek(4096)
        file.write(b"\0" * 8)
    assert mapped.get([0]).tolist() == [[0] * 8]
    np.testing.assert_array_equal(loaded.get([0]), random_codes(4)[:1])


def test_written_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("fasthash.index.segments.BLOCK_BYTES", 100)
    index = HammingIndex(64)
    index.add(random_codes(50), np.random.default_rng(0).permutation(1000)[:50])
    index.remove(index.ids[::3])
    index.save(tmp_path / "index")
    opened = HammingIndex.open(tmp_path / "index", mmap=False)
    opened.verify()
    assert content(opened) == content(index)


def test_ids_are_a_range_again_where_removal_leaves_one(tmp_path):
    index = HammingIndex(64)
    index.add(random_codes(4), ids=[2, 5, 6, 7])
    index.remove([2])
    index.save(tmp_path)
    (entry,) = read_manifest(tmp_path)["segments"]
    assert (entry["ids"], entry["first_id"], entry["rows"]) == ("implicit", 5, 3)
    assert content(HammingIndex.open(tmp_path)) == content(index)


# One writer, any number of readers


def test_changes_are_durable_and_readers_keep_their_snapshot(folder):
    reader = HammingIndex.open(folder)
    before = content(reader)
    with HammingIndex.open(folder, writable=True) as writer:
        for seed in range(20):  # enough to merge, and so to delete the files that the reader mapped
            writer.add(random_codes(5, seed=seed))
        writer.remove(np.arange(40))
        assert content(HammingIndex.open(folder)) == content(writer)
        after = content(writer)
        assert len(files(folder, "segment")) < merge.MERGE_FAN
    assert content(reader) == before
    assert content(HammingIndex.open(folder)) == after


def test_refresh(folder):
    reader, loaded = HammingIndex.open(folder), HammingIndex.open(folder, mmap=False)
    before = content(reader)
    assert reader.refresh() is False
    with HammingIndex.open(folder, writable=True) as writer:
        kept = reader._contents.segments[0].codes
        writer.add(random_codes(5, seed=2))
        assert content(reader) == before
        assert (reader.refresh(), loaded.refresh(), writer.refresh()) == (True, True, False)
        assert content(reader) == content(loaded) == content(writer)
        assert reader._contents.segments[0].codes is kept  # not opened again
        writer.compact()
        assert len(files(folder, "segment")) == 1
        assert content(reader) == content(writer)
        assert reader.refresh() is True
        assert len(reader._contents.segments) == 1
        writer.remove([0])
        assert reader.refresh() is True
        after = content(writer)
        assert content(reader) == after
    HammingIndex(8).save(folder, overwrite=True)
    with pytest.raises(IndexFolderError, match="its codes now have 8 bits, not 64; open it again"):
        reader.refresh()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(IndexFolderError, match="not valid JSON"):
        reader.refresh()
    assert content(reader) == after


def test_compact_streams(tmp_path, monkeypatch):
    """Blocks of a few rows, and more rows than one segment may have."""
    monkeypatch.setattr("fasthash.index.segments.BLOCK_BYTES", 100)
    monkeypatch.setattr(merge, "SEGMENT_ROWS", 40)
    rng = np.random.default_rng(0)
    HammingIndex(64).save(tmp_path)
    with HammingIndex.open(tmp_path, writable=True) as index:
        for part in np.split(rng.permutation(200)[:150], 5):
            index.add(part[:, None].view(np.uint8), part)
        index.remove(index.ids[::7])
        before = content(index)
        index.compact()
        assert content(index) == before
        assert content(HammingIndex.open(tmp_path, mmap=False)) == before
        index.verify()
        rows = [segment.rows for segment in index._contents.segments]
        assert all(count <= 40 for count in rows)
        assert len(rows) <= 5
        assert index._contents.ordered
        generation = read_manifest(tmp_path)["generation"]
        index.add(random_codes(1), ids=[10**6])
        index.compact()
        assert read_manifest(tmp_path)["generation"] > generation


def test_one_writer(folder, tmp_path):
    writer = HammingIndex.open(folder, writable=True)
    with pytest.raises(IndexFolderError, match="another writer has it open"):
        HammingIndex.open(folder, writable=True)
    with pytest.raises(IndexFolderError, match="another writer has it open"):
        HammingIndex(64).save(folder, overwrite=True)
    writer.save(folder, overwrite=True)  # it is there already
    with pytest.raises(IndexFolderError, match="already holds an index"):
        writer.save(folder)
    script = "import sys; from fasthash import HammingIndex; HammingIndex.open(sys.argv[1], writable=True)"
    command = [sys.executable, "-c", script, str(folder)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "another writer has it open" in result.stderr
    writer.close()
    with pytest.raises(ValueError, match=r"HammingIndex.add: the index was closed"):
        writer.add(random_codes(1))
    assert len(writer.search(random_codes(1), 3).ids[0]) == 3
    del writer
    forgotten = HammingIndex.open(folder, writable=True)
    del forgotten  # gives the lock back too
    HammingIndex.open(folder, writable=True).close()


def test_read_only_index(folder):
    index = HammingIndex.open(folder)
    for change in (lambda: index.add(random_codes(1)), lambda: index.remove([1])):
        with pytest.raises(ValueError, match="was opened read-only; open it with writable=True"):
            change()
    assert "lock" in os.listdir(folder)
    names = set(os.listdir(folder))
    index.verify()
    index.save(folder.parent / "copy")
    assert set(os.listdir(folder)) == names


def test_a_relative_path_is_that_of_the_moment(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with HammingIndex.open("index", writable=True) as index:
        monkeypatch.chdir(folder)
        index.add(random_codes(1), ids=[9000])
        index.verify()
        assert content(HammingIndex.open("../index")) == content(index)


def test_changes_behind_the_writer_are_noticed(folder):
    writer = HammingIndex.open(folder, writable=True)
    write_manifest(folder, {**read_manifest(folder), "generation": 99})
    with pytest.raises(IndexFolderError, match="changed by a process that does not hold its lock"):
        writer.add(random_codes(1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_of_the_writer_cannot_write(folder):
    writer = HammingIndex.open(folder, writable=True)
    writer._folder._writer._process -= 1  # as a forked process sees it
    with pytest.raises(IndexFolderError, match="this process is a fork of it"):
        writer.add(random_codes(1))


def test_readers_open_whole_states_while_a_writer_commits(folder):
    stop, sizes, errors = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                sizes.add(len(HammingIndex.open(folder)))
            except Exception as error:
                errors.append(error)
                return

    with HammingIndex.open(folder, writable=True) as writer:
        start = len(writer)
        thread = threading.Thread(target=read)
        thread.start()
        for seed in range(100):
            writer.add(random_codes(10, seed=seed))
        stop.set()
        thread.join()
    assert errors == []
    assert all((size - start) % 10 == 0 for size in sizes)


def test_small_transactions_do_not_make_many_files(tmp_path):
    HammingIndex(64).save(tmp_path)
    with HammingIndex.open(tmp_path, writable=True) as index:
        for row in range(200):
            index.add(random_codes(1, seed=row), ids=[1000 - 2 * row])
        assert len(files(tmp_path)) <= merge.MERGE_FAN + 1
        index.verify()


# Saving


def test_save_refuses_what_is_not_its_own(folder, tmp_path):
    index = HammingIndex(64)
    with pytest.raises(IndexFolderError, match="already holds an index; pass overwrite=True"):
        index.save(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(IndexFolderError, match=r"neither empty nor an index, it holds 'thesis.txt'"):
            index.save(tmp_path / "other", overwrite=overwrite)
        assert os.listdir(tmp_path / "other") == ["thesis.txt"]
        with pytest.raises(IndexFolderError, match="cannot be made a folder"):
            index.save(tmp_path / "other" / "thesis.txt", overwrite=overwrite)
    (tmp_path / "other" / "manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(IndexFolderError, match="not a fasthash index: format is 'something else'"):
        index.save(tmp_path / "other", overwrite=True)


def test_overwrite(folder):
    reader = HammingIndex.open(folder)
    kept = content(reader)
    (folder / "notes.txt").write_text("kept")
    index = HammingIndex(16)
    index.add(random_codes(3, 2))
    index.save(folder, overwrite=True)
    assert content(HammingIndex.open(folder)) == content(index)
    assert content(reader) == kept
    assert read_manifest(folder)["generation"] == 5
    assert {file.name.split("-")[0] for file in files(folder)} == {"manifest.json", "notes.txt", "segment"}
    reader.save(folder, overwrite=True)  # a snapshot over the folder that it was opened from
    assert content(HammingIndex.open(folder)) == kept


def test_overwrite_replaces_a_damaged_index(folder):
    (folder / "manifest.json").write_text("{")
    index = HammingIndex(8)
    index.save(folder, overwrite=True)
    assert content(HammingIndex.open(folder)) == content(index)
    assert len(files(folder)) == 1


def test_what_an_interrupted_writer_left_is_removed(folder):
    left = [
        folder / "segment-00000009-0123456789abcdef.safetensors",
        folder / "tombstones-00000009-0123456789abcdef.safetensors",
        folder / "manifest-0123456789abcdef.tmp",
    ]
    for file in left:
        file.write_bytes(b"\0" * 100)
    other = folder / "segment-of-mine.safetensors"
    other.write_bytes(b"")
    HammingIndex.open(folder)
    assert all(file.exists() for file in left)
    HammingIndex.open(folder, writable=True).close()
    assert not any(file.exists() for file in left)
    assert other.exists()


def test_an_unfinished_save_is_no_index_and_is_saved_over(tmp_path):
    (tmp_path / "segment-00000001-0123456789abcdef.safetensors").write_bytes(b"\0" * 4096)
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(IndexFolderError, match=r"not an index: it has no manifest.json"):
        HammingIndex.open(tmp_path)
    HammingIndex(8).save(tmp_path)
    assert len(files(tmp_path)) == 1


def test_read_only_folder(folder, monkeypatch):
    original = os.open

    def refuse(path, flags, *arguments, **keywords):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", str(path))
        return original(path, flags, *arguments, **keywords)

    writer = HammingIndex.open(folder, writable=True)
    before = content(writer)
    monkeypatch.setattr(os, "open", refuse)
    assert content(HammingIndex.open(folder)) == before
    with pytest.raises(IndexFolderError, match=r"cannot be written \(Read-only file system\)"):
        writer.add(random_codes(1))
    writer.close()
    with pytest.raises(IndexFolderError, match=r"cannot be opened for writing \(Read-only file system\)"):
        HammingIndex.open(folder, writable=True)
    with pytest.raises(IndexFolderError, match=r"cannot be opened for writing \(Read-only file system\)"):
        HammingIndex(64).save(folder, overwrite=True)


def test_a_failing_load_gives_the_lock_back(folder):
    file = files(folder, "segment")[0]
    data = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(IndexFolderError, match="truncated"):
        HammingIndex.open(folder, writable=True)
    file.write_bytes(data)
    HammingIndex.open(folder, writable=True).close()


def test_index_in_memory_is_on_the_device_of_its_copy(folder, device):
    index = HammingIndex.open(folder).to(device)
    index.save(folder, overwrite=True)
    assert content(HammingIndex.open(folder)) == content(index)
    assert torch.equal(index.get(torch.tensor([5])), torch.tensor(random_codes(50)[5:6]))
