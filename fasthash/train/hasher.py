"""Hasher: from embeddings to binary codes, in scikit-learn's manners."""

from __future__ import annotations

import copy
import inspect
import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasthash import distributed
from fasthash._arrays import like, to_tensor
from fasthash.baselines import itq
from fasthash.codes import pack_bits
from fasthash.hierarchy import Hierarchy, Name
from fasthash.losses.published import LOSSES
from fasthash.targets import class_levels
from fasthash.train.batches import shuffled_batches
from fasthash.train.checkpoint import check_tensors, load_checkpoint, save_checkpoint
from fasthash.train.drawn_rows import DrawnRows
from fasthash.train.encoder import Squash, encoder, feature_scales, set_weights, without_sigmoid
from fasthash.train.features import check_finite, read_features
from fasthash.train.loop import History, train
from fasthash.train.neighbor_batches import nearest_rows
from fasthash.train.objective import Objective
from fasthash.train.randomness import seeded
from fasthash.train.run_folder import fingerprint
from fasthash.train.supervision import Targets, read_targets, read_validation
from fasthash.train.validation import output_blocks, retrieval_score

MAX_BITS = 4096
# With epochs=None a run has at least so many passes and so many steps: small sets need more passes.
EPOCHS, STEPS = 15, 900
# What settings left at None mean, by kind of target. Labels have few distances, spread over [0, 1]; near neighbours by
# cosine have small ones. A linear map of an embedding keeps the neighbours of that embedding better than a deep one.
TEMPERATURE_Y = {"labels": 0.15, "multilabel": 0.2, "embedding": 0.05}
TEMPERATURE_Z = {"labels": 0.1, "multilabel": 0.1, "embedding": 0.03}
HIDDEN = (512, 512)
KL = {"labels": 0.1, "multilabel": 0.1, "embedding": 0.3}
PRESERVE = {"temperature_x": 0.15, "temperature_xz": 0.05}
NEIGHBORS = 16
ITQ_ROWS = 20_000
# Settings that say where and how to run, not what is learned, and the hierarchy, which is saved in a form of its own.
NOT_SAVED = ("hierarchy", "device", "progress", "compile", "workers", "run_dir")


