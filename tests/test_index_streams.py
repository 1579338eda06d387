"""Changes and searches of an index on different CUDA streams: events and recorded tensors, emulated and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fasthash import HammingIndex, _ops
from fasthash.index.search import order

CODES = np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)
gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or not _ops.cuda_architectures(), reason="needs a GPU and CUDA kernels"
)


class Stream:
    """A stream as a vector clock: how much of each stream's work is done before what comes next."""

    def __init__(self) -> None:
        self.clock: dict[Stream, int] = {self: 0}

    def record_event(self) -> dict[Stream, int]:
        self.clock[self] += 1
        return dict(self.clock)

    def wait_event(self, event: dict[Stream, int]) -> None:
        for stream, time in event.items():
            self.clock[stream] = max(self.clock.get(stream, 0), time)

    def comes_after(self, event: dict[Stream, int]) -> bool:
        return all(self.clock.get(stream, 0) >= time for stream, time in event.items())


class Streams:
    """What order.py uses of torch.cuda."""

    def __init__(self) -> None:
        self.current, self.capturing = Stream(), False

    def current_stream(self, device: torch.device) -> Stream:
        return self.current

    def is_current_stream_capturing(self) -> bool:
        return self.capturing


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Makes an index on the CPU take itself for one on a GPU; record_stream notes pairs of storage and stream."""
    emulated = Streams()
    monkeypatch.setattr(order, "streams_of", lambda device: emulated)
    return emulated


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Stream]]:
    found: list[tuple[int, Stream]] = []
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: found.append((self.data_ptr(), stream)), raising=False
    )
    return found


def filled(keyed: bool = False) -> HammingIndex:
    index = HammingIndex(64)
    for at, first in ((0, 0), (100, 1)):
        keys = [f"{at + row}" for row in range(100)] if keyed else None
        index.add(CODES[at : at + 100], ids=np.arange(100) * 3 + first, keys=keys)
    index.remove([3, 6])
    return index


READS: dict[str, Callable[[HammingIndex, Any], Any]] = {
    "search": lambda index, folder: index.search(CODES[:3], 2),
    "search with a filter": lambda index, folder: index.search(CODES[:3], 2, filter=[0, 3, 4]),
    "range_search": lambda index, folder: index.range_search(CODES[:3], 20),
    "rescore": lambda index, folder: index.search(np.random.default_rng(0).random((2, 64)), 2, rescore=2),
    "get": lambda index, folder: index.get([0]),
    "contains": lambda index, folder: 0 in index,
    "ids": lambda index, folder: index.ids,
    "id_range": lambda index, folder: index.id_range,
    "save": lambda index, folder: index.save(folder / "index"),
    "export": lambda index, folder: index.export(folder / "codes.npy"),
    "to": lambda index, folder: index.to("cpu"),
    "add": lambda index, folder: index.add(CODES[200:]),
    "add ids": lambda index, folder: index.add(CODES[200:], ids=range(1000, 1100)),
    "replace": lambda index, folder: index.add(CODES[:1], ids=[0], replace=True),
    "remove": lambda index, folder: index.remove([0]),
    "compact": lambda index, folder: index.compact(),
}
KEYED: dict[str, Callable[[HammingIndex, Any], Any]] = {
    "get keys": lambda index, folder: index.get(keys=["7"]),
    "key in": lambda index, folder: "7" in index,
    "ids_of": lambda index, folder: index.ids_of(["7"]),
    "keys_of": lambda index, folder: index.keys_of([0]),
    "search with a filter of keys": lambda index, folder: index.search(CODES[:3], 2, filter=["7", "8"]),
    "add keys": lambda index, folder: index.add(CODES[200:], keys=[f"new {row}" for row in range(100)]),
    "replace keys": lambda index, folder: index.add(CODES[:1], keys=["7"], replace=True),
    "remove keys": lambda index, folder: index.remove(keys=["7"]),
    "save keys": lambda index, folder: index.save(folder / "index"),
    "to with keys": lambda index, folder: index.to("cpu"),
    "compact keys": lambda index, folder: index.compact(),
}
READS |= KEYED


@pytest.mark.parametrize("read", READS)
def test_every_use_waits_for_the_change_before_and_records_what_it_reads(
    read: str, streams: Streams, recorded: list[tuple[int, Stream]], tmp_path: Any
) -> None:
    index = filled(keyed=read in KEYED)
    contents, change = index._state
    assert change is not None
    reader = streams.current = Stream()
    assert not reader.comes_after(change)
    recorded.clear()
    READS[read](index, tmp_path)
    assert reader.comes_after(change)
    tensors = [t for s in contents.segments for t in (s.codes, s.ids, s.live) if t is not None]
    assert {(tensor.data_ptr(), reader) for tensor in tensors} <= set(recorded)


def test_keys_of_a_result_wait_where_they_are_read(streams: Streams, recorded: list[tuple[int, Stream]]) -> None:
    index = filled(keyed=True)
    found = index.search(CODES[:3], 2)
    contents, change = index._state
    reader = streams.current = Stream()
    recorded.clear()
    assert found.keys[0, 0] == "0"
    assert reader.comes_after(change)
    tensors = [t for s in contents.segments for t in (s.codes, s.ids, s.live) if t is not None]
    assert {(tensor.data_ptr(), reader) for tensor in tensors} <= set(recorded)


CHANGES = ["add", "add ids", "replace", "remove", "compact", "add keys", "replace keys", "remove keys", "compact keys"]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_ends_with_an_event_that_the_next_use_waits_for(
    change: str, streams: Streams, recorded: list[tuple[int, Stream]], tmp_path: Any
) -> None:
    index = filled(keyed=change in KEYED)
    writer = streams.current = Stream()
    READS[change](index, tmp_path)
    event = index._state[1]
    assert event[writer] > 0
    reader = streams.current = Stream()
    index.search(CODES[:1], 1)
    assert reader.comes_after(event)


def test_a_copy_on_another_device_is_ordered_too(streams: Streams, recorded: list[tuple[int, Stream]]) -> None:
    index = filled()
    writer = streams.current = Stream()
    copy = index.to("cpu")
    reader = streams.current = Stream()
    copy.search(CODES[:1], 1)
    assert reader.clock[writer] > 0


def test_a_stream_under_capture_is_left_alone(streams: Streams, recorded: list[tuple[int, Stream]]) -> None:
    index = filled()
    streams.current, streams.capturing = Stream(), True
    recorded.clear()
    index.search(CODES[:1], 1)
    assert not recorded


def test_results_are_the_same_in_the_emulation(streams: Streams, recorded: list[tuple[int, Stream]]) -> None:
    index = filled()
    found = index.search(CODES[:20], 5)
    order_free = HammingIndex(64)
    order_free.add(index.get(index.ids), ids=index.ids)
    np.testing.assert_array_equal(found.ids, order_free.search(CODES[:20], 5).ids)


@gpu
def test_changes_and_searches_on_different_streams() -> None:
    """Long work on the writer's stream delays its copies; a reader on another stream must wait for them."""
    rng = np.random.default_rng(0)
    database = torch.from_numpy(rng.integers(0, 256, (200_000, 8), dtype=np.uint8)).cuda()
    oracle = HammingIndex(64)
    oracle.add(database.cpu())
    queries = database[-64:].clone()
    expected = oracle.search(queries.cpu(), 5)
    torch.cuda.synchronize()
    busy = torch.randn(4096, 4096, device="cuda")
    writer, reader = torch.cuda.Stream(), torch.cuda.Stream()
    for _ in range(5):
        index = HammingIndex(64, "cuda")
        with torch.cuda.stream(writer):
            for _ in range(20):
                busy = (busy @ busy).clamp(-1, 1)
            index.add(database)
        with torch.cuda.stream(reader):
            found = index.search(queries, 5)
        with torch.cuda.stream(writer):
            index.remove(torch.arange(100_000))
            index.compact()  # frees what the search may still read
            torch.full((200_000, 8), 255, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        assert torch.equal(found.ids.cpu(), expected.ids)
        assert torch.equal(found.distances.cpu(), expected.distances)
