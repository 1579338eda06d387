"""Networks from pictures to features: a small residual one of our own, those of torchvision and timm, or any module."""

from __future__ import annotations

import copy
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SMALL = "small"
_LIBRARIES = ("torchvision", "timm")
_CLASSIFIERS = ("fc", "classifier", "heads", "head")  # names that torchvision gives the last layers
# Mean and deviation of ImageNet's colours in [0, 1], by which published weights were trained.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Residual(nn.Module):
    """Two 3 x 3 convolutions and a way around them: [B, channels_in, H, W] -> [B, channels, H / stride, W / stride]."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            around = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.around = nn.Sequential(around, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.body(x) + self.around(x))
        return result


class Normalise(nn.Module):
    """(x - mean) / deviation of each colour, of pictures x [B, 3, H, W] in [0, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class Backbone(nn.Module):
    """A network of features. A frozen one has no gradients and stays in evaluation mode, so that its norms stay too."""

    def __init__(self, module: nn.Module, frozen: bool) -> None:
        super().__init__()
        self.module, self.frozen = module, frozen
        if frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.module(x)
        return features


def small(size: int) -> nn.Sequential:
    """A residual network of 1.2 million weights: [B, 3, size, size] -> features [B, 256].

    From 64 pixels on its first layer halves the picture, so that 64 pixels cost what 32 do.
    """
    stem = [nn.Conv2d(3, 32, 3, 2 if size >= 64 else 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    blocks = [Residual(32, 32, 1), Residual(32, 64, 2), Residual(64, 128, 2), Residual(128, 256, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def is_ours(backbone: Any) -> bool:
    """Whether a backbone is made without importing anything."""
    return bool(backbone == SMALL) if isinstance(backbone, str) else False


def backbone(given: str | nn.Module, size: int, weights: str | PathLike[str] | None = None) -> tuple[nn.Module, int]:
    """The network x [B, 3, size, size] in [0, 1] -> features [B, F], and F.

    given: "small"; the name of a model of torchvision or timm, whose classifier is taken off, with the library before
    it ("timm:vit_small_patch16_224") or looked for in torchvision, then in timm; or a module, a copy of which is used.
    weights: a file of a state dict, read by torch.load(weights_only=True); those of a classifier may be in it.

    Raises ValueError for an unknown name, for weights of another network, and for outputs that are not [B, F];
    ImportError, saying what to install, where a library is missing.
    """
    if isinstance(given, nn.Module):
        body: nn.Module = copy.deepcopy(given)
    elif given == SMALL:
        body = small(size)
    elif isinstance(given, str):
        body = _of_library(given)
    else:
        raise TypeError(f"ImageHasher: backbone must be a name or a torch.nn.Module, got {type(given).__name__}")
    if weights is not None:
        _read_weights(body, weights)
    module = nn.Sequential(Normalise(), body) if isinstance(given, str) else body
    return module, _features(module, size)


def _of_library(name: str) -> nn.Module:
    library, colon, model = name.partition(":")
    if colon and library not in _LIBRARIES:
        raise ValueError(f"ImageHasher: backbone must be small, torchvision:NAME or timm:NAME, got {name!r}")
    libraries, model = ((library,), model) if colon else (_LIBRARIES, name)
    missing, unknown = [], []
    for each in libraries:
        try:
            models = import_module("torchvision.models" if each == "torchvision" else "timm")
        except ImportError:
            missing.append(each)
            continue
        if model in models.list_models():
            return _torchvision(models, model) if each == "torchvision" else _timm(models, model)
        unknown.append(each)
    if missing:
        raise ImportError(f"ImageHasher: backbone {name!r} needs {' or '.join(missing)}: pip install {missing[0]}")
    raise ValueError(f"ImageHasher: there is no backbone {model!r} in {' or '.join(unknown)}")


def _torchvision(models: Any, name: str) -> nn.Module:
    module: nn.Module = models.get_model(name, weights=None)  # nothing is downloaded
    for last in _CLASSIFIERS:
        if isinstance(getattr(module, last, None), nn.Module):
            setattr(module, last, nn.Identity())
            return module
    raise ValueError(
        f"ImageHasher: cannot find the classifier of torchvision's {name}; pass the module without its classifier"
    )


def _timm(models: Any, name: str) -> nn.Module:
    module: nn.Module = models.create_model(name, pretrained=False, num_classes=0)
    return module


def _read_weights(module: nn.Module, path: str | PathLike[str]) -> None:
    """Gives a backbone the weights of a file; those of a classifier in it are left out."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"ImageHasher: {file}: no such file")
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zip files and torch
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"ImageHasher: {file} must be a state dict for torch.load(weights_only=True): {first}"
        ) from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(part, Tensor) for part in tensors.values()):
        raise ValueError(f"ImageHasher: {file} must hold a state dict of tensors, got {type(tensors).__name__}")
    own = module.state_dict()
    given = {name: part for name, part in tensors.items() if name in own or name.split(".")[0] not in _CLASSIFIERS}
    for name in sorted(own.keys() | given.keys()):
        there, here = (tuple(part[name].shape) if name in part else None for part in (given, own))
        if there != here:
            found, wanted = ("nothing" if shape is None else f"shape {list(shape)}" for shape in (there, here))
            raise ValueError(f"ImageHasher: {file} holds weights of another network: {name} is {found}, not {wanted}")
    module.load_state_dict(given)


def _features(module: nn.Module, size: int) -> int:
    """The width of what a network gives."""
    training = module.training
    with torch.no_grad():
        outputs = module.eval()(torch.zeros(2, 3, size, size))
    module.train(training)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"ImageHasher: backbone must give features [B, F], got {got}")
    return int(outputs.shape[1])
