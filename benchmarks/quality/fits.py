"""How each method is fitted: `fit(task, rows, bits, seed, settings)` gives a Model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality import few_shot
from benchmarks.quality.asymmetric import fit_asymmetric
from benchmarks.quality.class_byte import ClassByte, fit_class_byte
from benchmarks.quality.image_tasks import network_outputs, trained_network
from benchmarks.quality.measure import BitWeights, array_ranking
from benchmarks.quality.noise import fit_noisy
from benchmarks.quality.tasks import Bags, Items, Pair, Task, flat
from benchmarks.quality.text_task import fit_psh
from benchmarks.quality.view_task import fit_cimon
from fasthash import Hasher, baselines, pack_bits
from fasthash.evaluate import overlap_at
from fasthash.losses.published import LOSSES
from fasthash.metrics.ranking import Ranking
from fasthash.targets import class_distances, class_levels
from fasthash.train import Objective

Array = NDArray[Any]
Settings = dict[str, Any]
UNDIVIDED: Settings = {"item_bits": 0}
TREE_IMAGES_TRIED: tuple[Settings, ...] = (
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.1},
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.15},
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.1, "similarity_weight": 2.0},
)


@dataclass(frozen=True)
class Model:
    """What a method gives: outputs float32 [N, bits] of X, whose signs (u > 0) are the bits, and how they compare.

    queries: what real-valued queries of a search in codes are, where they are not the outputs. bit_weights: of the
    Hamming distance. reached: what was measured of labels or pairs that it learned from, where it made some. free:
    packed codes of the rows it was fitted on, where those are not the signs of their outputs.
    """

    outputs: Callable[[Array], Array]
    metric: str
    queries: Callable[[Array], Array] | None = None
    bit_weights: BitWeights = None
    reached: dict[str, Any] | None = None
    free: Array | None = None

    def codes(self, X: Array) -> Array:
        codes: Array = pack_bits(self.outputs(X), threshold=0.0)
        return codes

    def rankings(self, sides: Pair) -> dict[str, Ranking]:
        """One ranking, for metrics of classes and of the hierarchy."""
        codes = [self.codes(items.X) for items in sides]
        return {"class": array_ranking(codes, sides, bit_weights=self.bit_weights)}

    def overlap(self, sides: Pair, k: int) -> float:
        """Overlap@k inside a class with the neighbours by the cosine of the input."""
        query, database = sides
        codes = self.codes(query.X), self.codes(database.X)
        inputs, labels = (query.flat, database.flat), (query.y, database.y)
        return float(overlap_at(*codes, *inputs, *labels, k, bit_weights=self.bit_weights))


def fit_linear(function: Callable[..., baselines.LinearCodes], seeded: bool) -> Callable[..., Model]:
    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
        codes = function(rows.flat, bits, **({"seed": seed} if seeded else {}))
        return Model(lambda X: codes.transform(flat(X)), "cosine")

    return fit


def fit_rotation(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """`bits` directions of a random orthogonal matrix, of centred inputs."""
    width = rows.X.shape[1]
    noise = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = torch.linalg.qr(noise).Q[:, :bits].float().numpy()
    mean = rows.X.mean(axis=0)
    return Model(lambda X: (X - mean) @ directions, "cosine")


def fit_sign(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """Signs of the centred inputs themselves: one width only."""
    if bits != rows.X.shape[1]:
        raise ValueError(f"sign(x - mean) has as many bits as inputs, {rows.X.shape[1]}, got {bits}")
    mean = rows.X.mean(axis=0)
    return Model(lambda X: X - mean, "cosine")


def fit_byte(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> ClassByte:
    """The class by a linear classifier: of embeddings, or of the outputs of an image network trained with labels."""
    if task.kind != "images":
        return fit_class_byte(rows, bits, seed, task.similarity, _linear_features, **settings)
    network = fit_hasher("cosine", loss="ce")(task, rows.labelled, bits, seed, {})
    return fit_class_byte(rows, bits, seed, task.similarity, network.outputs, **settings)


def _linear_features(X: Any) -> Any:
    """What a linear classifier takes: of bags of words TF-IDF, else the rows themselves."""
    return X.tfidf if isinstance(X, Bags) else flat(X)


def fit_hasher(metric: str, **fixed: Any) -> Callable[..., Model]:
    """A Hasher with the package's settings where `fixed` and the tried ones say nothing else."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
        chosen = {**fixed, **settings}
        torch.manual_seed(seed)  # of a loss's own weights, where it is made here
        loss = chosen.get("loss")
        if isinstance(loss, str):  # settings of the loss itself are written "loss.temperature"
            own = {name.removeprefix("loss."): chosen.pop(name) for name in list(chosen) if name.startswith("loss.")}
            if own:
                chosen["loss"] = _loss(loss, bits, task, rows, own)
        if task.kind == "images":
            return Model(_fit_images(task, rows, bits, seed, chosen), metric)
        y = None if chosen.pop("unsupervised", False) or task.kind == "groups" else rows.y
        hierarchy = None if y is None else task.hierarchy
        if chosen.pop("permuted", False):  # targets of other rows: what is left is chance
            y = np.random.default_rng(seed).permutation(y)
        if chosen.pop("centred", False):  # near by the cosine of X - mean
            y, chosen["hidden"] = rows.X - rows.X.mean(axis=0), ()
        hasher = Hasher(bits, hierarchy, seed=seed, progress=False, **chosen).fit(flat(rows.X), y)
        module = hasher.module_ if loss is None else hasher.module_[0]
        queries = None if loss is not None else (lambda X: 2.0 * hasher.queries(flat(X)) - 1.0)
        weights = getattr(hasher, "bit_weights_", None)
        return Model(lambda X: _outputs(module, flat(X), sigmoid=loss is None), metric, queries, weights)

    return fit


