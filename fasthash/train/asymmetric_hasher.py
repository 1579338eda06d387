"""AsymmetricHasher: from embeddings with class labels to codes, where those of the training rows are free variables."""

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

from fasthash._arguments import choice, number, one_device, whole
from fasthash._arrays import like
from fasthash._checkpoint import ASYMMETRIC, check_tensors, load_checkpoint, save_checkpoint
from fasthash.baselines import itq, lsh
from fasthash.codes import pack_bits
from fasthash.train.asymmetric_loss import AsymmetricLoss, CodeRounds
from fasthash.train.batches import shuffled_batches
from fasthash.train.checksum import fingerprint
from fasthash.train.encoder import encoder
from fasthash.train.features import Features, check_finite, read_features, scan
from fasthash.train.loop import run
from fasthash.train.params import Params
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import Plan, optional
from fasthash.train.randomness import seeded
from fasthash.train.settings import HIDDEN, NETWORK, NOT_SAVED, RUN, Limits, checked
from fasthash.train.state import History
from fasthash.train.supervision import Targets, read_targets
from fasthash.train.threads import short_waits
from fasthash.train.validation import output_blocks, outputs

STEPS = 900  # with rounds=None: the least number of steps; LEAST: of rounds
LEAST = 5
START_ROWS = 20_000  # that the first codes are learned from
PRIORS = ("class", "row")

LIMITS: Limits = {
    **RUN,
    **NETWORK,
    "first": partial(number, least=0),
    "second": partial(number, least=0),
    "ridge": partial(number, above=0),
    "quantization": partial(number, least=0),
    "affinity": partial(number, least=0),
    "prior": partial(choice, allowed=PRIORS),
    "rounds": optional(partial(whole, low=1)),
    "epochs": PLAN["epochs"],
}


