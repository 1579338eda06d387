"""Forked children: torch works on one thread there.

torch's OpenMP threads do not come along in a fork, and the child waits for them for ever in the first operation that
is large enough to use them. One thread needs none. torch's own DataLoader sets the same in its workers. Our kernels'
threads are started anew in the child; they take their number from torch.
"""

from __future__ import annotations

import os

import torch


def _one_thread() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)
