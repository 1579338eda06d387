"""TextHasher: from texts, or bags of words, to binary codes: pairwise supervised hashing with a Bernoulli VAE."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import choice, number, one_device, whole
from fasthash._checkpoint import TEXT, check_tensors, load_checkpoint, save_checkpoint
from fasthash.codes import pack_bits
from fasthash.gradients import ESTIMATORS
from fasthash.train.batches import shuffled_batches
from fasthash.train.bernoulli_vae import PairwiseHashingLoss, TextEncoder
from fasthash.train.checksum import fingerprint
from fasthash.train.loop import run
from fasthash.train.params import Params
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import Plan, optional
from fasthash.train.randomness import seeded
from fasthash.train.settings import NOT_SAVED, RUN, Limits, checked, widths
from fasthash.train.state import History
from fasthash.train.supervision import Targets, read_targets
from fasthash.train.validation import output_blocks
from fasthash.train.word_bags import WordBags, counted, read_bags, texts_of, vocabulary

EPOCHS, STEPS = 15, 900  # with epochs=None: the least numbers of passes and of steps
WEIGHT_DECAY = 1e-2  # as in `train`


def _layers(value: Any, function: str, name: str) -> tuple[int, ...]:
    sizes = widths(value, function, name)
    if not sizes:
        raise ValueError(f"{function}: {name} must have at least one width, got none")
    return sizes


LIMITS: Limits = {
    **RUN,
    "pair": partial(number, least=0),
    "classification": partial(number, least=0),
    "kl": partial(number, least=0),
    "gradient": partial(choice, allowed=tuple(ESTIMATORS)),
    "hidden": _layers,
    "dropout": partial(number, least=0, below=1),
    "max_words": partial(whole, low=1),
    "epochs": optional(PLAN["epochs"]),
    "batch_size": partial(whole, low=2),
}


class TextHasher(Params):
    """Learns binary codes of texts from the words in them: `fit`, then `transform` (probabilities) or `encode` (codes).

    X is one of:

    - Word counts [N, V]: a scipy.sparse matrix of whole numbers, or an array. They are weighted by idf.
    - Other weights >= 0 [N, V], for example TF-IDF: not changed.
    - A list of N texts. scikit-learn (`pip install 'fasthash[text]'`) counts the words that at least two texts share.

    An encoder gives each text the probabilities of its bits. A decoder gets drawn bits, and must predict the words of
    the text. Codes of one class are drawn together, those of different classes are pushed apart to a third of the bits.
    The matrix stays sparse; only a batch is dense.

    Args:
        bits: length of a code, 1 to 4096.
        pair: weight of the distances between codes. classification: of a linear classifier on the last hidden layer.
            kl: of the divergence of the bits from fair ones. The weight of the words is 1 (`PairwiseHashingLoss`).
        gradient: how the encoder learns from drawn bits: "disarm", "arm", "straight_through" or "gumbel"
            (`fasthash.gradients`).
        hidden: widths of hidden layers, at least one. dropout: after each.
        max_words: for texts, the number of most common words that are used.
        epochs: passes over the rows; None: at least 15 passes and 900 steps.
        batch_size: rows of a step (all rows, if X has fewer). lr: of AdamW.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and data continues an interrupted run, to the same weights.
        device: where to train, "cpu" or "cuda"; None: the CPU.
        seed: for weights, order and draws. The same data, seed, machine and number of threads give the same weights on
            the CPU. Global generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    After `fit`: module_ (the encoder), classes_ (sorted, None without class labels), words_ (of texts, else None),
    n_features_in_ (V), history_ (losses by epoch).

    Source: Dadaneh et al., "Pairwise supervised hashing with Bernoulli variational auto-encoder and self-control
    gradient estimator", UAI 2020. `PairwiseHashingLoss` says how sure each term is. DisARM instead of ARM, and all
    defaults but kl and hidden, are ours; they were chosen on validation texts of clinc150.

    >>> texts = ["play some music", "play a song", "music please", "what is the weather", "weather today"] * 4
    >>> y = ["music", "music", "music", "weather", "weather"] * 4
    >>> hasher = TextHasher(bits=16, epochs=20, progress=False).fit(texts, y)
    >>> hasher.encode(["a song please", "the weather"]).shape
    (2, 2)
    """

    def __init__(
        self,
        bits: int = 32,
        *,
        pair: float = 10.0,
        classification: float = 50.0,
        kl: float = 1 / 64,
        gradient: str = "disarm",
        hidden: Sequence[int] = (500, 500),
        dropout: float = 0.0,
        max_words: int = 20_000,
        epochs: int | None = None,
        batch_size: int = 256,
        lr: float = 2e-2,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.pair = pair
        self.classification = classification
        self.kl = kl
        self.gradient = gradient
        self.hidden = hidden
        self.dropout = dropout
        self.max_words = max_words
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.run_dir = run_dir
        self.device = device
        self.seed = seed
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> TextHasher:
        """Trains on texts or bags of words X, N rows.

        y: class labels [N], integers or strings; multi-hot labels [N, L], where two texts are similar if they have one
        label in common; or None. None, NaN, -1 and a multi-hot row of zeros mark rows without a label: such a row
        teaches only its words.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for data that do
        not fit; ImportError for texts without scikit-learn; FloatingPointError if the loss became NaN or infinite.
        """
        function = "TextHasher.fit"
        settings = checked(self.get_params(), function, LIMITS)
        texts = texts_of(X, function, "X")
        words = None if texts is None else vocabulary(texts, settings["max_words"], function)
        bags = read_bags(X if texts is None or words is None else counted(texts, words, function), function, "X")
        if len(bags) < 2:
            raise ValueError(f"{function}: X must have at least 2 rows, got {len(bags)}")
        if not len(bags.words):
            raise ValueError(f"{function}: X must have a word in at least one row, got none in {len(bags)} rows")
        targets = _targets(y, len(bags), function)
        whole_numbers = bags.counts
        idf = bags.idf() if whole_numbers else torch.ones(bags.vocabulary)
        size = min(settings["batch_size"], len(bags))
        order = torch.Generator().manual_seed(settings["seed"])
        batches = shuffled_batches(bags, bags, targets.values, batch_size=size, generator=order)
        device = torch.device(settings["device"] or "cpu")
        with seeded(settings["seed"], device):
            module = TextEncoder(idf, settings["bits"], hidden=settings["hidden"], dropout=settings["dropout"])
            objective = PairwiseHashingLoss(
                words=bags.vocabulary,
                classes=targets.outputs,
                hidden=settings["hidden"][-1],
                **{name: settings[name] for name in ("bits", "pair", "classification", "kl", "gradient")},
            )
            history = run(
                module,
                batches,
                objective,
                Plan(
                    epochs=settings["epochs"] or max(EPOCHS, math.ceil(STEPS / len(batches))),
                    lr=settings["lr"],
                    weight_decay=WEIGHT_DECAY,
                ),
                device,
                run_dir=settings["run_dir"],
                config=None if settings["run_dir"] is None else _config(settings, bags, words, targets),
                progress=settings["progress"],
            )
        self._take(settings, module.eval(), targets.classes, words, whole_numbers, history)
        if settings["run_dir"] is not None:
            self.save(Path(settings["run_dir"]) / "model.safetensors")
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """fit(X, y), then transform(X)."""
        return self.fit(X, y).transform(X)

    def transform(self, X: Any) -> Any:
        """Probabilities of the bits, float32 [N, bits], of texts or bags of words as in `fit`.

        Words that `fit` has not seen are ignored. Raises NotFittedError before `fit`, ValueError for another number of
        columns than in `fit`, values below 0, NaN, and for weights if `fit` had counts.
        """
        return torch.cat(list(self._outputs(X, "transform"))).numpy(force=True)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)]: `pack_bits(transform(X))`, a block at a time."""
        return torch.cat(list(map(pack_bits, self._outputs(X, "encode")))).numpy(force=True)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trained model as one safetensors file, with settings, words and class names as JSON inside.

        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        module = self._fitted("save")
        content = {
            "settings": {name: value for name, value in self._settings.items() if name not in NOT_SAVED},
            "features": self.n_features_in_,
            "words": self.words_,
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "counts": self._counts,
            "losses": self.history_.losses,
        }
        save_checkpoint(path, module.state_dict(), content, TEXT)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> TextHasher:
        """The TextHasher that `save` wrote, on `device` (None: the CPU): it gives the same codes.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is damaged, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, TEXT)
        place = one_device("cpu" if device is None else device, "TextHasher.load")
        try:
            settings = checked({**cls().get_params(), **content["settings"]}, "its settings", LIMITS)
            features, words = whole(content["features"], "its content", "features", 1), content["words"]
            if words is not None and not (len(set(words)) == features and all(isinstance(w, str) for w in words)):
                raise ValueError(f"its words are not {features} different words")
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                module = TextEncoder(torch.empty(features), settings["bits"], hidden=settings["hidden"])
            check_tensors(tensors, module.state_dict())
            module.load_state_dict(tensors, assign=True)
            losses = [float(loss) for loss in content["losses"]]
            history = History(losses, [None] * len(losses), len(losses))
            hasher = cls(**{**settings, "device": device})
            hasher._take(
                settings, module.to(place).eval(), content["classes"], words, operator.truth(content["counts"]), history
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"TextHasher.load: {path} is damaged or not a fasthash text model: {error}") from None
        return hasher

    def _take(
        self,
        settings: dict[str, Any],
        module: TextEncoder,
        classes: list[Any] | None,
        words: list[str] | None,
        counts: bool,
        history: History,
    ) -> None:
        self._settings, self._counts = settings, counts
        self.module_, self.words_, self.history_ = module, words, history
        self.classes_ = None if classes is None else np.array(classes)
        self.n_features_in_ = len(module.idf)

    def _outputs(self, X: Any, method: str) -> Iterator[Tensor]:
        module, function = self._fitted(method), f"TextHasher.{method}"
        texts = texts_of(X, function, "X")
        if texts is not None:
            if self.words_ is None:
                raise TypeError(f"{function}: X must be a matrix, as in fit, got texts")
            X = counted(texts, self.words_, function)
        bags = read_bags(X, function, "X")
        if bags.vocabulary != self.n_features_in_:
            raise ValueError(f"{function}: X must have {self.n_features_in_} columns, got {bags.vocabulary}")
        if self._counts and not bags.counts:
            raise ValueError(f"{function}: X must hold word counts, whole numbers as in fit, got others")
        return output_blocks(module, bags, next(module.parameters()).device)


def _targets(y: Any, rows: int, function: str) -> Targets:
    """Class labels or multi-hot labels; with y=None no row has a class."""
    if y is None:
        return Targets("labels", torch.full((rows,), -1))
    targets = read_targets(y, rows, None, None, function=function)
    if targets.kind == "embedding":
        raise ValueError(f"{function}: y must be class labels or multi-hot integers, got 2-D floating point")
    return targets


def _config(settings: dict[str, Any], bags: WordBags, words: list[str] | None, targets: Targets) -> dict[str, Any]:
    """What identifies a run: settings, and checksums of the data."""
    data = {
        "shape": [len(bags), bags.vocabulary],
        "X": fingerprint(bags.starts, bags.words, bags.values, "\n".join(words or [])),
        "y": fingerprint(targets.values, repr(targets.classes)),
    }
    return {"text_hasher": {name: value for name, value in settings.items() if name not in NOT_SAVED}, "data": data}