class AsymmetricHasher(Params):
    """Learns codes of embeddings from class labels. Codes of the training rows are free, not made by the network.

    Training goes in rounds. First the codes of the training rows are fitted to their labels and to the outputs of the
    network, one bit of all rows at a time; no such step raises the loss. Then the network learns to come near the codes
    of a row's class. `codes_` are the codes of the training rows: a database. `encode` gives the codes of queries and
    of later rows.

    `codes_` were fitted to the labels, so a search in them finds more than a search in codes of rows that were not in
    training. To measure how good codes are, search `encode` of one set in `encode` of another.

    Args:
        bits: length of a code, 1 to 4096.
        first: weight of the regression from codes to classes. second: weight of the regression to the classes that a
            row is not of. ridge: weight of the squares of their matrices.
        quantization: weight of the distance between outputs and codes. prior: "class": to all codes of the row's class;
            "row": to the row's own code.
        affinity: weight of the distance between the outputs of one class in a batch.
        rounds: how often codes are fitted before training steps; None: at least 5 rounds and 900 steps. epochs: passes
            over the rows in a round.
        hidden: widths of hidden layers, () for a linear encoder. dropout: after each.
        batch_size: rows of a step (all rows, if X has fewer). lr, weight_decay: of AdamW.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data continues an interrupted run, to the same codes.
        device: where to train, "cpu" or "cuda"; None: on the device of X.
        seed: for weights, order and first codes. The same data, seed, machine and number of threads give the same codes
            on the CPU. Global generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    After `fit`: codes_ (uint8 [N, ceil(bits / 8)], of the training rows in their order), module_ (the network),
    classes_ (sorted), n_features_in_, history_ (losses by epoch).

    DSAH: `fasthash.train.asymmetric_loss.AsymmetricLoss` has the formulas as they were reconstructed here, the source,
    and how sure each part is. Rounds, epochs and the network are ours.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["cat", "dog"], 50)
    >>> X = rng.normal(size=(100, 8)) + 3 * (y == "cat")[:, None]
    >>> hasher = AsymmetricHasher(bits=16, rounds=5, progress=False).fit(X, y)
    >>> hasher.codes_.shape, hasher.encode(X[:2]).shape
    ((100, 2), (2, 2))
    """

    def __init__(
        self,
        bits: int = 64,
        *,
        first: float = 1.0,
        second: float = 1.0,
        ridge: float = 1.0,
        quantization: float = 1.0,
        affinity: float = 0.1,
        prior: str = "class",
        rounds: int | None = None,
        epochs: int = 3,
        hidden: Sequence[int] = HIDDEN,
        dropout: float = 0.15,
        batch_size: int = 256,
        lr: float = 4e-3,
        weight_decay: float = 1e-2,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.first = first
        self.second = second
        self.ridge = ridge
        self.quantization = quantization
        self.affinity = affinity
        self.prior = prior
        self.rounds = rounds
        self.epochs = epochs
        self.hidden = hidden
        self.dropout = dropout
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.run_dir = run_dir
        self.device = device
        self.seed = seed
        self.progress = progress

    @short_waits()
    def fit(self, X: Any, y: Any) -> AsymmetricHasher:
        """Trains on the rows of X [N, F] (any numeric type) and their class labels y [N], integers or strings.

        Every row needs a label. Raises ValueError or TypeError, naming argument, limit and value, for settings out of
        range and for data that do not fit. FloatingPointError: the loss became NaN or infinite. Warns of values of X
        that lie absurdly far out, as `Hasher.fit` does.
        """
        function = "AsymmetricHasher.fit"
        settings = checked(self.get_params(), function, LIMITS)
        if not settings["quantization"] and not settings["affinity"]:
            raise ValueError(f"{function}: quantization or affinity must be above 0, got 0 for both")
        rows = read_features(X, "fit", "X", owner="AsymmetricHasher")
        if len(rows) < 2:
            raise ValueError(f"{function}: X must have at least 2 rows, got {len(rows)}")
        run_dir, seed = settings["run_dir"], settings["seed"]
        features = scan(rows, "X", checksum=run_dir is not None, owner="AsymmetricHasher")
        targets = _targets(y, len(rows), function)
        features.warn(function, "X")
        device = torch.device(rows.device if settings["device"] is None else settings["device"])
        batches = shuffled_batches(
            rows,
            torch.arange(len(rows)),
            batch_size=min(settings["batch_size"], len(rows)),
            generator=torch.Generator().manual_seed(seed),
        )
        loss = AsymmetricLoss(
            first_codes(features, settings["bits"], seed).to(device),
            targets.values.to(device),
            **{name: settings[name] for name in ("first", "second", "ridge", "quantization", "affinity", "prior")},
        )
        count = settings["rounds"] or max(LEAST, math.ceil(STEPS / (settings["epochs"] * len(batches))))
        with seeded(seed, device):
            module = _encoder(rows.shape[1], settings, features)
            rounds = CodeRounds(batches, module, loss, lambda: outputs(module, rows, device), settings["epochs"])
            history = run(
                module,
                rounds,
                loss,
                Plan(
                    epochs=count * settings["epochs"],
                    lr=settings["lr"],
                    weight_decay=settings["weight_decay"],
                ),
                device,
                run_dir=run_dir,
                config=None if run_dir is None else _config(settings, features, targets),
                progress=settings["progress"],
            )
            rounds.fit_codes()
        codes = pack_bits((loss.codes > 0).float()).numpy(force=True)
        self._take(settings, module.eval(), codes, targets.classes or [], rows.shape[1], history)
        if run_dir is not None:
            self.save(Path(run_dir) / "model.safetensors")
        return self

    def transform(self, X: Any) -> Any:
        """Outputs float32 [N, bits] in [0, 1] of the rows of X [N, F]: numpy for numpy, else a tensor on X's device.

        Raises NotFittedError before `fit`, ValueError for another number of features than in `fit`, NaN or infinity.
        """
        return like(torch.cat(list(self._outputs(X, "transform"))), X)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of the rows of X, by the network: `pack_bits(transform(X))`.

        One row may be [F]; its code is [1, ceil(bits / 8)]. Those of training rows may differ from `codes_`.
        """
        return like(torch.cat(list(map(pack_bits, self._outputs(X, "encode")))), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes network and `codes_` as one safetensors file, with settings and class names as JSON inside.

        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        tensors = {f"network.{name}": value for name, value in self._fitted("save").state_dict().items()}
        content = {
            "settings": {name: value for name, value in self._settings.items() if name not in NOT_SAVED},
            "features": self.n_features_in_,
            "classes": self.classes_.tolist(),
            "losses": self.history_.losses,
        }
        save_checkpoint(path, tensors | {"codes": torch.from_numpy(self.codes_)}, content, ASYMMETRIC)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> AsymmetricHasher:
        """The AsymmetricHasher that `save` wrote, its network on `device` (None: the CPU): it gives the same codes.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is damaged, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, ASYMMETRIC)
        place = one_device("cpu" if device is None else device, ASYMMETRIC.load)
        try:
            settings = checked({**cls().get_params(), **content["settings"]}, "its settings", LIMITS)
            features, codes = whole(content["features"], "its content", "features", 1), tensors.pop("codes")
            check_tensors({"codes": codes}, {"codes": _no_codes(len(codes), settings["bits"])})
            network = {name.removeprefix("network."): value for name, value in tensors.items()}
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                module = _encoder(features, settings)
                if network["0.deviation"].dim():  # features of several units
                    module[0].deviation = torch.empty(features, dtype=torch.float32)
            check_tensors(network, module.state_dict())
            module.load_state_dict(network, assign=True)
            losses = [float(loss) for loss in content["losses"]]
            history = History(losses, [None] * len(losses), len(losses))
            hasher = cls(**{**settings, "device": device})
            hasher._take(settings, module.to(place).eval(), codes.numpy(), list(content["classes"]), features, history)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{ASYMMETRIC.load}: {path} is damaged or not a fasthash {ASYMMETRIC.noun}: {error}"
            ) from None
        return hasher

    def _take(
        self,
        settings: dict[str, Any],
        module: nn.Module,
        codes: Any,
        classes: list[Any],
        features: int,
        history: History,
    ) -> None:
        self._settings = settings
        self.module_, self.codes_, self.history_ = module, codes, history
        self.classes_, self.n_features_in_ = np.array(classes), features

    def _outputs(self, X: Any, method: str) -> Iterator[Tensor]:
        module = self._fitted(method)
        rows = read_features(X, method, "X", one=method == "encode", owner="AsymmetricHasher")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"AsymmetricHasher.{method}: X must have {self.n_features_in_} features, got {rows.shape[1]}"
            )
        start = 0
        for block in output_blocks(module, rows, next(module.parameters()).device):
            given = rows[start : start + len(block)].float()  # the network takes infinity for a value far out
            finite = bool(torch.isfinite(given).all() and torch.isfinite(block).all())
            check_finite(rows, finite, method, "X", "AsymmetricHasher")
            start += len(block)
            yield block


