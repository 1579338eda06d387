"""How an op is registered and how a kernel is called: once for all ops, on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fasthash import _core

_library = torch.library.Library("fasthash", "DEF")


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Registers one op: `run` does the work on CPU and CUDA tensors, `fake` gives empty outputs of the same shapes."""
    name = schema[: schema.index("(")]
    _library.define(schema)
    _library.impl(name, run, "CPU")
    _library.impl(name, run, "CUDA")
    torch.library.register_fake(f"fasthash::{name}", fake, lib=_library)


def batched(name: str, rule: Callable[..., Any]) -> None:
    """Registers what the op does under torch.func.vmap: rule(info, in_dims, *arguments) -> (outputs, out_dims)."""
    torch.library.register_vmap(f"fasthash::{name}", rule, lib=_library)


def implement(name: str, run: Callable[..., Any], key: str) -> None:
    """Registers another implementation of an op; it gets the keys of the call as its first argument."""
    _library.impl(name, run, key, with_keyset=True)


def computed_in_float32(name: str) -> None:
    """Under autocast the op's half-precision inputs become float32."""
    for device in ("cpu", "cuda"):
        if hasattr(torch.library, "register_autocast"):
            torch.library.register_autocast(f"fasthash::{name}", device, torch.float32, lib=_library)
        else:  # torch 2.6
            _library.impl(name, _without_autocast(name, device), f"Autocast{device.upper()}")


def _without_autocast(name: str, device: str) -> Callable[..., Any]:
    op = getattr(torch.ops.fasthash, name).default

    def run(*arguments: Any) -> Any:
        half = (torch.float16, torch.bfloat16)
        with torch.autocast(device, enabled=False):
            return op(*(a.float() if isinstance(a, Tensor) and a.dtype in half else a for a in arguments))

    return run


def call(name: str, device: torch.device, *arguments: Any, workspace: tuple[Any, ...] | Tensor | None = None) -> None:
    """Calls _core.<name>_cpu or _cuda. `workspace`: what `workspace_for` made, or its arguments but the device."""
    if device.type == "cpu":
        getattr(_core, f"{name}_cpu")(*arguments, torch.get_num_threads())
        return
    _require_cuda(name, device)
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        if isinstance(workspace, tuple):
            workspace = workspace_for(device, *workspace)
        buffer = () if workspace is None else (workspace.data_ptr(), workspace.numel())
        getattr(_core, f"{name}_cuda")(*arguments, *buffer, stream)


def workspace_for(device: torch.device, owner: str, *sizes: Any) -> Tensor | None:
    """Memory of <owner>_cuda_workspace(*sizes) bytes; None on the CPU, whose kernels take their own."""
    if device.type == "cpu":
        return None
    _require_cuda(owner, device)
    count = getattr(_core, f"{owner}_cuda_workspace")(*sizes)
    try:
        return torch.empty(max(count, 1), dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        free = torch.cuda.mem_get_info(device)[0]
        raise torch.OutOfMemoryError(
            f"{owner}: no memory for a workspace of {count} bytes on {device}: only {free} bytes are free"
        ) from error


def _require_cuda(name: str, device: torch.device) -> None:
    if not _core.cuda_architectures:
        raise RuntimeError(
            f"{name}: this build of fasthash has no CUDA kernels, got a tensor on {device}; "
            "install it again with FASTHASH_CUDA=ON in the environment, where nvcc is on PATH"
        )


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
