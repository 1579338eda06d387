"""Bringing codes that lie in host memory or in a file to a device, block by block, while the last block is searched.

There are two blocks on the device, and for each a place in pinned host memory. A thread fills one (a copy into the
pinned place, from where the device's copy engine takes it, on a stream of its own) while the caller searches the other.
Events keep the two apart: a block is read after its copy, and overwritten after its search. On the CPU the same code
runs without streams.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fasthash.index.readahead import read_ahead
from fasthash.index.search.parts import ScannedPart, mapped_codes
from fasthash.index.segments import Segment

BLOCK_BYTES = 1 << 27  # codes of a block: some milliseconds of copying, which hide what starting a search costs


class Block(ScannedPart):
    """Codes and mask of a part, brought to a device; its rows and ids are where they were."""

    brought_scales: Tensor | None  # of the codes, on the device, where a search uses them

    def scales(self) -> Tensor | None:
        return self.brought_scales

    def ids_of(self, positions: Tensor) -> Tensor:
        if self.rows is None and self.segment.ids is None:
            return super().ids_of(positions)
        home = self.segment.codes.device
        return super().ids_of(positions.to(home)).to(positions.device)


def streamed(
    parts: Iterable[ScannedPart], device: torch.device, block_bytes: int = BLOCK_BYTES, scaled: bool = False
) -> Iterator[Block]:
    """The same codes in blocks on a device, each to be used before the next is asked for; their scales too if `scaled`.

    Searches belong on the device's current stream. Takes 2 x block_bytes of the device's memory and, for CUDA, of
    pinned host memory.
    """
    pieces = _pieces(read_ahead(parts, mapped_codes), block_bytes)
    now, later = _Place(device, scaled), _Place(device, scaled)
    try:
        with ThreadPoolExecutor(1, "fasthash-stream") as loader:
            loading = loader.submit(now.load, pieces)
            while (block := loading.result()) is not None:
                loading = loader.submit(later.load, pieces)
                _wait(device, now.copied)
                yield block
                now.searched = _event(device)
                now, later = later, now
    finally:
        with _beside(device) as current:  # where the places' memory goes back to
            _wait(device, current)


def on_device(codes: Tensor, device: torch.device, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """A copy of codes [N, W] on a device, brought there as `streamed` does, and complete."""
    copy = torch.empty(codes.shape, dtype=codes.dtype, device=device)
    for block in streamed([ScannedPart(Segment(codes, 0), codes, None, 0)], device, block_bytes):
        copy[block.start : block.start + len(block.codes)] = block.codes
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # other streams will read it
    return copy


def _pieces(parts: Iterable[ScannedPart], block_bytes: int) -> Iterator[ScannedPart]:
    """Parts cut into blocks of at most block_bytes, where a mask's words begin."""
    for part in parts:
        rows = max(64, block_bytes // part.codes.shape[1] // 64 * 64)
        for start in range(0, len(part.codes), rows):
            codes = part.codes[start : start + rows]
            mask = None if part.mask is None else part.mask[start // 64 : (start + len(codes) + 63) // 64]
            own = None if part.rows is None else part.rows[start : start + rows]
            yield part._replace(codes=codes, mask=mask, start=part.start + start, rows=own)


class _Place:
    """Where one block lies: pinned in host memory, and on the device. As large as the largest block so far."""

    def __init__(self, device: torch.device, scaled: bool):
        self._device, self._scaled = device, scaled
        self._buffers: dict[str, tuple[Tensor, Tensor]] = {}
        self.copied: Any = None  # events
        self.searched: Any = None

    def load(self, pieces: Iterator[ScannedPart]) -> Block | None:
        """Starts bringing the next piece here, once what was here is no longer needed; None where there is none."""
        piece = next(pieces, None)
        if piece is None:
            return None
        if self.copied is not None:
            self.copied.synchronize()  # the pinned memory is free
        scales = piece.scales() if self._scaled else None
        with _beside(self._device):
            _wait(self._device, self.searched)
            codes = self._bring("codes", piece.codes)
            mask = None if piece.mask is None else self._bring("mask", piece.mask)
            brought = None if scales is None else self._bring("scales", scales)
            self.copied = _event(self._device)
        # What is here is not mapped, whatever the segment is: nobody need read ahead of it.
        block = Block(replace(piece.segment, mapped=False), codes, mask, piece.start, piece.rows)
        block.brought_scales = brought
        return block

    def _bring(self, name: str, source: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"
        staged = pinned and not source.is_pinned()
        host, there = self._buffers.get(name, (source[:0], source[:0]))
        if there.numel() < source.numel():
            there = torch.empty(source.numel(), dtype=source.dtype, device=self._device)
        if staged and host.numel() < source.numel():
            host = torch.empty(source.numel(), dtype=source.dtype, pin_memory=True)
        self._buffers[name] = host, there
        if staged:
            source = host[: source.numel()].view(source.shape).copy_(source)
        return there[: source.numel()].view(source.shape).copy_(source, non_blocking=pinned)


# Streams and events, which the CPU has none of.


@functools.cache
def _copy_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # one for all searches: the allocator keeps memory by stream


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[Any]:
    """Makes the copy stream the current one; gives an event of the one that was current before."""
    event = _event(device)
    with torch.cuda.stream(_copy_stream(device)) if device.type == "cuda" else contextlib.nullcontext():
        yield event


def _event(device: torch.device) -> Any:
    """An event of the current stream, after its present work."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def _wait(device: torch.device, event: Any) -> None:
    """Lets the current stream go on after an event."""
    if event is not None:
        torch.cuda.current_stream(device).wait_event(event)
