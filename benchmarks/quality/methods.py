"""The methods, each with the settings that are tried on validation data: as many for every method that learns."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality import few_shot
from benchmarks.quality.asymmetric import fit_asymmetric
from benchmarks.quality.class_byte import ClassByte, fit_class_byte
from benchmarks.quality.cross_modal_methods import (
    FixedMargin,
    JointObjective,
    PairContrastive,
    fit_cca,
    fit_joint,
    fit_rmsh,
)
from benchmarks.quality.graph_task import propagated, refined, spread_then
from benchmarks.quality.image_tasks import network_outputs, trained_network
from benchmarks.quality.measure import BitWeights, array_ranking
from benchmarks.quality.noise import fit_noisy
from benchmarks.quality.recommenders import (
    fit_factors,
    fit_graph,
    fit_on_factors,
    hasher,
    linear,
)
from benchmarks.quality.tasks import Bags, Items, Pair, Task, flat
from benchmarks.quality.text_task import fit_psh
from fasthash import Hasher, baselines, pack_bits
from fasthash.evaluate import overlap_at
from fasthash.losses.published import LOSSES
from fasthash.metrics.ranking import Ranking
from fasthash.targets import class_distances, class_levels
from fasthash.train import Objective

Array = NDArray[Any]
Settings = dict[str, Any]
TRIED = 3  # settings of each method
UNSEEN_IMAGES = ("e-unseen-images", "e-unseen-images-reduced")
EMBEDDED = ("a", "e-unseen")
CLASSES = (*EMBEDDED, "b", "b-reduced", "c", "c-reduced", *UNSEEN_IMAGES)
OPEN = ("e-open", "e-half")
EDGES = ("h",)
PAIRS = ("i-pubmedqa", "i-movielens")
OPEN_IMAGES = ("e-open-images", "e-half-images", "e-open-images-reduced", "e-half-images-reduced")
LABELLED = (*CLASSES, *OPEN, *OPEN_IMAGES)
GRAPHS = ("k", "k-clinc150")
ANCHORED = ("a", "b", "b-reduced", "c", "c-reduced")  # every class has rows to train on
FEW_SHOT = tuple(few_shot.TASKS)


@dataclass(frozen=True)
class Model:
    """What a method gives: outputs float32 [N, bits] of X, whose signs (u > 0) are the bits, and how they compare.

    queries: what real-valued queries of a search in codes are, where they are not the outputs. bit_weights: of the
    Hamming distance. reached: what was measured of the labels that it learned from, where it made some. free: packed
    codes of the rows it was fitted on, where those are not the signs of their outputs.
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


@dataclass(frozen=True)
class Method:
    """`fit(task, rows, bits, seed, settings)` -> Model. `settings`: those tried; an ablation has its `base`'s.

    `elsewhere`, `changes`: those tried, and an ablation's change, in their place on the tasks that they name.
    `unlabelled`: it learns from labels, and from rows without one too.
    """

    name: str
    title: str
    learns_from: str  # "labels", "similarities", "inputs"
    fit: Callable[[Task, Items, int, int, Settings], Model | ClassByte]
    settings: tuple[Settings, ...] = ({},)
    elsewhere: dict[str, tuple[Settings, ...]] = field(default_factory=dict)
    base: str | None = None
    change: Settings = field(default_factory=dict)
    changes: dict[str, Settings] = field(default_factory=dict)
    tasks: tuple[str, ...] = CLASSES
    unlabelled: bool = False

    def rows(self, train: Items) -> Items:
        """Those of the training rows that it is fitted on."""
        return train if self.learns_from == "inputs" or self.unlabelled else train.labelled


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


def _trained(name: str, title: str, metric: str, *settings: Settings, **more: Any) -> Method:
    learns = "inputs" if more.pop("unsupervised", False) else "labels"
    fixed: Settings = {"loss": name} | ({"unsupervised": True} if learns == "inputs" else {})
    return Method(name, title, learns, fit_hasher(metric, **fixed), settings, **{"tasks": LABELLED, **more})