class Hasher:
    """Learns binary codes of embeddings: `fit`, then `transform` (outputs in [0, 1]) or `encode` (packed codes).

    The targets y of `fit` say what near means:

    - 1-D integers or strings: class labels. Distances are those of the `hierarchy`, or 0 and 1 without one.
    - 2-D integers or booleans: multi-hot labels. 2-D floating point: target embeddings (of captions, say), by cosine.
    - None: the cosine distances of X itself. Those of X - X.mean(0), given as y with hidden=(), serve better where the
      mean is far from 0 (docs/method.md).

    Args:
        bits: length of a code, 1 to 4096.
        hierarchy: a `Hierarchy` that holds every label of y.
        target: "labels", "multilabel" or "embedding" where the type of y does not tell; None: it does.
        supervision: "full", or "similarity": only distances between targets are used, never which class a row is of.
        loss: None for this package's objective, which the next eight settings describe; or one of
            `fasthash.losses.published`, by name ("csq", see `LOSSES`) or as a module (a copy of it is trained along):
            then these settings have no meaning.
        classification: weight of a linear classifier's loss (labels and multi-hot labels; else it is left out).
        soft_labels: 0, or with class labels a temperature above 0: the classifier's targets are softmax(-distance / it)
            over the classes, so that a near class is the smaller mistake (see `Objective`).
        similarity: form of the similarity term, "listwise" or "stress". similarity_weight: its weight.
        kl: weight of the KL term, None: 0.1 for labels, 0.3 for embeddings; kl_k: by which neighbours (see `kl_loss`).
        preserve: weight of a term that keeps the neighbours of X - X.mean(0) by cosine; 7, with similarity_weight 2 and
            kl 2, helps much with classes that were never trained on, at some cost for the others. draws: for each row
            of a batch so many random ones are added (`fasthash.train.drawn_rows`), which only kl and preserve see: a
            step costs 1 + draws.
        neighbors: for embeddings: a batch is made of groups of so many rows, a random one and others of its 64 nearest
            by target, since random batches hold nearly no neighbours; 1: batches are random; None: 16.
        init: what a linear encoder begins with, "random" or "itq", the codes of `fasthash.baselines.itq` of up to
            20,000 rows (bits must not exceed the features then).
        temperature_y, temperature_z: of targets and outputs in listwise terms (see `listwise_loss`); None: 0.15
            and 0.1 for labels, 0.2 and 0.1 for multi-hot labels, 0.05 and 0.03 for embeddings.
        hidden: widths of hidden layers, () for a linear encoder; None: (512, 512), with y=None (). dropout: after each.
        epochs: passes over the rows; None: 15, or as many as make 900 steps.
        batch_size: rows of a step (all of them, where X has fewer).
        lr, weight_decay: of AdamW, precision, ema, compile: see `fasthash.train.train`.
        patience: stop when so many epochs in a row had no better validation score (then taken after each epoch).
        workers: processes that read batches ahead, for memory-mapped features on a slow disk.
        run_dir: folder of the run (see `fasthash.train.train`), in the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data goes on where that run was interrupted, to the same weights.
        device: where to train, "cpu" or "cuda"; None: where X is.
        seed: of weights, order and sampling. The same data, seed, machine and number of threads give the same weights
            on the CPU. Global generators are left as they were.
        progress: show a bar on stderr; None: where stderr is a terminal.

    A weight of 0 leaves a term out. After `fit`: module_ (the network), classes_ (sorted, None without class labels),
    n_features_in_, hidden_ (widths), history_ (losses and validation scores by epoch), best_epoch_.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["cat", "dog"], 50)
    >>> X = rng.normal(size=(100, 8)) + 3 * (y == "cat")[:, None]
    >>> hasher = Hasher(bits=16, epochs=5, seed=0).fit(X, y)
    >>> hasher.transform(X).shape, hasher.encode(X).shape
    ((100, 16), (100, 2))
    """

    def __init__(
        self,
        bits: int = 64,
        hierarchy: Hierarchy | None = None,
        *,
        target: str | None = None,
        supervision: str = "full",
        loss: str | nn.Module | None = None,
        classification: float = 1.0,
        soft_labels: float = 0.0,
        similarity: str = "listwise",
        similarity_weight: float = 1.0,
        kl: float | None = None,
        kl_k: int = 1,
        preserve: float = 0.0,
        draws: int = 1,
        neighbors: int | None = None,
        init: str = "random",
        temperature_y: float | None = None,
        temperature_z: float | None = None,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.15,
        epochs: int | None = None,
        batch_size: int = 256,
        lr: float = 4e-3,
        weight_decay: float = 1e-2,
        precision: str = "float32",
        ema: float = 0.0,
        patience: int | None = None,
        compile: bool = False,
        workers: int = 0,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.hierarchy = hierarchy
        self.target = target
        self.supervision = supervision
        self.loss = loss
        self.classification = classification
        self.soft_labels = soft_labels
        self.similarity = similarity
        self.similarity_weight = similarity_weight
        self.kl = kl
        self.kl_k = kl_k
        self.preserve = preserve
        self.draws = draws
        self.neighbors = neighbors
        self.init = init
        self.temperature_y = temperature_y
        self.temperature_z = temperature_z
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.precision = precision
        self.ema = ema
        self.patience = patience
        self.compile = compile
        self.workers = workers
        self.run_dir = run_dir
        self.device = device
        self.seed = seed
        self.progress = progress

    # ---- learning

    def fit(self, X: Any, y: Any = None, validation: tuple[Any, Any] | None = None, *, group: Any = None) -> Hasher:
        """Trains on the rows of X [N, F] (any numeric type; memory-mapped arrays are read a batch at a time).

        validation=(Xv, yv), yv of the kind of y (None with y=None): about five times during training codes of Xv are
        searched in codes of X (of at most 3,000 and 20,000 sampled rows), and the weights of the best epoch are kept.
        The score, exact over ties: mAHP@250 for labels, mAP@250 for multi-hot labels, for embeddings the part of the
        10 nearest by target that is among the 10 nearest by code. validation=None: nothing is held out, and the
        weights are those of the last epoch.

        group: a torch.distributed process group, every rank of which calls this with the same data and settings: each
        takes its part of every batch, and all end with the weights that one process would have, but for rounding and
        for dropout, which each rank draws for itself.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for data that
        do not fit them: NaN, another number of rows in y than in X, labels that are not in the hierarchy.
        FloatingPointError: the loss became NaN or infinite.
        """
        self._check_settings()
        rows = read_features(X, "fit", "X")
        if len(rows) < 2:
            raise ValueError(f"Hasher.fit: X must have at least 2 rows, got {len(rows)}")
        mean, deviation = feature_scales(rows)
        check_finite(rows, bool(torch.isfinite(mean).all() & torch.isfinite(deviation)), "fit", "X")
        targets = self._targets(y, rows)
        batch_size = min(operator.index(self.batch_size), len(rows))
        if self.loss is None and self.kl != 0 and self.kl_k > batch_size - 1:
            raise ValueError(
                f"Hasher.fit: kl_k must be between 1 and {batch_size - 1} (the others of a batch), got {self.kl_k}"
            )
        rank, world = distributed.rank(group), distributed.world_size(group)
        if batch_size < 2 * world:
            raise ValueError(f"Hasher.fit: batch_size must be at least {2 * world}, 2 rows a rank, got {batch_size}")
        if self.patience is not None and validation is None:
            raise ValueError(f"Hasher.fit: patience needs validation, got patience {self.patience} and no validation")
        hidden = (() if y is None else HIDDEN) if self.hidden is None else tuple(self.hidden)
        device = torch.device(rows.device if self.device is None else self.device)
        score = self._score(validation, rows, targets, device)
        order = torch.Generator().manual_seed(operator.index(self.seed))
        loader = shuffled_batches(
            rows,
            targets.values,
            batch_size=batch_size,
            generator=order,
            nearest=self._nearest(targets, order),
            group=NEIGHBORS if self.neighbors is None else operator.index(self.neighbors),
            workers=self.workers,
            rank=rank,
            world=world,
        )
        drawn: DrawnRows | None = None
        if self.preserve and self.loss is None:
            draws, seed = operator.index(self.draws) * batch_size, operator.index(self.seed)
            drawn = DrawnRows(loader, rows, mean, draws=draws, seed=seed, rank=rank, world=world)
        epochs = self.epochs or max(EPOCHS, math.ceil(STEPS / len(loader)))
        with seeded(operator.index(self.seed), device):
            module = encoder(
                rows.shape[1],
                self.bits,
                hidden=hidden,
                dropout=self.dropout,
                mean=mean,
                deviation=deviation,
                sigmoid=self.loss is None,
            )
            if self.init == "itq":
                set_weights(module, self._itq_weights(rows, hidden))
            squashed = module if self.loss is None else nn.Sequential(module, Squash())
            history = train(
                module,
                loader if drawn is None else drawn,
                self._objective(targets) if self.loss is None else self._baseline(self.loss, targets),
                epochs=epochs,
                lr=self.lr,
                weight_decay=self.weight_decay,
                score=None if score is None else lambda _: score(squashed),
                score_every=max(1, epochs // 5) if self.patience is None else 1,
                patience=self.patience,
                precision=self.precision,
                ema=self.ema,
                run_dir=self.run_dir,
                config=None if self.run_dir is None else self._run_config(rows, mean, deviation, targets, validation),
                compile=self.compile,
                group=group,
                device=device,
                progress=self.progress,
            )
        self._set_fitted(squashed.eval(), hidden, targets.classes, rows.shape[1], history)
        if self.run_dir is not None and rank == 0:
            self.save(Path(self.run_dir) / "model.safetensors")
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """fit(X, y), then transform(X)."""
        return self.fit(X, y).transform(X)

    # ---- use

    def transform(self, X: Any) -> Any:
        """Outputs float32 [N, bits] in [0, 1] of the rows of X [N, F]: numpy for numpy, else a tensor on X's device.

        Raises RuntimeError before `fit`, ValueError for another number of features than in `fit`, NaN or infinity.
        """
        return like(torch.cat(list(self._outputs(X))), X)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of the rows of X: `pack_bits(transform(X))`, a block at a time."""
        return like(torch.cat([pack_bits(block) for block in self._outputs(X)]), X)

    def queries(self, X: Any) -> Any:
        """Queries float32 [N, bits] in [0, 1] for `HammingIndex.search(..., rescore=f)`; rounded, they are the codes.

        They are the outputs before the sigmoid, scaled about 0.5, a row's largest to 0 or 1: by how much a bit could
        turn, which saturated outputs no longer tell. Of captions they find more (docs/results.md, task d).
        """
        module = self._fitted("queries")
        layers = module if self._settings["loss"] is None else module[0]
        plain = without_sigmoid(*layers.children())
        u = torch.cat(list(self._outputs(X, plain, "queries")))
        return like(0.5 + 0.5 * u / u.abs().amax(1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny), X)

    # ---- storage

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trained model as one safetensors file, with settings, hierarchy and class names as JSON inside.

        The settings are those of `fit`, whatever `set_params` has changed since.
        A file that is there is replaced only when the new one is on the disk. Raises RuntimeError before `fit`.
        """
        module = self._fitted("save")
        settings = self._settings  # those of `fit`: others may have been set since
        content = {
            "settings": {n: _plain(v) for n, v in settings.items() if n not in NOT_SAVED} | self._saved_loss(),
            "hierarchy": None if settings["hierarchy"] is None else settings["hierarchy"].to_dict(),
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "features": self.n_features_in_,
            "hidden": [operator.index(width) for width in self.hidden_],
            "losses": self.history_.losses,
            "scores": [None if s is None or math.isnan(s) else s for s in self.history_.scores],
            "best_epoch": self.best_epoch_,
        }
        save_checkpoint(path, module.state_dict(), content)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> Hasher:
        """The Hasher that `save` wrote, on `device` (None: the CPU): it gives the same outputs and codes.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path)
        try:
            settings = dict(content["settings"])
            if settings["hidden"] is not None:
                settings["hidden"] = tuple(settings["hidden"])
            hierarchy = None if content["hierarchy"] is None else Hierarchy.from_dict(content["hierarchy"])
            hasher = cls(hierarchy=hierarchy, device=device, **settings)
            hasher._check_settings()
            features, hidden = operator.index(content["features"]), tuple(content["hidden"])
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                own = hasher.loss is None
                module = encoder(features, hasher.bits, hidden=hidden, dropout=hasher.dropout, sigmoid=own)
                module = module if own else nn.Sequential(module, Squash())
            check_tensors(tensors, module.state_dict())
            module.load_state_dict(tensors, assign=True)
            history = History(content["losses"], content["scores"], operator.index(content["best_epoch"]))
            hasher._set_fitted(module.to(device or "cpu").eval(), hidden, content["classes"], features, history)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"Hasher.load: {path} is damaged or not a fasthash model: {error}") from None
        return hasher

    # ---- scikit-learn's manners

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as given."""
        return {name: getattr(self, name) for name in inspect.signature(Hasher.__init__).parameters if name != "self"}

    def set_params(self, **params: Any) -> Hasher:
        """Changes settings by name; they count from the next `fit`. Raises ValueError for unknown names."""
        known = self.get_params()
        for name in params:
            if name not in known:
                raise ValueError(f"Hasher.set_params: {name!r} is not one of {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags  # scikit-learn is what calls this

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(),
        )

    def __repr__(self) -> str:
        defaults = inspect.signature(Hasher.__init__).parameters
        changed = (f"{name}={v!r}" for name, v in self.get_params().items() if v is not defaults[name].default)
        return f"Hasher({', '.join(changed)})"

    # ---- inside

    def _check_settings(self) -> None:
        for name, low, high in (
            ("bits", 1, MAX_BITS),
            ("kl_k", 1, 64),
            ("batch_size", 2, math.inf),
            ("draws", 0, math.inf),
            ("neighbors", 1, math.inf),
            ("epochs", 1, math.inf),
            ("patience", 1, math.inf),
            ("workers", 0, math.inf),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if name in ("epochs", "neighbors", "patience") and value is None:
                continue
            try:
                value = operator.index(value)
            except TypeError:
                raise TypeError(f"Hasher.fit: {name} must be an integer, got {value!r}") from None
            if not low <= value <= high:
                limit = f"at least {low}" if high == math.inf else f"between {low} and {high}"
                raise ValueError(f"Hasher.fit: {name} must be {limit}, got {value}")
        for name, allowed in (
            ("supervision", ("full", "similarity")),
            ("similarity", ("listwise", "stress")),
            ("init", ("random", "itq")),
        ):
            if getattr(self, name) not in allowed:
                choice = " or ".join(f'"{value}"' for value in allowed)
                raise ValueError(f"Hasher.fit: {name} must be {choice}, got {getattr(self, name)!r}")
        if self.loss is not None and not isinstance(self.loss, (str, nn.Module)):
            raise TypeError(f"Hasher.fit: loss must be a name, a module or None, got {type(self.loss).__name__}")
        for name in ("classification", "similarity_weight", "kl", "preserve", "soft_labels"):
            value = getattr(self, name)
            if name == "kl" and value is None:
                continue
            if not isinstance(value, (int, float, np.number)):
                raise TypeError(f"Hasher.fit: {name} must be a number, got {value!r}")
            if not 0 <= value < math.inf:
                kind = "temperature" if name == "soft_labels" else "weight"
                raise ValueError(f"Hasher.fit: {name} must be a {kind} >= 0, got {value!r}")
        for name in ("temperature_y", "temperature_z"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"Hasher.fit: {name} must be > 0, got {value!r}")
        try:
            widths = () if self.hidden is None else tuple(operator.index(width) for width in self.hidden)
        except TypeError:
            raise TypeError(f"Hasher.fit: hidden must be a sequence of integers, got {self.hidden!r}") from None
        if min(widths, default=1) < 1:
            raise ValueError(f"Hasher.fit: hidden sizes must be at least 1, got {self.hidden!r}")
        if self.hierarchy is not None and not isinstance(self.hierarchy, Hierarchy):
            raise TypeError(f"Hasher.fit: hierarchy must be a fasthash.Hierarchy, got {type(self.hierarchy).__name__}")

    def _run_config(
        self, rows: Tensor, mean: Tensor, deviation: Tensor, targets: Targets, validation: tuple[Any, Any] | None
    ) -> dict[str, Any]:
        """What tells one run from another: the settings, and checksums of hierarchy and data."""
        settings = {name: value for name, value in self.get_params().items() if name not in NOT_SAVED}
        hierarchy = None if self.hierarchy is None else self.hierarchy.to_dict()
        data = {"shape": list(rows.shape), "X": fingerprint(rows, mean, deviation), "y": _fingerprint_of(targets)}
        data["hierarchy"] = fingerprint(json.dumps(hierarchy))
        if validation is not None:
            held_out = to_tensor(validation[0])
            data["validation_X"] = fingerprint(held_out)
            if validation[1] is not None:
                found = read_targets(validation[1], len(held_out), targets.kind, None)
                data["validation_y"] = _fingerprint_of(found)
        return {"hasher": settings, "data": data}

    def _targets(self, y: Any, rows: Tensor) -> Targets:
        if y is not None:
            return read_targets(y, len(rows), self.target, self.hierarchy)
        if self.target not in (None, "embedding"):
            raise ValueError(f"Hasher.fit: target {self.target!r} needs y, got None")
        if self.hierarchy is not None:
            raise ValueError("Hasher.fit: a hierarchy needs class labels y, got None")
        return Targets("embedding", rows)

    def _score(
        self, validation: tuple[Any, Any] | None, rows: Tensor, targets: Targets, device: torch.device
    ) -> Callable[[nn.Module], float] | None:
        if validation is None:
            return None
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(f"Hasher.fit: validation must be a pair (Xv, yv), got {type(validation).__name__}")
        held_out = read_features(validation[0], "fit", "validation X")
        if not len(held_out):
            raise ValueError("Hasher.fit: validation X must have at least 1 row, got 0")
        if held_out.shape[1] != rows.shape[1]:
            raise ValueError(f"Hasher.fit: validation X must have {rows.shape[1]} features, got {held_out.shape[1]}")
        check_finite(held_out, bool(torch.isfinite(feature_scales(held_out)[1])), "fit", "validation X")
        if (validation[1] is None) != (targets.values is rows):
            raise ValueError("Hasher.fit: validation needs yv where y is given, and None where it is not")
        query = Targets("embedding", held_out)
        if validation[1] is not None:
            query = read_validation(targets, validation[1], len(held_out), self.hierarchy)
        return retrieval_score(held_out, query, rows, targets.values, device, operator.index(self.seed))

    def _nearest(self, targets: Targets, generator: torch.Generator) -> Tensor | None:
        """The nearest rows by target, where batches are made of neighbours."""
        if targets.kind != "embedding":
            if self.neighbors not in (None, 1):
                raise ValueError(f"Hasher.fit: neighbors needs target embeddings, got target {targets.kind!r}")
            return None
        return None if self.neighbors == 1 else nearest_rows(targets.values, generator)

    def _itq_weights(self, rows: Tensor, hidden: tuple[int, ...]) -> Tensor:
        """The directions [bits, F] of ITQ of some of the rows."""
        if hidden or self.bits > rows.shape[1]:
            got = f"hidden {hidden}, {self.bits} bits and {rows.shape[1]} features"
            raise ValueError(f'Hasher.fit: init "itq" is for hidden=() and no more bits than features, got {got}')
        generator = torch.Generator().manual_seed(operator.index(self.seed))
        chosen = torch.randperm(len(rows), generator=generator)[:ITQ_ROWS].sort().values
        return itq(rows[chosen.to(rows.device)].float(), self.bits, seed=operator.index(self.seed)).weights.T

    def _objective(self, targets: Targets) -> Objective:
        classified = self.supervision == "full" and targets.outputs > 0
        kl = KL[targets.kind] if self.kl is None else self.kl
        if not any((classified and self.classification, self.similarity_weight, kl, self.preserve)):
            raise ValueError(f"Hasher.fit: a term that applies to target {targets.kind!r} must have a weight above 0")
        return Objective(
            self.bits,
            classes=targets.outputs if classified else 0,
            multilabel=targets.kind == "multilabel",
            distance=targets.distance,
            classification=self.classification if classified else 0.0,
            soft_labels=self.soft_labels,
            similarity=self.similarity,
            similarity_weight=self.similarity_weight,
            kl=kl,
            kl_k=self.kl_k,
            preserve=self.preserve,
            **PRESERVE,
            temperature_y=TEMPERATURE_Y[targets.kind] if self.temperature_y is None else self.temperature_y,
            temperature_z=TEMPERATURE_Z[targets.kind] if self.temperature_z is None else self.temperature_z,
        ).float()

    def _baseline(self, loss: str | nn.Module, targets: Targets) -> nn.Module:
        """The loss of `loss=`: a copy of the module, or what the name stands for, with the sizes that it asks for."""
        if isinstance(loss, nn.Module):
            return copy.deepcopy(loss).float()
        if loss not in LOSSES:
            raise ValueError(f"Hasher.fit: loss must be a module or one of {', '.join(LOSSES)}, got {loss!r}")
        known: dict[str, Any] = {"bits": self.bits}
        if targets.distances is not None:
            known |= {"classes": targets.outputs, "levels": class_levels(targets.distances)}
        wanted = inspect.signature(LOSSES[loss].__init__).parameters
        missing = [name for name in ("classes", "levels") if name in wanted and name not in known]
        if any(wanted[name].default is inspect.Parameter.empty for name in missing):
            raise ValueError(f"Hasher.fit: loss {loss!r} needs class labels y, got target {targets.kind!r}")
        return LOSSES[loss](**{name: value for name, value in known.items() if name in wanted}).float()

    def _saved_loss(self) -> dict[str, Any]:
        """The setting `loss` for a file: modules are not saved, since they are not needed after training."""
        loss = self._settings["loss"]
        return {"loss": type(loss).__name__ if isinstance(loss, nn.Module) else loss}

    def _set_fitted(
        self,
        module: nn.Sequential,
        hidden: tuple[int, ...],
        classes: list[Name] | None,
        features: int,
        history: History,
    ) -> None:
        self._settings = self.get_params()
        self.module_ = module
        self.hidden_ = hidden
        self.classes_ = None if classes is None else np.array(classes)
        self.n_features_in_ = features
        self.history_ = history
        self.best_epoch_ = history.best_epoch

    def _outputs(self, X: Any, module: nn.Module | None = None, method: str = "transform") -> Iterator[Tensor]:
        """Outputs of the rows of X, of `module` or of the whole network, a block at a time."""
        network = self._fitted(method)
        rows = read_features(X, method, "X")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"Hasher.{method}: X must have {self.n_features_in_} features, got {rows.shape[1]}")
        for block in output_blocks(module or network, rows, _device_of(network)):
            check_finite(rows, bool(torch.isfinite(block).all()), method, "X")
            yield block

    def _fitted(self, method: str) -> nn.Sequential:
        if not hasattr(self, "module_"):
            raise RuntimeError(f"Hasher.{method}: call fit first (or Hasher.load)")
        return self.module_


def _fingerprint_of(targets: Targets) -> str:
    return fingerprint(targets.values, json.dumps(targets.classes))


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _plain(value: Any) -> Any:
    """Settings as JSON holds them: numpy numbers become Python's."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value
