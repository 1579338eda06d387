"""CrossModalHasher: from pairs of embeddings of two modalities to codes that find each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasthash._arguments import number, one_device, whole
from fasthash._arrays import like
from fasthash._checkpoint import CROSS_MODAL, check_tensors, load_checkpoint, save_checkpoint
from fasthash.codes import pack_bits
from fasthash.losses.published import MultilevelTripletLoss
from fasthash.train.batches import shuffled_batches
from fasthash.train.checksum import fingerprint
from fasthash.train.encoder import Squash, Standardize
from fasthash.train.features import Features, check_finite, read_features, scan
from fasthash.train.loop import run
from fasthash.train.pair_encoder import FEWEST, PairEncoder, PairLoss, SideBySide
from fasthash.train.params import Params
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import Plan, optional
from fasthash.train.randomness import seeded
from fasthash.train.settings import NETWORK, NOT_SAVED, RUN, Limits, checked
from fasthash.train.state import History
from fasthash.train.supervision import Targets, read_targets
from fasthash.train.validation import output_blocks

OWNER = "CrossModalHasher"
SIDES = ("first", "second")
EPOCHS, STEPS = 15, 900  # with epochs=None: the least numbers of passes and of steps
TRIPLET = 3  # rows

LIMITS: Limits = {
    **RUN,
    **NETWORK,
    "delta": optional(partial(number, least=0)),
    "pseudo": partial(number, least=0),
    "pairing": partial(number, least=0),
    "quantization": partial(number, least=0),
    "epochs": optional(PLAN["epochs"]),
    "batch_size": partial(whole, low=TRIPLET),
}


class CrossModalHasher(Params):
    """Learns codes of two modalities that search each other: images and texts, questions and answers, ratings and tags.

    Row i of `first` and row i of `second` are two views of one thing, embeddings of any two widths. Each modality has
    its own encoder. Rows with many labels in common get near codes, in both modalities; rows with none get codes that
    are at least delta bits apart.

    Args:
        bits: length of a code, 1 to 4096.
        delta: bits between rows without a label in common; None: the Gilbert-Varshamov distance for one code for each
            different label set (`losses.code_distance_bounds`).
        pseudo: for a batch of B rows, pseudo x B codes are fused from two or three others and stand for rare label
            sets; 0: none.
        pairing: weight of the distance between the two codes of a row. quantization: of outputs that are not -1 or 1.
        hidden: widths of hidden layers of each encoder; (): linear ones. dropout: after each.
        epochs: passes over the rows; None: at least 15 passes and 900 steps.
        batch_size: rows of a step, at least 3 (all rows, if there are fewer). lr, weight_decay: of AdamW.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data continues an interrupted run, to the same codes.
        device: where to train, "cpu" or "cuda"; None: where a tensor of first is, else the CPU.
        seed: for weights, order and pseudo-codes. The same data, seed, machine and number of threads give the same
            codes on the CPU. Global generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    After `fit`: module_ (both encoders), classes_ (sorted, None for multi-hot labels), n_features_ (widths of first and
    second), history_ (losses by epoch).

    Source: RMSH (Song, Zhao, Tan & Yang, "Deep robust multilevel semantic cross-modal hashing", Pattern Recognition
    2021). There is no public code. The formulas of the loss, and all defaults, are ours: `MultilevelTripletLoss` says
    how sure each part is.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(90) % 3
    >>> images = rng.normal(size=(90, 20)) + 3 * np.eye(3, 20)[y]
    >>> texts = rng.normal(size=(90, 12)) + 3 * np.eye(3, 12)[y]
    >>> hasher = CrossModalHasher(bits=16, epochs=40, progress=False).fit(images, texts, y)
    >>> codes = hasher.encode_first(images), hasher.encode_second(texts)
    >>> codes[0].shape, codes[1].shape
    ((90, 2), (90, 2))
    >>> import fasthash
    >>> found = fasthash.hamming_topk(codes[1], codes[0], 5).ids  # of each text the nearest images
    >>> bool((y[found] == y[:, None]).mean() > 0.9)
    True
    """

    def __init__(
        self,
        bits: int = 64,
        *,
        delta: float | None = None,
        pseudo: float = 0.5,
        pairing: float = 0.1,
        quantization: float = 0.01,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.15,
        epochs: int | None = None,
        batch_size: int = 256,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.delta = delta
        self.pseudo = pseudo
        self.pairing = pairing
        self.quantization = quantization
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.run_dir = run_dir
        self.device = device
        self.seed = seed
        self.progress = progress

    def fit(self, first: Any, second: Any, y: Any) -> CrossModalHasher:
        """Trains on pairs: row i of first [N, F1] and of second [N, F2], any numeric types, belong together.

        A row with only NaN marks a missing modality of a pair: training still uses the other one.

        y: multi-hot labels [N, L], integers or booleans; or class labels [N], integers or strings. Without a label
        (None, NaN, -1, or a multi-hot row of zeros) a row teaches only that its two codes belong together.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for data that do
        not fit: different numbers of rows, a row with some NaN, a pair that lacks both. FloatingPointError: the loss
        became NaN or infinite. Warns (UserWarning) of values that are absurdly far out: they count as the mean of their
        column.
        """
        function = f"{OWNER}.fit"
        settings = checked(self.get_params(), function, LIMITS)
        given = [read_features(X, "fit", name, owner=OWNER) for X, name in zip((first, second), SIDES, strict=True)]
        present = _present(given, function)
        in_folder = settings["run_dir"] is not None
        sides = [_scanned(*each, in_folder) for each in zip(given, present.unbind(1), SIDES, strict=True)]
        targets, words = _targets(y, len(present), function)
        size = min(settings["batch_size"], len(present))
        order = torch.Generator().manual_seed(settings["seed"])
        rows = SideBySide(*given)
        batches = shuffled_batches(rows, targets.values, present, batch_size=size, generator=order)
        device = torch.device(given[0].device if settings["device"] is None else settings["device"])
        with seeded(settings["seed"], device):
            module = PairEncoder(sides, settings["bits"], settings["hidden"], settings["dropout"])
            loss = {name: settings[name] for name in ("delta", "pseudo", "pairing", "quantization")}
            history = run(
                module,
                batches,
                PairLoss(MultilevelTripletLoss(settings["bits"], words=words, **loss)),
                Plan(
                    epochs=settings["epochs"] or max(EPOCHS, math.ceil(STEPS / len(batches))),
                    lr=settings["lr"],
                    weight_decay=settings["weight_decay"],
                ),
                device,
                run_dir=settings["run_dir"],
                config=_config(settings, sides, present, targets) if in_folder else None,
                progress=settings["progress"],
            )
        self._take(settings, module.eval(), targets.classes, history)
        if in_folder:
            self.save(Path(settings["run_dir"]) / "model.safetensors")
        return self

    def transform_first(self, X: Any) -> Any:
        """Outputs float32 [N, bits] in [0, 1] of rows X [N, F1] of the first modality: numpy, or a tensor for a tensor.

        Raises NotFittedError before `fit`, ValueError for another number of features than in `fit`, NaN or infinity.
        """
        return like(torch.cat(list(self._outputs(X, 0, "transform_first"))), X)

    def transform_second(self, X: Any) -> Any:
        """As `transform_first`, of rows X [N, F2] of the second modality."""
        return like(torch.cat(list(self._outputs(X, 1, "transform_second"))), X)

    def encode_first(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of rows X [N, F1], or of one row [F1], of the first modality.

        `pack_bits(transform_first(X))`, a block at a time. Codes of both modalities compare with one another.
        """
        return like(torch.cat(list(map(pack_bits, self._outputs(X, 0, "encode_first", one=True)))), X)

    def encode_second(self, X: Any) -> Any:
        """As `encode_first`, of rows X [N, F2], or of one row [F2], of the second modality."""
        return like(torch.cat(list(map(pack_bits, self._outputs(X, 1, "encode_second", one=True)))), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes both encoders as one safetensors file, with the settings of `fit` and class names as JSON inside.

        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        module = self._fitted("save")
        content = {
            "settings": {name: value for name, value in self._settings.items() if name not in NOT_SAVED},
            "features": self.n_features_,
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "losses": self.history_.losses,
        }
        save_checkpoint(path, module.state_dict(), content, CROSS_MODAL)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> CrossModalHasher:
        """The CrossModalHasher that `save` wrote, on `device` (None: the CPU): it gives the same codes.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is damaged, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, CROSS_MODAL)
        place = one_device("cpu" if device is None else device, CROSS_MODAL.load)
        try:
            settings = checked({**cls().get_params(), **content["settings"]}, "its settings", LIMITS)
            first, second = (whole(width, "its content", "features", 1) for width in content["features"])
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                module = PairEncoder((first, second), settings["bits"], settings["hidden"], settings["dropout"])
            for name, part in module.named_modules():  # some have a deviation for each feature
                deviation = tensors.get(f"{name}.deviation")
                if isinstance(part, Standardize) and deviation is not None and deviation.shape == part.mean.shape:
                    part.deviation = torch.empty_like(part.mean)
            check_tensors(tensors, module.state_dict())
            module.load_state_dict(tensors, assign=True)
            losses = [float(loss) for loss in content["losses"]]
            hasher = cls(**{**settings, "device": device})
            history = History(losses, [None] * len(losses), len(losses))
            hasher._take(settings, module.to(place).eval(), content["classes"], history)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{CROSS_MODAL.load}: {path} is damaged or not a fasthash {CROSS_MODAL.noun}: {error}"
            ) from None
        return hasher

    def _take(self, settings: dict[str, Any], module: PairEncoder, classes: list[Any] | None, history: History) -> None:
        self._settings, self.module_, self.history_ = settings, module, history
        self.classes_ = None if classes is None else np.array(classes)
        self.n_features_ = tuple(module.widths)

    def _outputs(self, X: Any, side: int, method: str, *, one: bool = False) -> Iterator[Tensor]:
        module = self._fitted(method)
        rows = read_features(X, method, "X", one=one, owner=OWNER)
        if rows.shape[1] != module.widths[side]:
            raise ValueError(f"{OWNER}.{method}: X must have {module.widths[side]} features, got {rows.shape[1]}")
        network = nn.Sequential(module.encoders[side], Squash())
        start = 0
        for block in output_blocks(network, rows, next(module.parameters()).device):
            given = rows[start : start + len(block)].float()
            check_finite(rows, bool(torch.isfinite(given).all() & torch.isfinite(block).all()), method, "X", OWNER)
            start += len(block)
            yield block


def _present(given: list[Tensor], function: str) -> Tensor:
    """Which modalities each pair has, boolean [N, 2]: a row of NaN says that it lacks one."""
    rows = len(given[0])
    if len(given[1]) != rows:
        raise ValueError(f"{function}: second must have a row for each of the {rows} of first, got {len(given[1])}")
    if rows < TRIPLET:
        raise ValueError(f"{function}: first must have at least {TRIPLET} rows, a triplet, got {rows}")
    present = torch.stack([~torch.cat([part.isnan().all(1) for part in X.split(1 << 14)]).cpu() for X in given], 1)
    for name, count in zip(SIDES, present.sum(0).tolist(), strict=True):
        if count < FEWEST:
            raise ValueError(f"{function}: {name} must have at least {FEWEST} rows that are not missing, got {count}")
    if not present.any(1).all():
        row = int((~present.any(1)).nonzero()[0])
        raise ValueError(f"{function}: a pair must have a row of first or of second, got NaN in both in row {row}")
    return present


def _scanned(rows: Tensor, present: Tensor, name: str, checksum: bool) -> Features:
    """Scans the rows that are not missing, and warns of values far out."""
    there = rows if bool(present.all()) else rows[present.to(rows.device)]
    features = scan(there, name, checksum=checksum, owner=OWNER)
    features.warn(f"{OWNER}.fit", name)
    return features


def _targets(y: Any, rows: int, function: str) -> tuple[Targets, int]:
    """Class labels or multi-hot labels, and how many different label sets there are."""
    if y is None:
        raise TypeError(f"{function}: y must be class labels or multi-hot labels, got None")
    targets = read_targets(y, rows, None, None, function=function)
    if targets.kind == "embedding":
        raise ValueError(f"{function}: y must be class labels or multi-hot integers, got 2-D floating point")
    if targets.classes is not None:
        return targets, len(targets.classes)
    labelled = targets.values[targets.values.bool().any(1)]
    if not len(labelled):
        raise ValueError(f"{function}: y must have a label in at least one row, got none in {rows} rows")
    return targets, len(labelled.unique(dim=0))


def _config(settings: dict[str, Any], sides: list[Features], present: Tensor, targets: Targets) -> dict[str, Any]:
    """What identifies a run: settings, and checksums of the data."""
    data = {
        "shape": [len(present), *(side.rows.shape[1] for side in sides)],
        **{name: side.checksum for name, side in zip(SIDES, sides, strict=True)},
        "present": fingerprint(present),
        "y": fingerprint(targets.values, repr(targets.classes)),
    }
    return {"cross_modal_hasher": {name: v for name, v in settings.items() if name not in NOT_SAVED}, "data": data}