def _few_shot(name: str, title: str, third: Settings, *losses: str) -> Method:
    tried: tuple[Settings, ...] = ({}, {"lr": 1e-3}, third)
    return Method(f"few-{name}", title, "labels", fit_few_shot(*losses), tried, tasks=FEW_SHOT)


def _on_graph(name: str, title: str, spread: Callable[..., Any], ablation: bool = False) -> Method:
    """Hasher on the labels that `spread` gives all nodes; an ablation has the settings chosen for "graph-refined"."""
    fit = spread_then(fit_hasher("l1", **ON_GRAPH), name, spread)
    base = "graph-refined" if ablation else None
    tried: tuple[Settings, ...] = ({},) if ablation else GRAPH_TRIED
    return Method(name, title, "labels", fit, tried, base=base, tasks=GRAPHS, unlabelled=True)


def _with_ablations(method: Method, *changes: tuple[str, str, Settings]) -> tuple[Method, ...]:
    """A method, and for each (name, title, change) the same with its chosen settings changed."""
    ablations = (
        replace(
            method,
            name=f"{method.name}-{name}",
            title=f"{method.title}, {title}",
            settings=({},),
            elsewhere={},
            base=method.name,
            change=change,
        )
        for name, title, change in changes
    )
    return method, *ablations


CAPTION_EPOCHS = 40  # a linear encoder's steps cost little
NO_KL: tuple[str, str, Settings] = ("no-kl", "no KL", {"kl": 0.0})
STRESS: tuple[str, str, Settings] = ("stress", "stress", {"similarity": "stress"})
CAPTIONS: tuple[Settings, ...] = (
    {"init": "itq", "centred": True, "kl": 0.3},
    {"init": "itq", "centred": True, "kl": 0.5},
    {"init": "itq", "centred": True, "kl": 1.0},
)
OURS_TRIED: tuple[Settings, ...] = ({}, {"similarity_weight": 2.0}, {"temperature_z": 0.15})
UNSEEN_TRIED: tuple[Settings, ...] = ({}, {"kl": 0.3}, {"kl": 1.0})
TREE_IMAGES = ("b", "b-reduced")  # with a hierarchy
TREE_IMAGES_TRIED: tuple[Settings, ...] = (
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.1},
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.15},
    {"scale": 1.0, "temperature_z": 0.15, "soft_labels": 0.1, "similarity_weight": 2.0},
)
BYTE_TRIED: tuple[Settings, ...] = ({"C": 1.0}, {"C": 10.0}, {"C": 100.0})
BYTE_ITQ_TRIED: tuple[Settings, ...] = (
    {"weight": 64, "graded": False},
    {"weight": 64},
    {"weight": 255},
)
ASYMMETRIC_TRIED: tuple[Settings, ...] = ({}, {"lr": 1e-3}, {"epochs": 1})
PSH_TRIED: tuple[Settings, ...] = ({}, {"pair": 3.0}, {"lr": 4e-2, "classification": 100.0})
UNSEEN = dict.fromkeys(("e-unseen", *UNSEEN_IMAGES), UNSEEN_TRIED)

MULTILABEL_TRIED: tuple[Settings, ...] = ({}, {"similarity_weight": 2.0}, {"temperature_y": 0.15})
HASHGNN_TRIED: tuple[Settings, ...] = ({}, {"beta_rise": 0.02}, {"cross_entropy": 1.0})
RMSH_TRIED: tuple[Settings, ...] = ({}, {"lr": 1e-3}, {"dropout": 0.5})
CCA_TRIED: tuple[Settings, ...] = tuple({"regularization": part} for part in (0.1, 1.0, 10.0))
FACTORS_TRIED: tuple[Settings, ...] = ({"l2": 1e-3}, {"l2": 1e-2}, {"l2": 3e-2})

ON_GRAPH: Settings = {"item_bits": 0, "hidden": (256,), "epochs": 30}
GRAPH_TRIED: tuple[Settings, ...] = (
    {"target": "hard"},
    {"target": "hard", "temperature_z": 0.15},
    {"target": "soft", "neighbors": 1, "temperature_y": 0.15, "temperature_z": 0.1, "kl": 0.1},
)