def first_codes(features: Features, bits: int, seed: int) -> Tensor:
    """The first codes of the rows, bool [N, bits]: ITQ; with more bits than features, random hyperplanes."""
    rows, standard = features.rows, features.standard
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:START_ROWS].sort().values
    learn = itq if bits <= rows.shape[1] else lsh
    found = learn(standard(rows[chosen.to(rows.device)].float()), bits, seed=seed)
    return torch.cat([found.transform(standard(block.float())) > 0 for block in rows.split(START_ROWS)])


def _encoder(features: int, settings: dict[str, Any], data: Features | None = None) -> nn.Sequential:
    scales: dict[str, Any] = (
        {} if data is None else {"mean": data.mean, "deviation": data.deviation, "limit": data.limit}
    )
    return encoder(features, settings["bits"], hidden=settings["hidden"], dropout=settings["dropout"], **scales)


def _no_codes(rows: int, bits: int) -> Tensor:
    return torch.empty(rows, math.ceil(bits / 8), dtype=torch.uint8, device="meta")


def _targets(y: Any, rows: int, function: str) -> Targets:
    """Class labels, one for each row."""
    if y is None:
        raise ValueError(f"{function}: y must have a class label for each row, got None")
    targets = read_targets(y, rows, "labels", None, function=function)
    if targets.unlabelled:
        row = int((targets.values < 0).nonzero()[0])
        raise ValueError(f"{function}: y must have a class label for each row, got none in row {row}")
    return targets


def _config(settings: dict[str, Any], features: Features, targets: Targets) -> dict[str, Any]:
    """What identifies a run: settings, and checksums of the data."""
    data = {
        "shape": list(features.rows.shape),
        "X": features.checksum,
        "y": fingerprint(targets.values, repr(targets.classes)),
    }
    return {
        "asymmetric_hasher": {name: value for name, value in settings.items() if name not in NOT_SAVED},
        "data": data,
    }
