"""CIMON: from two views of every row, without labels, to codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fasthash._arguments import number, one_device, whole
from fasthash._arrays import like, to_tensor
from fasthash._checkpoint import CIMON as KIND
from fasthash._checkpoint import check_tensors, load_checkpoint, save_checkpoint
from fasthash.codes import pack_bits
from fasthash.train.batches import shuffled_batches
from fasthash.train.checksum import fingerprint
from fasthash.train.encoder import HashHead, Squash, Standardize, encoder
from fasthash.train.features import check_finite, read_features, scan
from fasthash.train.loop import run
from fasthash.train.params import Params
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import Plan, optional
from fasthash.train.randomness import seeded
from fasthash.train.settings import HIDDEN, NETWORK, RUN, Limits, checked
from fasthash.train.state import History
from fasthash.train.two_views import BothRows, InViews, MinedSimilarityLoss, Noisy, View, mine_views
from fasthash.train.validation import output_blocks

OWNER = "CIMON"
FEWEST = 20  # rows
EPOCHS, STEPS = 20, 900  # with epochs=None: the least numbers of passes and of steps
BLOCK = 1024  # rows that are encoded at once


def _views(value: Any, function: str, name: str) -> tuple[View, ...] | None:
    if value is None:
        return None
    views = (value, value) if callable(value) else tuple(value) if isinstance(value, Sequence) else ()
    if not 1 <= len(views) <= 2 or not all(map(callable, views)):
        raise TypeError(f"{function}: {name} must be a function of a batch, or one or two of them, got {value!r}")
    return views


def _backbone(value: Any, function: str, name: str) -> nn.Module | None:
    if value is not None and not isinstance(value, nn.Module):
        raise TypeError(f"{function}: {name} must be a module or None, got {type(value).__name__}")
    return value


def _yes_or_no(value: Any, function: str, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return value


def _function(value: Any, function: str, name: str) -> Callable[[Tensor], Tensor]:
    if not callable(value):
        raise TypeError(f"{function}: {name} must be a function of a batch or None, got {type(value).__name__}")
    return value  # type: ignore[no-any-return]


LIMITS: Limits = {
    **RUN,
    **NETWORK,
    "backbone": _backbone,
    "views": _views,
    "noise": partial(number, least=0),
    "features": optional(_function),
    "similar": partial(number, above=0, below=1),
    "clusters": partial(whole, low=0),
    "confidence": _yes_or_no,
    "contrast": partial(number, least=0),
    "temperature": partial(number, above=0),
    "epochs": optional(PLAN["epochs"]),
}
NOT_SAVED = ("backbone", "views", "features", "device", "progress", "run_dir")


class CIMON(Params):
    """Learns codes without labels, from two views of every row: random crops of an image, two captions of a picture.

    Before training, pairs of rows are mined from features of both views: near rows are similar, others are not. The
    confidence of a pair follows from the distribution of distances; pairs that spectral clusters contradict do not
    count. Then codes of both views are trained to have these similarities, and to tell the other view of a row from all
    other rows.

    Args:
        bits: length of a code, 1 to 4096.
        backbone: a module, rows [B, ...] of any type -> [B, F], under its own head; a copy of it is trained. None: rows
            are features [N, F], and the network is that of `Hasher`, with `hidden` and `dropout`.
        views: two functions, batch [B, ...] -> batch, which make the two views; one function: it makes both; a tuple of
            one: a single view, without the second and its terms. None: with `second`, rows do not change; for features
            alone, noise of `noise` standard deviations. A backbone needs views or `second`.
        features: a function, batch of a view [B, ...] -> [B, F]: pairs are mined from these features by their cosine;
            None: the view itself, feature rows standardised. It gets each row and view once.
        similar: part of all pairs that counts as similar.
        clusters: number of clusters of the refinement, at most one for ten rows; 0: none. They need scikit-learn.
        confidence: whether pairs count by their confidence; False: all count the same.
        contrast, temperature: weight and temperature of the contrastive term.
        epochs: passes over the rows; None: at least 20 passes and 900 steps.
        batch_size: rows of a step (all rows, if X has fewer). lr, weight_decay: of AdamW.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings, functions of the same name and the same data goes on where that run was
            interrupted, to the same codes.
        device: where to train, "cpu" or "cuda"; None: on the device of X.
        seed: for weights, order, views and mining. The same data, seed, machine and number of threads give the same
            codes on the CPU. Global generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    After `fit`: module_ (the network), mined_ (for each view the `MinedPairs`), n_features_in_ (of feature rows),
    history_ (losses by epoch).

    CIMON: `MinedSimilarityLoss` and `mine` have the formulas. The loss, the confidence and the refinement follow the
    authors' public code. Ours: the threshold by a part of all pairs (theirs is 0.1, for features of one network),
    clusters of a graph of nearest neighbours, noise as a view of features, network, AdamW and epochs.

    >>> X = torch.randn(6, 32).repeat(20, 1) + 0.3 * torch.randn(120, 32)
    >>> hasher = CIMON(bits=16, clusters=6, similar=0.15, epochs=5, progress=False).fit(X)
    >>> hasher.encode(X[:2]).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        bits: int = 64,
        *,
        backbone: nn.Module | None = None,
        views: View | Sequence[View] | None = None,
        noise: float = 0.3,
        features: Callable[[Tensor], Tensor] | None = None,
        similar: float = 0.05,
        clusters: int = 70,
        confidence: bool = True,
        contrast: float = 0.3,
        temperature: float = 0.5,
        hidden: Sequence[int] = HIDDEN,
        dropout: float = 0.15,
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.backbone = backbone
        self.views = views
        self.noise = noise
        self.features = features
        self.similar = similar
        self.clusters = clusters
        self.confidence = confidence
        self.contrast = contrast
        self.temperature = temperature
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

    def fit(self, X: Any, second: Any = None, y: Any = None) -> CIMON:
        """Trains on the rows of X: features [N, F] of any numeric type, or what the backbone takes, [N, ...].

        second: the second view of every row, of the shape of X; None: `views` make both of X. y is not used.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for data that do
        not fit. FloatingPointError: the loss became NaN or infinite. Warns of feature values that lie absurdly far out,
        as `Hasher.fit` does.
        """
        function = f"{OWNER}.fit"
        settings = checked(self.get_params(), function, LIMITS)
        seed, run_dir, backbone = settings["seed"], settings["run_dir"], settings["backbone"]
        sides = [self._rows(X, "fit", "X")] + ([] if second is None else [self._rows(second, "fit", "second")])
        rows, both = sides[0], second is not None
        if len(rows) < FEWEST:
            raise ValueError(f"{function}: X must have at least {FEWEST} rows, got {len(rows)}")
        if both and sides[1].shape != rows.shape:
            raise ValueError(f"{function}: second must have the shape of X, {[*rows.shape]}, got {[*sides[1].shape]}")
        scales: dict[str, Any] = {}
        for side, name in zip(sides, ("X", "second"), strict=False) if backbone is None else ():
            found = scan(side, name, checksum=False, owner=OWNER)
            found.warn(function, name)
            scales = scales or {"mean": found.mean, "deviation": found.deviation, "limit": found.limit}
        views = settings["views"] or self._usual_views(scales, both)
        if both and len(views) == 1:
            raise ValueError(f"{function}: views must be two if second is given, got 1")
        device = torch.device(rows.device if settings["device"] is None else settings["device"])
        order = torch.Generator().manual_seed(seed)
        column = BothRows(*sides) if both else rows
        size = min(settings["batch_size"], len(rows))
        batches = shuffled_batches(column, torch.arange(len(rows)), batch_size=size, generator=order)
        config = None if run_dir is None else _config(settings, sides)
        with seeded(seed, device):
            network = self._network(rows, settings, scales).to(device)
            mined = mine_views(
                column,
                views,
                settings["features"] or _usual_features(scales, rows.shape[-1]),
                device,
                confident=settings["confidence"],
                **{name: settings[name] for name in ("similar", "clusters", "seed")},
            )
            history = run(
                InViews(network, views, both),
                batches,
                MinedSimilarityLoss(mined, contrast=settings["contrast"], temperature=settings["temperature"]),
                Plan(
                    epochs=settings["epochs"] or max(EPOCHS, math.ceil(STEPS / len(batches))),
                    lr=settings["lr"],
                    weight_decay=settings["weight_decay"],
                ),
                device,
                run_dir=run_dir,
                config=config,
                progress=settings["progress"],
            )
        self.mined_ = mined
        self._take(settings, network.eval(), rows.shape[1] if backbone is None else None, history)
        if run_dir is not None:
            self.save(Path(run_dir) / "model.safetensors")
        return self

    def transform(self, X: Any) -> Any:
        """Outputs float32 [N, bits] in [0, 1] of the rows of X: numpy for numpy, else a tensor on X's device.

        Raises NotFittedError before `fit`, ValueError for another number of features than in `fit`, NaN or infinity.
        """
        return like(torch.cat(list(self._outputs(X, "transform"))), X)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of the rows of X: `pack_bits(transform(X))`.

        Without a backbone one row may be [F]; its code is [1, ceil(bits / 8)].
        """
        return like(torch.cat(list(map(pack_bits, self._outputs(X, "encode")))), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the network as one safetensors file, with settings as JSON inside; functions and backbone's code stay.

        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        tensors = self._fitted("save").state_dict()
        content = {
            "settings": {name: value for name, value in self._settings.items() if name not in NOT_SAVED},
            "features": self.n_features_in_,
            "width": cast(HashHead, self.module_[-2]).linear.in_features,
            "losses": self.history_.losses,
        }
        save_checkpoint(path, tensors, content, KIND)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        backbone: nn.Module | None = None,
        device: torch.device | str | None = None,
    ) -> CIMON:
        """The CIMON that `save` wrote, on `device` (None: the CPU): it gives the same codes.

        backbone: a module like the one of the file, where it has one; a copy gets the weights of the file. Raises
        FileNotFoundError, and ValueError, naming the file, for one that is damaged, of another kind, of an unknown
        version or of another backbone. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, KIND)
        place = one_device("cpu" if device is None else device, KIND.load)
        features = content.get("features")
        if (features is None) == (backbone is None):
            there, given = ("a", "none") if features is None else ("no", "one")
            raise ValueError(f"{KIND.load}: {path} holds a network with {there} backbone, got {given}")
        try:
            settings = checked({**cls().get_params(), **content["settings"]}, "its settings", LIMITS)
            if backbone is None:
                width = whole(features, "its content", "features", 1)
                with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                    network = _feature_network(width, settings, {})
                    if tensors["0.deviation"].dim():  # features of several units
                        network[0].deviation = torch.empty(width, dtype=torch.float32)
            else:
                network = _with_head(
                    copy.deepcopy(backbone), whole(content["width"], "its content", "width", 1), settings["bits"]
                )
            check_tensors(tensors, network.state_dict())
            network.load_state_dict(tensors, assign=backbone is None)
            losses = [float(loss) for loss in content["losses"]]
            hasher = cls(**{**settings, "backbone": backbone, "device": device})
            history = History(losses, [None] * len(losses), len(losses))
            hasher._take(settings, network.to(place).eval(), features, history)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{KIND.load}: {path} is damaged or not a fasthash {KIND.noun}: {error}") from None
        return hasher

    def _take(self, settings: dict[str, Any], network: nn.Sequential, features: int | None, history: History) -> None:
        self._settings, self.module_, self.n_features_in_, self.history_ = settings, network, features, history

    def _rows(self, X: Any, method: str, name: str, *, one: bool = False) -> Tensor:
        if self.backbone is None:
            return read_features(X, method, name, one=one, owner=OWNER)
        rows = to_tensor(X, f"{OWNER}.{method}", name)
        if rows.dim() < 2:
            raise ValueError(f"{OWNER}.{method}: {name} must have shape [N, ...], got {[*rows.shape]}")
        return rows.detach()

    def _usual_views(self, scales: dict[str, Any], both: bool) -> tuple[View, ...]:
        if both:
            return _as_it_is, _as_it_is
        if self.backbone is not None:
            raise ValueError(f"{OWNER}.fit: views or second must be given where there is a backbone, got neither")
        noisy = Noisy(self.noise * scales["deviation"])
        return noisy, noisy

    def _network(self, rows: Tensor, settings: dict[str, Any], scales: dict[str, Any]) -> nn.Sequential:
        if settings["backbone"] is None:
            return _feature_network(rows.shape[1], settings, scales)
        backbone = copy.deepcopy(settings["backbone"]).cpu().eval()
        with torch.no_grad():
            found = backbone(rows[:2].cpu())
        if found.dim() != 2:
            raise ValueError(f"{OWNER}.fit: backbone must give [B, F] for rows [B, ...], got {[*found.shape]}")
        return _with_head(backbone, found.shape[1], settings["bits"])

    def _outputs(self, X: Any, method: str) -> Iterator[Tensor]:
        module = self._fitted(method)
        rows = self._rows(X, method, "X", one=method == "encode")
        if self.n_features_in_ is not None and rows.shape[1] != self.n_features_in_:
            raise ValueError(f"{OWNER}.{method}: X must have {self.n_features_in_} features, got {rows.shape[1]}")
        start = 0
        for block in output_blocks(module, rows, next(module.parameters()).device, BLOCK):
            given = rows[start : start + len(block)].float()
            check_finite(rows, bool(torch.isfinite(given).all() & torch.isfinite(block).all()), method, "X", OWNER)
            start += len(block)
            yield block


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _usual_features(scales: dict[str, Any], width: int) -> View:
    """The scaler of feature rows, where values far out become 0; for other rows a function that flattens them."""
    return Standardize(width, **scales) if scales else partial(torch.flatten, start_dim=1)


def _feature_network(features: int, settings: dict[str, Any], scales: dict[str, Any]) -> nn.Sequential:
    layers = encoder(
        features, settings["bits"], hidden=settings["hidden"], dropout=settings["dropout"], sigmoid=False, **scales
    )
    return nn.Sequential(*layers, Squash())


def _with_head(backbone: nn.Module, width: int, bits: int) -> nn.Sequential:
    return nn.Sequential(backbone, HashHead(width, bits, scale=1.0, sigmoid=False), Squash())


def _config(settings: dict[str, Any], sides: list[Tensor]) -> dict[str, Any]:
    """What identifies a run: settings, names of functions, and checksums of data and of the backbone."""
    backbone = settings["backbone"]
    data = {"X": fingerprint(*sides)}
    if backbone is not None:
        data["backbone"] = fingerprint(*backbone.state_dict().values())
    functions = {
        "views": [_name(view) for view in settings["views"] or ()],
        "features": _name(settings["features"]),
    }
    return {"cimon": {n: v for n, v in settings.items() if n not in NOT_SAVED}, "functions": functions, "data": data}


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
