"""The order of changes and searches of an index on one GPU, when they run on different CUDA streams.

A change ends with an event on its stream, and every use waits for the event of the contents that it reads: codes that
were just added are there. The tensors that are read are recorded on the reader's stream: codes that a search still
reads are not given away when a later change drops them. The CPU needs none of this.
"""

from __future__ import annotations

from typing import Any

import torch

from fasthash.index.segments import Contents


def streams_of(device: torch.device) -> Any:
    """torch.cuda for a GPU, None for the CPU, where work is done when a call returns."""
    return torch.cuda if device.type == "cuda" else None


def made(device: torch.device) -> Any:
    """An event after all that the current stream of the device has been asked to do: the contents just made."""
    cuda = streams_of(device)
    return None if cuda is None or cuda.is_current_stream_capturing() else cuda.current_stream(device).record_event()


def before_use(contents: Contents, event: Any, device: torch.device) -> None:
    """Lets the current stream of the device read contents that were made before `event`.

    A stream that a CUDA graph is being captured on cannot wait for an event from outside: whoever captures a search
    lets the stream wait before.
    """
    cuda = streams_of(device)
    if cuda is None or cuda.is_current_stream_capturing():
        return
    stream = cuda.current_stream(device)
    if event is not None:
        stream.wait_event(event)
    for segment in contents.segments:
        for tensor in (segment.codes, segment.ids, segment.live, segment.scales):
            if tensor is not None:
                tensor.record_stream(stream)
