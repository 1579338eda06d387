"""Hasher: from embeddings to binary codes, as a scikit-learn estimator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasthash import distributed
from fasthash._arguments import choice
from fasthash._arrays import like
from fasthash._moved import moved_names
from fasthash.baselines.rows import codes_of
from fasthash.codes import pack_bits
from fasthash.hierarchy import Hierarchy
from fasthash.train.adaptation import adapted
from fasthash.train.encoder import Squash, without_sigmoid
from fasthash.train.estimator import (
    OUTPUTS,
    check_column_names,
    check_input_features,
    column_names,
    in_frame,
    output_kind,
)
from fasthash.train.export import export
from fasthash.train.features import check_finite, read_features, scan
from fasthash.train.fit_parts import fit_batches, fit_network, fit_objective
from fasthash.train.loop import run
from fasthash.train.model_file import Model, read_model, write_model
from fasthash.train.output_scales import METRICS, bit_factors, output_scales
from fasthash.train.params import Params
from fasthash.train.plan import Plan, warn_slow
from fasthash.train.pseudo_classes import with_pseudo_classes
from fasthash.train.randomness import seeded
from fasthash.train.run_config import run_config
from fasthash.train.settings import checked, completed
from fasthash.train.supervision import targets_of
from fasthash.train.threads import short_waits
from fasthash.train.two_parts import TwoPartEncoder, bit_weights
from fasthash.train.validation import output_blocks, own_score, read_held_out, retrieval_score

# With epochs=None: the least number of passes, and the least number of steps. Small sets need more passes, and so do
# two-part codes. An encoder without hidden layers also gets more steps, because its steps cost little.
EPOCHS, STEPS, TWO_PART_STEPS, LINEAR_STEPS = 15, 900, 1500, 5400
# Codes that start from ITQ get one pass if there are fewer rows than this for each feature: more passes overfit, and
# find less than ITQ itself.
ROWS_PER_FEATURE = 5


class Hasher(Params):
    """Learns binary codes of embeddings: `fit`, then `transform` (outputs in [0, 1]) or `encode` (packed codes).

    The targets y of `fit` say what near means:

    - 1-D integers or strings, or one column of them: class labels. Distances are those of the `hierarchy`, or 0 and 1
      without one. None, NaN and -1 mark rows without a label: they get classes, known or new ones
      (`fasthash.train.pseudo_classes`).
    - 2-D integers or booleans: multi-hot labels, compared by the number of labels that they share
      (`fasthash.targets.shared_label_distances`; with similarity "stress" by their cosine).
    - 2-D floating point: target embeddings (for example of captions), compared by cosine.
    - None: the cosine distances of X - X.mean(0).

    Args:
        bits: length of a code, 1 to 4096.
        hierarchy: a `Hierarchy` that holds every label of y.
        item_bits: number of bits at the end of a code that order the rows inside a class; below `bits`. 0: the code is
            undivided. It must be 0 without class labels, and with loss, preserve or init "itq". None: five sixteenths
            of the bits from 64 bits on, if codes can be divided.
        target: "labels", "multilabel" or "embedding" if the type of y does not tell; None: the type of y decides.
        supervision: "full", or "similarity": train only with distances between targets, not with the classes.
        loss: None for this package's objective, which the next eight settings describe; or one of
            `fasthash.losses.published`, by name ("csq", see `LOSSES`) or as a module (a copy of it is trained too):
            then these settings have no effect.
        classification: weight of a linear classifier's loss (only with labels and multi-hot labels).
        soft_labels: 0, or with class labels a temperature T above 0: the classifier's targets are softmax(-distance /
            T) over the classes, so a near class is the smaller mistake (see `Objective`).
        similarity: form of the similarity term, "listwise" or "stress". similarity_weight: its weight.
        kl: weight of the KL term, None: 0.1 for labels, 0.3 for embeddings; kl_k: by which neighbours (see `kl_loss`).
        preserve: weight of a term that keeps the neighbours of X - X.mean(0) by cosine; 7, with similarity_weight 2 and
            kl 2, helps much with classes that were never trained on, and makes the others a little worse. draws: random
            rows added for each row of a batch (`fasthash.train.drawn_rows`); only kl and preserve see them. A step
            costs 1 + draws times as much.
        neighbors: for embeddings: a batch is made of groups of this size, a random row and others of its 64 nearest by
            target, because random batches hold nearly no neighbours; 1: batches are random; None: 16.
        rows_per_class: for class labels: a batch is an episode of batch_size // rows_per_class random classes, with
            rows_per_class random rows of each (see `EpisodeBatches`); 1: batches are random; None: what the loss needs
            (16 with "icnn", "prototype_triplet" and "prototypical", or the size of the smallest class; else 1).
        init: how a linear encoder begins, "random" or "itq", the codes of `fasthash.baselines.itq` of up to 20,000 rows
            (of several ITQs for more bits than features); None: "itq" for y=None.
        temperature_y, temperature_z: of targets and outputs in listwise terms (see `listwise_loss`); None: 0.15
            and 0.1 for labels, 0.2 and 0.1 for multi-hot labels, 0.05 and 0.03 for embeddings (with
            y=None and at most a third as many bits as features 0.04).
        hidden: widths of hidden layers, () for a linear encoder; None: (512, 512), with y=None (). dropout: after each.
        head_scale: that of `HashHead` (1 with a loss of its own).
        epochs: passes over the rows; None: at least 15 passes and 900 steps (1,500 of two-part codes, 5,400 without
            hidden layers). With y=None and fewer than five rows for each feature: 1.
        batch_size: rows of a step (all rows, if X has fewer).
        lr, weight_decay: of AdamW, precision, ema, compile: see `fasthash.train.train`.
        patience: stop after this number of epochs in a row without a better validation score (taken after each epoch
            then).
        workers: processes that read batches ahead, for memory-mapped features on a slow disk.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data continues an interrupted run, to the same weights.
        device: where to train, "cpu" or "cuda"; None: on the device of X.
        seed: for weights, order and sampling. On the CPU the same data, seed, machine and torch.get_num_threads() give
            the same weights; a fit uses only as many of these threads as a step needs (docs/training.md). Global
            generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    A weight of 0 leaves a term out. After `fit`: module_ (the network), classes_ (sorted, None without class labels),
    n_features_in_, feature_names_in_ (if X was a data frame), hidden_ (widths), history_ (losses and validation scores
    by epoch), best_epoch_, bit_weights_ (for weighted search and metrics; None: undivided codes), pseudo_classes_ (what
    was found for rows without a label; None without such rows), loss_ (the trained copy of `loss`, for example with its
    anchors; None without `loss`, and after `load`).

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
        item_bits: int | None = None,
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
        rows_per_class: int | None = None,
        init: str | None = None,
        temperature_y: float | None = None,
        temperature_z: float | None = None,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.15,
        head_scale: float = 4.0,
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
        self.item_bits = item_bits
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
        self.rows_per_class = rows_per_class
        self.init = init
        self.temperature_y = temperature_y
        self.temperature_z = temperature_z
        self.hidden = hidden
        self.dropout = dropout
        self.head_scale = head_scale
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

    @short_waits()
    def fit(self, X: Any, y: Any = None, validation: tuple[Any, Any] | None = None, *, group: Any = None) -> Hasher:
        """Trains on the rows of X [N, F] (any numeric type; memory-mapped arrays are read batch by batch).

        validation=(Xv, yv), yv of the kind of y (None with y=None): about five times during training codes of Xv are
        searched in codes of X (at most 3,000 and 20,000 sampled rows). The weights of the best epoch are kept. The
        score, exact over ties: mAHP@250 for labels, mAP@250 for multi-hot labels, for embeddings the part of the 10
        nearest by target that is among the 10 nearest by code. validation=None: nothing is held out, and the weights
        are those of the last epoch.

        group: a torch.distributed process group. Every rank of it calls this with the same data and settings, and takes
        its part of every batch. All end with the weights that one process would have, up to rounding and dropout: each
        rank draws its own dropout.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for data that do
        not fit them: NaN, different numbers of rows in y and X, labels that are not in the hierarchy.
        FloatingPointError: the loss became NaN or infinite.

        Warns (UserWarning), naming row and column, of values of X and Xv that are absurdly far out. They count as the
        mean of their column, here and in `transform`; so do such values of later queries. See docs/training.md.
        """
        given = checked(self.get_params(), "Hasher.fit")
        names = column_names(X)
        rows = read_features(X, "fit", "X")
        if len(rows) < 2:
            raise ValueError(f"Hasher.fit: X must have at least 2 rows, got {len(rows)} sample{'s' * (len(rows) != 1)}")
        in_folder = given["run_dir"] is not None
        shown = given["progress"] if distributed.rank(group) == 0 else False
        features = scan(rows, "X", checksum=in_folder, progress=shown)
        targets = targets_of(features, y, given["target"], given["hierarchy"])
        settings = completed(given, targets.kind, supervised=y is not None, features=rows.shape[1])
        if isinstance(validation, (tuple, list)) and len(validation) == 2:
            check_column_names(validation[0], names)
        held_out = read_held_out(validation, features, targets, settings.hierarchy, checksum=in_folder)
        if settings.patience is not None and held_out is None:
            raise ValueError(f"Hasher.fit: patience needs validation, got patience {self.patience} and no validation")
        if distributed.rank(group) == 0:
            features.warn("Hasher.fit", "X")
            if held_out is not None:
                held_out.features.warn("Hasher.fit", "validation X")
        settings.batch_size = min(settings.batch_size, len(rows))
        learned, pseudo = with_pseudo_classes(features, targets, settings.seed)
        batches = fit_batches(settings, features, learned, group)
        few = len(rows) < ROWS_PER_FEATURE * rows.shape[1]
        epochs = settings.epochs or _usual_epochs(settings, len(batches), few=y is None and few)
        device = torch.device(rows.device if settings.device is None else settings.device)
        warn_slow(settings.precision, device, "Hasher.fit")
        score = None
        if held_out is not None:
            weights = bit_weights(settings.bits, settings.item_bits)
            score = retrieval_score(
                held_out.features.rows, held_out.targets, rows, targets, device, settings.seed, weights
            )
        with seeded(settings.seed, device):
            module = fit_network(settings, features)
            squashed = module if settings.loss is None else nn.Sequential(module, Squash())
            objective = fit_objective(settings, learned)
            history = run(
                module,
                batches,
                objective,
                Plan(
                    epochs=epochs,
                    lr=settings.lr,
                    weight_decay=settings.weight_decay,
                    precision=settings.precision,
                    ema=settings.ema,
                    score_every=max(1, epochs // 5) if settings.patience is None else 1,
                    patience=settings.patience,
                ),
                device,
                score=None if score is None else lambda _: score(squashed),
                run_dir=settings.run_dir,
                config=run_config(given, features, targets, held_out) if in_folder else None,
                compile=settings.compile,
                group=group,
                progress=settings.progress,
            )
        listed = None if names is None else names.tolist()
        parts = bit_weights(settings.bits, settings.item_bits), y is None, pseudo
        self._take(
            Model(given, squashed.eval(), settings.hidden, targets.classes, rows.shape[1], history, listed, *parts)
        )
        self.loss_ = None if settings.loss is None else objective.eval()
        if self.run_dir is not None and distributed.rank(group) == 0:
            self.save(Path(self.run_dir) / "model.safetensors")
        return self

    def adapt(self, X: Any) -> Hasher:
        """Fits means and scales of the trained network to another corpus X [N, F], without labels; weights stay.

        The centre of the inputs and the statistics of the batch norms are computed anew from X, so each bit halves the
        new corpus as it halved the old one. A linear encoder that was fitted with y=None keeps only its directions, as
        the nearest orthonormal ones: the rest of its map belongs to the old corpus. You cannot compare codes from
        before `adapt` with codes from after.

        Raises NotFittedError before `fit`, ValueError for another number of features than in `fit`, other names of
        columns, fewer than 2 rows, NaN or infinity. Warns of values far out, as `fit` does.

        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
        >>> hasher = Hasher(bits=8, epochs=2, progress=False).fit(X)
        >>> bool((hasher.adapt(X + 5).encode(X + 5) == hasher.adapt(X).encode(X)).mean() > 0.99)
        True
        """
        module = self._fitted("adapt")
        check_column_names(X, self._names())
        rows = read_features(X, "adapt", "X")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"Hasher.adapt: X must have {self.n_features_in_} features, got {rows.shape[1]}")
        if len(rows) < 2:
            raise ValueError(f"Hasher.adapt: X must have at least 2 rows, got {len(rows)}")
        features = scan(rows, "X", checksum=False, method="adapt", progress=self.progress)
        features.warn("Hasher.adapt", "X")
        self.module_ = adapted(module, features, rotate=self._own_targets and not self.hidden_)
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit: Any) -> Any:
        """fit(X, y), then transform(X); other arguments are those of `fit`."""
        return self.fit(X, y, **fit).transform(X)

    def transform(self, X: Any) -> Any:
        """Outputs float32 [N, bits] in [0, 1] of the rows of X [N, F]: numpy for numpy, else a tensor on X's device.

        After `set_output` a data frame. Raises NotFittedError before `fit`, ValueError for another number of features
        than in `fit`, or other names of columns, NaN or infinity.
        """
        kind = output_kind(self)
        outputs = torch.cat(list(self._outputs(X)))
        return like(outputs, X) if kind == "default" else in_frame(kind, outputs, X, self.get_feature_names_out())

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of the rows of X: `pack_bits(transform(X))`, a block at a time.

        One row may be [F]; its code is [1, ceil(bits / 8)].
        """
        return like(torch.cat(list(map(pack_bits, self._outputs(X, method="encode")))), X)

    def queries(self, X: Any, *, metric: str = "l1") -> Any:
        """Queries float32 [N, bits] of rows X [N, F]; one row may be [F].

        metric "l1": in [0, 1], for `HammingIndex.search(..., rescore=f)`; rounded, they are the codes. They are the
        outputs before the sigmoid, scaled about 0.5 so that a row's largest is 0 or 1. They say how close each bit is
        to flipping; saturated outputs do not. On captions they find more (docs/results.md, task d).

        metric "dot" and "cosine": the outputs before the sigmoid, for codes with `scales` of that metric. For two-part
        codes they are multiplied by the weights of the bits.
        """
        metric = choice(metric, "Hasher.queries", "metric", ("l1", *METRICS))
        u = self._unsquashed(X, "queries")
        if metric != "l1":
            return like((u * self._bit_factors(u)).float(), X)
        return like(0.5 + 0.5 * u / u.abs().amax(1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny), X)

    def scales(self, X: Any, codes: Any, *, metric: str = "dot") -> Any:
        """A number s for each code, float16 [N]: `codes` are those of X, by `encode`.

        With u the outputs before the sigmoid and x = 2 b - 1 of the bits b, s is <u, u> / <u, x>, the correction of
        RaBitQ (Gao & Long, 2024); we know no publication of it for learned codes. Then s <v, x> estimates the product
        <v, u> with the outputs v of a query, `queries(q, metric="dot")`. metric "cosine": s is |u| / <u, x>, and
        `asymmetric_topk(..., metric="cosine")` estimates 1 - their cosine. For two-part codes all these sums count bits
        with their weights (the cosine is then off by a factor for each query), and an index for them has no
        `bit_weights`.

        Distances then estimate products or cosines. Their order is not better: on captions and on short texts with
        labels, queries by "l1" without scales find more (docs/method.md).

        Raises NotFittedError before `fit`; ValueError as `transform`, for codes that cannot be those of X, and for a
        number above 65,504, which float16 cannot hold.

        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
        >>> hasher = Hasher(bits=8, epochs=2, progress=False).fit(X)
        >>> codes = hasher.encode(X)
        >>> scales = hasher.scales(X, codes, metric="cosine")
        >>> queries = hasher.queries(X[:1], metric="cosine")
        >>> from fasthash import asymmetric_topk
        >>> found = asymmetric_topk(queries, codes, 3, code_scale=scales, metric="cosine")
        >>> scales.dtype, bool(found.distances.min() < 1e-2)  # the estimate is exact for the row itself
        (dtype('float16'), True)
        """
        function = "Hasher.scales"
        metric = choice(metric, function, "metric", METRICS)
        u = self._unsquashed(X, "scales")
        packed = codes_of(codes, u.shape[1], u, function)
        return like(output_scales(u, packed, self._bit_factors(u), metric, function), X)

    def score(self, X: Any, y: Any = None) -> float:
        """How well the codes of the rows of X [N, F] find similar rows of X: 0 to 1, higher is better.

        Each row is searched among the others. With labels y (or multi-hot labels): mean average precision, where a row
        is relevant if it has the same label (a label in common). With target embeddings y: the part of the 10 nearest
        by the cosine of y that is among the 10 nearest by code; with y=None, for a Hasher that has learned without
        class labels, by the cosine of X. The scores are expectations over ties. From more than 20,000 rows a sample of
        20,000 is taken, with at most 3,000 queries, always the same ones.

        Raises NotFittedError before `fit`, ValueError if X or y do not fit.
        """
        self._fitted("score")
        if y is None and self.classes_ is not None:
            raise ValueError("Hasher.score: y must be the labels of X, as in fit, got None")
        codes = torch.cat(list(map(pack_bits, self._outputs(X, method="score"))))
        return own_score(codes, read_features(X, "score", "X"), y, self._settings["target"], self.bit_weights_)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trained model as one safetensors file, with settings, hierarchy and class names as JSON inside.

        The settings are those of `fit`; later changes by `set_params` do not count.
        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        module = self._fitted("save")
        classes = None if self.classes_ is None else self.classes_.tolist()
        settings, features = self._settings, self.n_features_in_  # those of `fit`: others may have been set since
        names = self._names()
        listed = None if names is None else names.tolist()
        parts = self.bit_weights_, self._own_targets, self.pseudo_classes_
        write_model(path, Model(settings, module, self.hidden_, classes, features, self.history_, listed, *parts))

    def export(self, path: str | PathLike[str]) -> None:
        """Writes the encoder for programs without fasthash: X float32 [N, F] -> codes uint8 [N, ceil(bits / 8)].

        path: .onnx, for ONNX Runtime and others (pip install 'fasthash[onnx]'), or .pt2, for `torch.export.load`. See
        `fasthash.train.export` for names and limits; bits and bit_weights are in the file as JSON. Raises
        NotFittedError before `fit`, ValueError for another suffix, ImportError without the packages for ONNX.
        """
        module = self._fitted("export")
        about = {"bits": self._settings["bits"], "bit_weights": self.bit_weights_, "features": self.n_features_in_}
        export(module, path, torch.zeros(2, self.n_features_in_), about=about)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> Hasher:
        """The Hasher that `save` wrote, on `device` (None: the CPU): it gives the same outputs and codes.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        model = read_model(path, cls().get_params(), device)
        hasher = cls(**{**model.settings, "device": device})
        hasher._take(model)
        return hasher

    def set_output(self, *, transform: str | None = None) -> Hasher:
        """What `transform` and `fit_transform` give: "pandas" or "polars" for a data frame, "default"; None: no change.

        Raises ValueError for others.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": choice(transform, "Hasher.set_output", "transform", OUTPUTS)}
        return self

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the columns of `transform`: "hasher0", "hasher1" ..., an array of objects [bits].

        input_features: only compared with those of `fit`. Raises NotFittedError before `fit`, ValueError for others.
        """
        self._fitted("get_feature_names_out")
        check_input_features(input_features, self._names(), self.n_features_in_)
        return np.array([f"hasher{bit}" for bit in range(self._settings["bits"])], dtype=object)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags  # scikit-learn is what calls this

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(),
        )

    def _take(self, model: Model) -> None:
        self._settings = model.settings
        self.loss_ = None
        self.module_ = model.module
        self.hidden_: tuple[int, ...] = model.hidden
        self.classes_ = None if model.classes is None else np.array(model.classes)
        self.n_features_in_: int = model.features
        if model.names is not None:
            self.feature_names_in_ = np.array(model.names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._own_targets: bool = model.own_targets
        self.bit_weights_ = model.bit_weights
        self.pseudo_classes_ = model.pseudo
        self.history_ = model.history
        self.best_epoch_ = model.history.best_epoch

    def _outputs(self, X: Any, module: nn.Module | None = None, method: str = "transform") -> Iterator[Tensor]:
        """Outputs of the rows of X, of `module` or of the whole network, a block at a time."""
        network = self._fitted(method)
        check_column_names(X, self._names())
        rows = read_features(X, method, "X", one=method in ("encode", "queries", "scales"))
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"Hasher.{method}: X must have {self.n_features_in_} features, got {rows.shape[1]}")
        start = 0
        for block in output_blocks(module or network, rows, _device_of(network)):
            given = rows[start : start + len(block)].float()  # the network takes infinity for a value far out
            check_finite(rows, bool(torch.isfinite(given).all() and torch.isfinite(block).all()), method, "X")
            start += len(block)
            yield block

    def _unsquashed(self, X: Any, method: str) -> Tensor:
        """Outputs before the sigmoid [N, bits]; one row may be [F]."""
        module = self._fitted(method)
        layers = module if self._settings["loss"] is None else next(module.children())
        if isinstance(layers, TwoPartEncoder):
            plain: nn.Module = layers.without_sigmoid()
        else:
            plain = without_sigmoid(*layers.children())
        return torch.cat(list(self._outputs(X, plain, method)))

    def _bit_factors(self, u: Tensor) -> Tensor:
        return bit_factors(self.bit_weights_, u.shape[1], u.device)

    def _names(self) -> Any:
        return getattr(self, "feature_names_in_", None)


def _usual_epochs(settings: SimpleNamespace, batches: int, *, few: bool) -> int:
    """The epochs of a run with epochs=None. batches: of an epoch; few: there are few rows, without targets."""
    if few and settings.init == "itq":
        return 1
    steps = (TWO_PART_STEPS if settings.item_bits else STEPS) if settings.hidden else LINEAR_STEPS
    return max(EPOCHS, math.ceil(steps / batches))


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


__getattr__ = moved_names(__name__)
