"""What tests share: the data beside the project, instruction sets, devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: OpenMP threads that sleep where they wait, so that a busy machine does not slow the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from emulation import Emulation, build, compiler

from fasthash import _ops

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the project; tests that need it skip where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the data folder ../shared/data is not beside the project")
    return SHARED_DATA


@pytest.fixture(params=_ops.isa_names())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once for each instruction set of this machine."""
    _ops.set_isa(request.param)
    yield request.param
    _ops.set_isa("")


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() and _ops.cuda_architectures() else ["cpu"]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs the test once for each device that this build and machine have."""
    return torch.device(request.param)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs the test on one thread: where its batches are tiny, more only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Emulation]:
    """The emulation of CUDA on this machine."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    emulation = Emulation(build())
    yield emulation
    emulation.close()
