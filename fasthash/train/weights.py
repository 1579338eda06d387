"""Weights of modules that `fasthash.train.train` has trained: read into a module that the caller makes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from torch import nn

from fasthash._checkpoint import RUN, check_tensors, load_checkpoint


def module_name(module: nn.Module) -> str:
    """The class of a module as "package:Class": noted in a run for people; nothing is imported by it.

    >>> module_name(nn.Linear(2, 2))
    'torch.nn.modules.linear:Linear'
    """
    kind = type(module)
    return f"{kind.__module__}:{kind.__qualname__}"


def load_weights(module: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """Gives `module` the weights of a run of `fasthash.train.train`, in evaluation mode: the module itself.

    path: the run's folder, or its model.safetensors. The file holds tensors and JSON; nothing in it is imported or
    executed, so the module must be made by the caller. Raises FileNotFoundError, and ValueError, naming the first
    difference, for weights of another module or a file of another kind.

    >>> import fasthash, tempfile, torch
    >>> from fasthash.train import HashHead
    >>> with tempfile.TemporaryDirectory() as run:
    ...     loss = lambda z: z.mean()
    ...     _ = fasthash.train(HashHead(4, 8), [torch.randn(8, 4)], loss, epochs=1, run_dir=run, progress=False)
    ...     load_weights(HashHead(4, 8), run).training
    False
    """
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
        if not file.exists() and (file.parent / "checkpoint.safetensors").exists():
            raise ValueError(f"load_weights: the run in {path} is not finished: train to the end first")
    tensors, content = load_checkpoint(file, RUN)
    try:
        check_tensors(tensors, module.state_dict())
    except ValueError as error:
        named = content.get("module")
        of = f"a {named}" if isinstance(named, str) else "another module"
        raise ValueError(
            f"load_weights: {file} holds weights of {of}, not of this {module_name(module)}: {error}"
        ) from None
    module.load_state_dict(tensors)
    return module.eval()