_networks: dict[tuple[str, int, int], torch.nn.Sequential] = {}  # by task, number of labels and seed


def on_features(fit: Callable[..., Model]) -> Callable[..., Model]:
    """The same fit on embeddings; in the place of images, what the layers below the head of a network make of them.

    The network is that of `fit_hasher` with TREE_IMAGES_TRIED[0] and 64 bits, trained on the labelled rows.
    """

    def fitted(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
        if task.kind != "images":
            return fit(task, rows, bits, seed, settings)
        known = task.name, len(rows.labelled.y), seed
        if known not in _networks:
            _networks[known] = _image_network(task, rows.labelled, 64, seed, TREE_IMAGES_TRIED[0])[:-1]
        below = _networks[known]
        embedded = Items(network_outputs(below, rows.X), rows.y)
        model = fit(replace(task, kind="classes"), embedded, bits, seed, settings)
        found, queries = model.outputs, model.queries
        return replace(
            model,
            outputs=lambda X: found(network_outputs(below, X)),
            queries=None if queries is None else lambda X: queries(network_outputs(below, X)),
        )

    return fitted


def _fit_images(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Callable[[Array], Array]:
    """The outputs u of the image network, trained with the same losses, whose signs are the bits."""
    module, sigmoid = _image_network(task, rows, bits, seed, settings), settings.get("loss") is None

    def outputs(X: Array) -> Array:
        found = network_outputs(module, X)
        return 2.0 * found - 1.0 if sigmoid else found

    return outputs


def _image_network(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> torch.nn.Sequential:
    """The same losses with the network of the images in the place of Hasher's encoder."""
    settings = dict(settings)
    settings.pop("item_bits", None)  # the codes of an own network are undivided
    lr, weight_decay = settings.pop("lr", 4e-3), settings.pop("weight_decay", 1e-2)
    loss = settings.pop("loss", None)
    if loss is not None:
        objective = _loss(loss, bits, task, rows, {}) if isinstance(loss, str) else loss
        fixed = {"sigmoid": False, "scale": 1.0, "lr": lr, "weight_decay": weight_decay}
        return trained_network(task, rows, bits, seed, objective, **fixed)
    classes, scale = np.unique(rows.y), settings.pop("scale", 4.0)
    if settings.pop("supervision", "full") == "similarity":
        settings["classification"] = 0.0
    classified = settings.get("classification", 1.0) > 0
    own = Objective(
        bits,
        classes=len(classes) if classified else 0,
        distance=class_distances(classes.tolist(), task.hierarchy),
        **{"temperature_x": 0.05, "temperature_xz": settings.get("temperature_z", 0.1), **settings},
    )
    pixels = bool(settings.get("preserve"))
    fixed = {"sigmoid": True, "scale": scale, "lr": lr, "weight_decay": weight_decay, "pixels": pixels}
    return trained_network(task, rows, bits, seed, own, **fixed)


def fit_few_shot(*losses: str) -> Callable[..., Model]:
    """Trained in episodes, by the mean of these losses."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
        module = few_shot.fit_episodes(losses, task, rows, bits, seed, settings)
        return Model(lambda X: _outputs(module, X, sigmoid=False), "l2")

    return fit


def fit_few_shot_itq(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    codes = baselines.itq(few_shot.pooled(rows.X), bits, seed=seed)
    return Model(lambda X: codes.transform(few_shot.pooled(X)), "cosine")


def fit_few_shot_ours(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """This package's objective, of random batches."""
    if task.kind != "images":
        fixed = {**UNDIVIDED, "epochs": few_shot.EMBEDDING_EPOCHS}
        return fit_hasher("l1", **fixed)(task, rows, bits, seed, settings)
    module = few_shot.fit_objective(task, rows, bits, seed, settings)
    return Model(lambda X: _outputs(module, X, sigmoid=True), "l1")


def fit_from_noise(loss: str | None = None) -> Callable[..., Model]:
    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
        return Model(fit_noisy(rows, task, bits, seed, loss, settings), "l1")

    return fit


def fit_free_codes(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """An AsymmetricHasher; of images what it does, with their network."""
    outputs, codes = fit_asymmetric(task, rows, bits, seed, settings)
    return Model(outputs, "l1", free=codes)


def fit_words(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """A TextHasher on bags of words."""
    return Model(fit_psh(rows, bits, seed, settings), "l1")


def fit_two_views(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Model:
    """A CIMON on images."""
    outputs, reached = fit_cimon(rows, bits, seed, settings)
    return Model(outputs, "l1", reached=reached)


def _loss(name: str, bits: int, task: Task, rows: Items, own: Settings) -> torch.nn.Module:
    known: dict[str, Any] = {"bits": bits}
    if task.kind == "multilabel":
        known["classes"] = rows.y.shape[1]
    else:
        classes = np.unique(rows.y)
        known |= {"classes": len(classes), "levels": class_levels(class_distances(classes.tolist(), task.hierarchy))}
    wanted = inspect.signature(LOSSES[name].__init__).parameters
    if task.kind == "groups":
        known["classes"] = 0
    return LOSSES[name](**{key: value for key, value in known.items() if key in wanted}, **own)


@torch.no_grad()
def _outputs(module: torch.nn.Module, X: Array, *, sigmoid: bool) -> Array:
    module.eval()
    parts = [module(torch.from_numpy(X[start : start + 8192])) for start in range(0, len(X), 8192)]
    z = torch.cat(parts)
    return (2.0 * z - 1.0 if sigmoid else z).numpy()  # z > 0.5 exactly where 2 z - 1 > 0
