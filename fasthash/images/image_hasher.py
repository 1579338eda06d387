"""ImageHasher: from pictures with labels to binary codes, by a network that is trained from pixels on."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasthash._arguments import number, one_device, whole
from fasthash._checkpoint import IMAGES, check_tensors, load_checkpoint, save_checkpoint
from fasthash.hierarchy import Hierarchy
from fasthash.images.backbones import SMALL, Backbone, backbone, is_ours
from fasthash.images.files import image_files
from fasthash.images.labelled import LabelledImages, labelled_images
from fasthash.images.loader import ImageLoader
from fasthash.images.training import TrainingBatches
from fasthash.metrics import mean_average_precision
from fasthash.train import HashHead, History, Objective, encode, export, load_weights
from fasthash.train.checksum import fingerprint
from fasthash.train.loop import train
from fasthash.train.params import Params
from fasthash.train.randomness import seeded
from fasthash.train.supervision import Targets, read_targets

SOFT_LABELS = 0.1  # with a hierarchy: the better one of trials on networks from scratch (docs/method.md)


class ImageHasher(Params):
    """Learns binary codes of pictures: `fit` on a folder or table of them, `encode` for a folder.

    Args:
        bits: length of a code, 1 to 4096.
        hierarchy: a `Hierarchy` that holds every class.
        backbone: "small", a residual network that is trained from scratch; a model of torchvision or timm by name, such
            as "torchvision:resnet18", which is never downloaded; or an nn.Module, pictures [B, 3, size, size] in [0, 1]
            -> features [B, F].
        backbone_weights: a file of the backbone's state dict (`torch.load(weights_only=True)`); those of a classifier
            may be in it. None: random weights, or those of the module.
        backbone_lr: its highest learning rate, beside that of the head; None: `lr`. 0: it is frozen, norms too.
        size: pixels of a side of the squares that pictures become; None: 64 for "small", else 224.
        soft_labels: see `Objective`; None: 0.1 with a hierarchy, else 0.
        epochs, batch_size, lr, weight_decay, precision: see `fasthash.train.train`.
        start_from: a run folder, or a file of `save`, of the same network, whose weights this one begins with: more
            epochs for a run that has ended, say.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data continues an interrupted run.
        workers: processes that read pictures ahead. device: where to train; None: the CPU.
        seed: for weights, order, crops. progress: see `fasthash.train.train`.

    After `fit`: module_ (the network), classes_ (sorted names), history_, skipped_ (pictures that could not be read).

    >>> ImageHasher(bits=32, size=48)
    ImageHasher(bits=32, size=48)
    """

    def __init__(
        self,
        bits: int = 64,
        hierarchy: Hierarchy | None = None,
        *,
        backbone: str | nn.Module = SMALL,
        backbone_weights: str | PathLike[str] | None = None,
        backbone_lr: float | None = None,
        size: int | None = None,
        soft_labels: float | None = None,
        epochs: int = 15,
        batch_size: int = 64,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        precision: str = "float32",
        start_from: str | PathLike[str] | None = None,
        run_dir: str | PathLike[str] | None = None,
        workers: int = 0,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | str | None = None,
    ) -> None:
        self.bits = bits
        self.hierarchy = hierarchy
        self.backbone = backbone
        self.backbone_weights = backbone_weights
        self.backbone_lr = backbone_lr
        self.size = size
        self.soft_labels = soft_labels
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.precision = precision
        self.start_from = start_from
        self.run_dir = run_dir
        self.workers = workers
        self.device = device
        self.seed = seed
        self.progress = progress

    def fit(self, source: str | PathLike[str], validation: str | PathLike[str] | None = None) -> ImageHasher:
        """Trains on the pictures of a folder with a folder for each class, or of a table (see `labelled_images`).

        validation: pictures of the same kind. After about every fifth of the epochs each of their codes is searched
        among the others, and the weights with the best mean average precision are kept.

        Pictures that cannot be read are left out, and listed in skipped_. Raises ValueError or TypeError, naming the
        argument, for settings out of range, classes that are not in the hierarchy, fewer than 2 pictures;
        FloatingPointError where the loss becomes NaN.
        """
        bits = whole(self.bits, "ImageHasher", "bits", 1, 4096)
        size = self._size()
        batch_size = whole(self.batch_size, "ImageHasher", "batch_size", 2)
        lr = number(self.lr, "ImageHasher", "lr", above=0)
        backbone_lr = (
            lr if self.backbone_lr is None else number(self.backbone_lr, "ImageHasher", "backbone_lr", least=0)
        )
        place = one_device("cpu" if self.device is None else self.device, "ImageHasher")
        images = labelled_images(source)
        if len(images.keys) < 2:
            raise ValueError(f"ImageHasher.fit: needs at least 2 pictures, got {len(images.keys)}")
        targets = read_targets(images.labels, len(images.keys), None, self.hierarchy, "y", "ImageHasher.fit")
        if targets.unlabelled:
            raise ValueError("ImageHasher.fit: each picture must have a label, got some without")
        held_out = None if validation is None else labelled_images(validation)
        with seeded(self.seed, place):
            module = self._network(bits, size, frozen=backbone_lr == 0)
            if self.start_from is not None:
                _start(module, self.start_from)
            objective = self._objective(bits, targets)
            generator = torch.Generator().manual_seed(self.seed)
            batches = TrainingBatches(
                images.folder,
                images.keys,
                targets.values.long() if targets.classes is not None else targets.values.float(),
                size=size,
                batch_size=batch_size,
                workers=whole(self.workers, "ImageHasher", "workers", 0),
                generator=generator,
            )
            self.history_: History = train(
                module,
                batches,
                objective,
                epochs=self.epochs,
                lr=lr,
                weight_decay=self.weight_decay,
                precision=self.precision,
                score=None if held_out is None else lambda m: self._score(m, held_out, size),
                score_every=max(1, whole(self.epochs, "ImageHasher", "epochs", 1) // 5),
                run_dir=self.run_dir,
                config=self._config(images, size),
                optimizer=None
                if backbone_lr in (0, lr)
                else lambda m: _two_rates(m, lr, backbone_lr, self.weight_decay),
                device=place,
                progress=self.progress,
            )
        names = images.names if targets.classes is None else [str(name) for name in targets.classes]
        self._take(module, {"bits": bits, "size": size, "backbone": self._name()}, names)
        self.skipped_ = batches.skipped
        if self.run_dir is not None:
            self.save(Path(self.run_dir) / "model.safetensors")
        return self

    def encode(
        self,
        folder: str | PathLike[str],
        out: str | PathLike[str] | None = None,
        *,
        keys: list[str] | None = None,
        progress: bool | None = None,
    ) -> NDArray[np.uint8] | int:
        """Codes of the pictures of a folder, at any depth; keys are their paths in it (see `fasthash.train.encode`).

        keys: those to encode; None: all. Those that cannot be read are left out, and listed in skipped_. Raises
        NotFittedError before `fit`, and what `encode` raises.
        """
        module = self._fitted("encode")
        workers = whole(self.workers, "ImageHasher", "workers", 0)
        listed = image_files(folder) if keys is None else keys
        loader = ImageLoader(folder, listed, size=self._made["size"], batch_size=self.batch_size, workers=workers)
        found = encode(module, loader, out, device=self.device, progress=progress)
        self.skipped_ = loader.skipped
        return found

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trained network as one safetensors file. Raises NotFittedError before `fit`."""
        module = self._fitted("save")
        save_checkpoint(path, module.state_dict(), {**self._made, "classes": self.classes_}, IMAGES)

    def export(self, path: str | PathLike[str]) -> None:
        """Writes the network for programs without fasthash: x [N, 3, size, size] in [0, 1] (`fasthash.train.export`).

        Raises NotFittedError before `fit`, ValueError for another suffix than .onnx and .pt2, ImportError without the
        packages for ONNX.
        """
        module, size = self._fitted("export"), self._made["size"]
        export(module, path, torch.zeros(2, 3, size, size), about={**self._made, "classes": self.classes_})

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        backbone: str | nn.Module | None = None,
        device: torch.device | str | None = None,
    ) -> ImageHasher:
        """The ImageHasher that `save` wrote, on `device` (None: the CPU).

        backbone: what `fit` had, where that was not "small": nothing is imported because a file names it. Raises
        FileNotFoundError, and ValueError, naming the file, where the backbone is needed or another one, or the file is
        damaged.
        """
        tensors, content = load_checkpoint(path, IMAGES)
        named = content.get("backbone")
        if backbone is None and not is_ours(named):
            raise ValueError(
                f"ImageHasher.load: {path} has the backbone {named!r}: if you trust it, pass backbone= (--backbone)"
            )
        place = one_device("cpu" if device is None else device, "ImageHasher.load")
        try:
            bits, size = (whole(content[name], "its content", name, 1, 4096) for name in ("bits", "size"))
            hasher = cls(bits, backbone=SMALL if backbone is None else backbone, size=size, device=device)
            module = hasher._network(bits, size)
            check_tensors(tensors, module.state_dict())
            module.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"ImageHasher.load: {path} is damaged or of another backbone: {error}") from None
        made = {name: content[name] for name in ("bits", "size", "backbone")}
        hasher._take(module.to(place), made, content.get("classes"))
        return hasher

    def _take(self, module: nn.Module, made: dict[str, Any], classes: list[str] | None) -> None:
        self.module_, self._made, self.classes_ = module.eval(), made, classes

    def _size(self) -> int:
        usual = 64 if is_ours(self.backbone) else 224
        return usual if self.size is None else whole(self.size, "ImageHasher", "size", 8, 4096)

    def _name(self) -> str:
        return self.backbone if isinstance(self.backbone, str) else type(self.backbone).__name__

    def _network(self, bits: int, size: int, *, frozen: bool = False) -> nn.Sequential:
        body, features = backbone(self.backbone, size, self.backbone_weights)
        return nn.Sequential(Backbone(body, frozen), HashHead(features, bits, scale=1.0))

    def _objective(self, bits: int, targets: Targets) -> Objective:
        soft = (SOFT_LABELS if self.hierarchy is not None else 0.0) if self.soft_labels is None else self.soft_labels
        multilabel = targets.kind == "multilabel"
        temperatures: dict[str, Any] = {"temperature_y": 0.2, "temperature_z": 0.1} if multilabel else {}
        return Objective(
            bits,
            classes=targets.outputs,
            multilabel=multilabel,
            distance=targets.distance,
            soft_labels=soft,
            **temperatures,
        )

    def _score(self, module: nn.Module, images: LabelledImages, size: int) -> float:
        """Mean average precision of the validation pictures, each searched among the others."""
        loader = ImageLoader(images.folder, images.keys, size=size, batch_size=self.batch_size, workers=self.workers)
        place = {key: row for row, key in enumerate(images.keys)}
        parts, rows = [], []
        for x, keys in loader:
            parts.append(encode(module, [x], progress=False))
            rows += [place[key] for key in keys]
        labels = images.labels[rows]
        if labels.ndim == 1:
            labels = np.unique(labels, return_inverse=True)[1]
        codes = np.concatenate(parts)
        return float(mean_average_precision(codes, codes, labels, labels, exclude_self=True))

    def _config(self, images: LabelledImages, size: int) -> dict[str, Any]:
        names = ("bits", "backbone_lr", "soft_labels", "batch_size", "seed")
        weights = None if self.backbone_weights is None else str(self.backbone_weights)
        started = None if self.start_from is None else str(self.start_from)
        pictures = "\n".join([*images.keys, *map(str, images.labels.tolist())])
        own = {name: getattr(self, name) for name in names}
        made = {"size": size, "backbone": self._name(), "backbone_weights": weights, "start_from": started}
        return {"images": own | made, "data": {"pictures": len(images.keys), "checksum": fingerprint(pictures)}}


def _start(module: nn.Module, path: str | PathLike[str]) -> None:
    """Gives the network the weights of a run, or of a file of `save`."""
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    try:
        tensors, _ = load_checkpoint(file, IMAGES)
    except ValueError:
        load_weights(module, path)  # a run of fasthash.train
        return
    try:
        check_tensors(tensors, module.state_dict())
    except ValueError as error:
        raise ValueError(f"ImageHasher.fit: start_from {file} is of another network: {error}") from None
    module.load_state_dict(tensors)


def _two_rates(module: nn.Module, lr: float, backbone_lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with a rate for the backbone and one for the head; weight decay of matrices only."""
    groups = []
    for part, rate in zip(module.children(), (backbone_lr, lr), strict=True):
        own = [p for p in part.parameters() if p.requires_grad]
        for matrices in (True, False):
            chosen = [p for p in own if (p.dim() >= 2) == matrices]
            groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay if matrices else 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]])
