"""The file of a trained Hasher: one safetensors file, with settings, hierarchy and class names as JSON inside."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from fasthash._arguments import one_device, whole
from fasthash._bit_weights import bit_weights
from fasthash._checkpoint import check_tensors, load_checkpoint, save_checkpoint
from fasthash.hierarchy import Hierarchy, Name
from fasthash.train.encoder import Squash, Standardize, encoder
from fasthash.train.pseudo_classes import PseudoClasses
from fasthash.train.settings import NOT_SAVED, checked
from fasthash.train.state import History
from fasthash.train.two_parts import two_part_encoder


@dataclass(frozen=True)
class Model:
    """The parts of a trained Hasher. settings: those of its `fit`, as `checked` gave them."""

    settings: dict[str, Any]
    module: nn.Module
    hidden: tuple[int, ...]
    classes: list[Name] | None
    features: int
    history: History
    names: list[str] | None = None  # of the features, where X of `fit` was a data frame
    bit_weights: list[tuple[int, int]] | None = None  # of the class part and the item part
    own_targets: bool = False  # whether y was None
    pseudo: PseudoClasses | None = None


def write_model(path: str | PathLike[str], model: Model) -> None:
    """Writes a model; see `Hasher.save`."""
    settings, history = model.settings, model.history
    loss = settings["loss"]  # a module is not saved, since it is not needed after training
    saved = {name: value for name, value in settings.items() if name not in NOT_SAVED}
    content = {
        "settings": saved | {"loss": type(loss).__name__ if isinstance(loss, nn.Module) else loss},
        "hierarchy": None if settings["hierarchy"] is None else settings["hierarchy"].to_dict(),
        "classes": model.classes,
        "features": model.features,
        "feature_names": model.names,
        "hidden": model.hidden,
        "bit_weights": model.bit_weights,
        "own_targets": model.own_targets,
        "pseudo_classes": _counts(model.pseudo),
        "losses": history.losses,
        "scores": [None if s is None or math.isnan(s) else s for s in history.scores],
        "best_epoch": history.best_epoch,
    }
    save_checkpoint(path, model.module.state_dict(), content)


def read_model(path: str | PathLike[str], defaults: Mapping[str, Any], device: torch.device | str | None) -> Model:
    """The model that `write_model` wrote, on `device` (None: the CPU); see `Hasher.load`.

    defaults: of all settings, for those that are younger than the file. Raises ValueError for a file that is damaged or
    of another kind, RuntimeError for a device that is not here.
    """
    tensors, content = load_checkpoint(path)
    place = one_device("cpu" if device is None else device, "Hasher.load")
    try:
        hierarchy = None if content["hierarchy"] is None else Hierarchy.from_dict(content["hierarchy"])
        given = {**defaults, **content["settings"], "hierarchy": hierarchy}
        settings = checked(given, "its settings")
        features, hidden = operator.index(content["features"]), tuple(content["hidden"])
        own = settings["loss"] is None
        weights = _bit_weights(content.get("bit_weights"), settings["bits"])
        with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
            more: dict[str, Any] = {"hidden": hidden, "dropout": settings["dropout"], "sigmoid": own}
            if weights:
                module: nn.Module = two_part_encoder(features, settings["bits"], weights[-1][0], **more)
            else:
                module = encoder(features, settings["bits"], **more)
            module = module if own else nn.Sequential(module, Squash())
            tensors = _fitted(tensors, module)
        check_tensors(tensors, module.state_dict())
        module.load_state_dict(tensors, assign=True)
        history = History(content["losses"], content["scores"], operator.index(content["best_epoch"]))
        names = content.get("feature_names")  # younger than the format
        if names is not None and not (len(names) == features and all(isinstance(name, str) for name in names)):
            raise ValueError(f"its feature_names are not {features} names")
        pseudo = _pseudo_classes(content.get("pseudo_classes"))
        network = module.to(place).eval()
        parts = weights, content.get("own_targets") is True, pseudo
        return Model(settings, network, hidden, content["classes"], features, history, names, *parts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Hasher.load: {path} is damaged or not a fasthash model: {error}") from None


def _bit_weights(content: Any, bits: int) -> list[tuple[int, int]] | None:
    """Checked: two groups that hold all bits; None for an undivided code, as in files without them."""
    if content is None:
        return None
    pairs = [(size, weight) for size, weight in content]
    bit_weights(pairs, "its content", math.ceil(bits / 8))
    if len(pairs) != 2 or sum(size for size, _ in pairs) != bits:
        raise ValueError(f"its bit_weights must be two groups of {bits} bits in all, got {pairs}")
    return pairs


def _counts(pseudo: PseudoClasses | None) -> dict[str, Any] | None:
    return None if pseudo is None else {"nearest": pseudo.nearest, "sizes": pseudo.sizes, "known": pseudo.known}


def _pseudo_classes(content: Any) -> PseudoClasses | None:
    if content is None:
        return None
    sizes = [whole(size, "its pseudo_classes", "sizes", 0) for size in content["sizes"]]
    if len(content["nearest"]) != len(sizes):
        raise ValueError(f"its pseudo_classes have {len(content['nearest'])} names and {len(sizes)} sizes")
    return PseudoClasses(
        None, list(content["nearest"]), sizes, whole(content["known"], "its pseudo_classes", "known", 0)
    )


def _fitted(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors as the module takes them: older files have no limit of inputs; one with several units has [F]."""
    name, standard = next((n, part) for n, part in module.named_modules() if isinstance(part, Standardize))
    deviation, limit = tensors.get(f"{name}.deviation"), f"{name}.limit"
    if deviation is not None and deviation.shape == standard.mean.shape:
        standard.deviation = torch.empty_like(standard.mean)
    return tensors if limit in tensors else tensors | {limit: torch.full(standard.mean.shape, torch.inf, device="cpu")}