DEFAULTS = ("a", *OPEN)  # tasks where Hasher is tried as it comes
UNDIVIDED: Settings = {"item_bits": 0}

OURS = Method(
    "ours",
    "fasthash, labels",
    "labels",
    fit_hasher("l1", **UNDIVIDED),
    OURS_TRIED,
    UNSEEN | dict.fromkeys((*TREE_IMAGES, *OPEN_IMAGES), TREE_IMAGES_TRIED) | {"f": MULTILABEL_TRIED},
    tasks=(*CLASSES, *OPEN_IMAGES),
)

SUM = ("prototypical", "prototype_triplet", "icnn")  # SuSana Distancia
FEW_SUM = _few_shot("sum", "ProtoNet + prototype triplet + ICNN", {"loss.temperature": 16.0}, *SUM)

METHODS: tuple[Method, ...] = (
    Method("lsh", "LSH", "inputs", fit_linear(baselines.lsh, True), tasks=(*LABELLED, "d", "e-noisy", "f")),
    Method("pca", "PCA, sign", "inputs", fit_linear(baselines.pca_sign, False), tasks=(*LABELLED, "d", "f")),
    Method(
        "itq",
        "ITQ",
        "inputs",
        fit_linear(baselines.itq, True),
        tasks=(*LABELLED, "d", "e-noisy", "f", "g", *GRAPHS),
    ),
    Method("rotation", "random rotation, sign", "inputs", fit_rotation, tasks=("d",)),
    Method("sign", "sign(x - mean)", "inputs", fit_sign, tasks=("a", *OPEN, "d")),
    Method("class-byte", "class byte, 8 bits in all", "labels", fit_byte, BYTE_TRIED, tasks=(*LABELLED, "g", *GRAPHS)),
    Method(
        "class-byte-itq",
        "class byte and ITQ of the residual",
        "labels",
        fit_byte,
        BYTE_ITQ_TRIED,
        tasks=LABELLED,
        unlabelled=True,
    ),
    _trained(
        "sdc",
        "SDC",
        "cosine",
        {},
        {"loss.a": 2.0, "loss.b": 2.0},
        {"lr": 1e-3},
        unsupervised=True,
        tasks=("a", "e-unseen", *OPEN),
    ),
    Method(
        "captions-sdc",
        "SDC",
        "inputs",
        fit_hasher("cosine", loss="sdc", epochs=CAPTION_EPOCHS),
        ({}, {"loss.a": 2.0, "loss.b": 2.0}, {"epochs": 80}),
        tasks=("d",),
    ),
    Method(
        "captions-contrastive",
        "contrastive, nearest of the batch, sign",
        "inputs",
        fit_hasher("cosine", loss="contrastive", epochs=CAPTION_EPOCHS),
        ({}, {"loss.temperature": 0.2}, {"epochs": 80}),
        tasks=("d",),
    ),
    *_with_ablations(
        Method("captions-ours", "fasthash", "inputs", fit_hasher("l1", epochs=CAPTION_EPOCHS), CAPTIONS, tasks=("d",)),
        NO_KL,
        ("random-batches", "random batches", {"neighbors": 1}),
        ("random-start", "random start", {"init": "random"}),
        ("not-centred", "cosine of X as it is", {"centred": False}),
        ("warm", "temperatures 0.07, 0.05", {"temperature_y": 0.07, "temperature_z": 0.05}),
    ),
    _trained("ce", "CE, sign", "cosine", {}, {"lr": 1e-3}, {"weight_decay": 0.1}),
    _trained("hashnet", "HashNet", "l1", {}, {"lr": 1e-3}, {"loss.gamma": 0.02}),
    _trained("greedyhash", "GreedyHash", "l1", {}, {"lr": 1e-3}, {"loss.weight": 1.0}),
    _trained("csq", "CSQ", "l1", {}, {"lr": 1e-3}, {"loss.weight": 0.05}),
    _trained("orthohash", "OrthoHash", "cosine", {}, {"lr": 1e-3}, {"loss.scale": 16.0}),
    _trained(
        "class_anchor_margin",
        "Class Anchor Margin",
        "l2",
        {},
        {"lr": 1e-3},
        {"dropout": 0.0},
        elsewhere=dict.fromkeys(ANCHORED[1:], ({}, {"lr": 1e-3}, {"loss.repel": 10.0})),  # networks without dropout
        tasks=ANCHORED,
    ),
    *_with_ablations(
        Method("asymmetric", "DSAH", "labels", fit_free_codes, ASYMMETRIC_TRIED, tasks=("a", "c", "c-reduced")),
        ("no-quantization", "no L_q", {"quantization": 0.0}),
        ("no-second", "no second label", {"second": 0.0}),
        ("no-affinity", "no L_a", {"affinity": 0.0}),
        ("by-row", "to a row's own code", {"prior": "row"}),
    ),
    _trained("bihalf", "BiHalf", "l1", {}, {"lr": 1e-3}, {"loss.gamma": 1.0}),
    _trained("hpdh", "HPDH", "l2", {}, {"lr": 1e-3}, {"loss.pull": 1.0}),
    _trained("contrastive", "contrastive, sign", "cosine", {}, {"lr": 1e-3}, {"loss.temperature": 0.2}),
    _trained(
        "hierarchical_contrastive",
        "contrastive per level, sign",
        "cosine",
        {},
        {"lr": 1e-3},
        {"loss.temperature": 0.2},
    ),
    Method(
        "features-itq",
        "ITQ of the network's features",
        "labels",
        on_features(fit_linear(baselines.itq, True)),
        tasks=(*TREE_IMAGES, *OPEN_IMAGES),
        unlabelled=True,
    ),
    *_with_ablations(
        _trained(
            "rank_consistency",
            "RCDH",
            "cosine",
            {},
            {"loss.rank": 5.0},
            {"loss.rank": 5.0, "lr": 1e-3},
            tasks=("f",),
        ),
        ("no-rank", "no L_RC", {"loss.rank": 0.0}),
        ("no-centres", "no L_CL", {"loss.clustering": 0.0}),
        ("permuted", "labels of other rows", {"permuted": True}),
    ),
    _trained("dsrh", "DSRH", "cosine", {}, {"lr": 1e-3}, {"loss.margin": 0.1}, tasks=("f",)),
    *_with_ablations(
        _trained(
            "multilevel_triplet",
            "RMSH, one encoder",
            "cosine",
            {},
            {"lr": 1e-3},
            {"loss.quantization": 0.1},
            tasks=("f",),
        ),
        ("no-pseudo", "no pseudo-codes", {"loss.pseudo": 0.0}),
    ),
    _trained("bce", "BCE, sign", "cosine", {}, {"lr": 1e-3}, {"weight_decay": 0.1}, tasks=("f",)),
    Method(
        "ours-default",
        "fasthash, as it comes",
        "labels",
        on_features(fit_hasher("l1")),
        tasks=(*DEFAULTS, *TREE_IMAGES, *OPEN_IMAGES, "f"),
        unlabelled=True,
    ),
    Method("ours-undivided", "fasthash, undivided codes", "labels", fit_hasher("l1", **UNDIVIDED), tasks=DEFAULTS),
    *_with_ablations(
        replace(OURS, tasks=(*OURS.tasks, "f")),
        NO_KL,
        ("no-cls", "no classifier", {"classification": 0.0}),
        ("no-sim", "no similarity term", {"similarity_weight": 0.0}),
        STRESS,
    ),
    replace(
        _with_ablations(OURS, ("preserve", "preserve", {"preserve": 4.5}))[1],
        changes={name: {"preserve": 0.5} for name in CLASSES if name not in EMBEDDED}  # of the rows of a batch alone
        | {"e-unseen": {"preserve": 7.0, "similarity_weight": 2.0, "kl": 2.0}},
    ),
    *_with_ablations(
        replace(OURS, tasks=EMBEDDED),
        ("preserve-no-draws", "preserve, no random rows", {"preserve": 0.5, "draws": 0}),
    )[1:],
    *_with_ablations(
        replace(OURS, tasks=TREE_IMAGES),
        ("hard-labels", "one class as the target", {"soft_labels": 0.0}),
        ("scale-4", "scale 4 of the head", {"scale": 4.0}),
    )[1:],
    Method(
        "graph-seeds",
        "fasthash on the seeds alone",
        "labels",
        fit_hasher("l1", **UNDIVIDED),
        OURS_TRIED,
        tasks=GRAPHS,
    ),
    Method(
        "graph-pseudo",
        "fasthash, -1 in y",
        "labels",
        fit_hasher("l1", **ON_GRAPH),
        OURS_TRIED,
        tasks=GRAPHS,
        unlabelled=True,
    ),
    _on_graph("graph-propagated", "fasthash on label propagation", propagated),
    _on_graph("graph-refined", "fasthash on refined labels", refined()),
    _on_graph("graph-refined-no-mining", "fasthash on refined labels, no mining", refined(mining=False), True),
    _on_graph("graph-refined-one-round", "fasthash on refined labels, one round", refined(rounds=1), True),
    _on_graph("graph-refined-uniform", "fasthash on refined labels, w = 1", refined(affinity="uniform"), True),
    *_with_ablations(
        Method(
            "ours-sim",
            "fasthash, similarities",
            "similarities",
            fit_hasher("l1", supervision="similarity", **UNDIVIDED),
            OURS_TRIED,
        ),
        NO_KL,
        STRESS,
        ("stress-no-kl", "stress, no KL", {"similarity": "stress", "kl": 0.0}),
    ),
    Method("few-itq", "ITQ", "inputs", fit_few_shot_itq, tasks=FEW_SHOT),
    replace(
        _few_shot("untrained", "untrained network", {}, "icnn"),
        settings=({"lr": 1e-9, "epochs": 1},),  # norms take their statistics
    ),
    _few_shot("prototypical", "ProtoNet", {"loss.temperature": 16.0}, "prototypical"),
    _few_shot("triplet", "prototype triplet", {"loss.margin": 2.0}, "prototype_triplet"),
    _few_shot("icnn", "ICNN", {"loss.neighbors": 2}, "icnn"),
    _few_shot("both", "prototype triplet + ICNN", {"loss.margin": 2.0}, "prototype_triplet", "icnn"),
    FEW_SUM,
    *(
        replace(
            FEW_SUM,
            name=f"few-sum-no-{name}",
            title=f"ProtoNet + prototype triplet + ICNN, without {title}",
            fit=fit_few_shot(*(each for each in SUM if each != left_out)),
            settings=({},),
            base="few-sum",
        )
        for name, title, left_out in (
            ("triplet", "prototype triplet", "prototype_triplet"),
            ("icnn", "ICNN", "icnn"),
        )
    ),
    Method(
        "few-ours",
        "fasthash, labels",
        "labels",
        fit_few_shot_ours,
        ({}, {"kl": 1.0}, {"preserve": 7.0, "similarity_weight": 2.0, "kl": 2.0}),
        dict.fromkeys((name for name in FEW_SHOT if "images" in name), ({}, {"kl": 1.0}, {"lr": 1e-3})),
        tasks=FEW_SHOT,
    ),
    *_with_ablations(
        Method("psh", "PSH (DisARM)", "labels", fit_words, PSH_TRIED, tasks=("g",)),
        ("arm", "ARM", {"gradient": "arm"}),
        ("vae", "the VAE alone", {"pair": 0.0, "classification": 0.0}),
        ("no-pair", "no pairs", {"pair": 0.0}),
        ("no-cls", "no classifier", {"classification": 0.0}),
        ("no-kl", "no KL of bits", {"kl": 0.0}),
    ),
    *(
        Method(f"psh-{name.replace('_', '-')}", f"PSH ({title})", "labels", fit_words, tried, tasks=("g",))
        for name, title in (("straight_through", "straight-through"), ("gumbel", "Gumbel"))
        for tried in [tuple({**settings, "gradient": name} for settings in PSH_TRIED)]
    ),
    *_with_ablations(
        Method("texts-ours", "fasthash", "labels", fit_hasher("l1", **UNDIVIDED), OURS_TRIED, tasks=("g",)), NO_KL
    ),
    Method(
        "noisy-hashnet",
        "HashNet, pairs below 0.25",
        "noisy similarities",
        fit_from_noise("hashnet"),
        ({}, {"lr": 1e-3}, {"gamma": 0.02}),
        tasks=("e-noisy",),
    ),
    Method(
        "noisy-contrastive",
        "contrastive, pairs below 0.25",
        "noisy similarities",
        fit_from_noise("contrastive"),
        ({}, {"lr": 1e-3}, {"temperature": 0.2}),
        tasks=("e-noisy",),
    ),
    *_with_ablations(
        Method(
            "noisy-ours",
            "fasthash",
            "noisy similarities",
            fit_from_noise(),
            ({}, {"temperature_y": 0.1}, {"batch_size": 512, "epochs": 30}),
            tasks=("e-noisy",),
        ),
        NO_KL,
        STRESS,
    ),
    *_with_ablations(
        Method("graph", "HashGNN", "edges", fit_graph, HASHGNN_TRIED, tasks=EDGES),
        ("no-graph", "no graph", {"layers": 0}),
        ("continuous", "outputs alone in training", {"beta": 0.0, "beta_rise": 0.0}),
        ("codes", "codes from the start", {"beta": 1.0}),
        ("no-entropy", "no cross-entropy", {"cross_entropy": 0.0}),
    ),
    Method("mf", "BPR-MF, floats", "edges", fit_factors(coded=False), FACTORS_TRIED, tasks=EDGES),
    Method("mf-sign", "BPR-MF, sign", "edges", fit_factors(), FACTORS_TRIED, tasks=EDGES),
    Method("mf-lsh", "BPR-MF, LSH", "edges", fit_on_factors(linear(baselines.lsh)), FACTORS_TRIED, tasks=EDGES),
    Method("mf-itq", "BPR-MF, ITQ", "edges", fit_on_factors(linear(baselines.itq)), FACTORS_TRIED, tasks=EDGES),
    Method("mf-ours", "BPR-MF, fasthash", "edges", fit_on_factors(hasher), FACTORS_TRIED, tasks=EDGES),
    *_with_ablations(
        Method("rmsh", "RMSH", "labels", fit_rmsh, RMSH_TRIED, tasks=PAIRS),
        ("no-pseudo", "no pseudo-codes", {"pseudo": 0.0}),
        ("no-pairing", "no L_pair", {"pairing": 0.0}),
        ("no-quantization", "no L_q", {"quantization": 0.0}),
        ("delta-1", "delta 1", {"delta": 1.0}),
        ("delta-half", "half of delta", {"delta": "half"}),
        ("delta-upper", "delta at the upper bound", {"delta": "upper"}),
        ("delta-k-2", "delta K / 2", {"delta": "K/2"}),
    ),
    Method(
        "pairs-fixed",
        "triplets with the margin K / 4",
        "labels",
        fit_joint(FixedMargin),
        RMSH_TRIED,
        tasks=PAIRS,
    ),
    Method("pairs-ours", "fasthash, labels", "labels", fit_joint(JointObjective), RMSH_TRIED, tasks=PAIRS),
    Method(
        "pairs-contrastive",
        "contrastive of pairs, sign",
        "inputs",
        fit_joint(PairContrastive),
        ({}, {"temperature": 0.2}, {"dropout": 0.5}),
        tasks=PAIRS,
    ),
    Method("cca-sign", "CCA, sign", "inputs", fit_cca(itq=False), CCA_TRIED, tasks=PAIRS),
    Method("cca-itq", "CCA, ITQ", "inputs", fit_cca(itq=True), CCA_TRIED, tasks=PAIRS),
)
