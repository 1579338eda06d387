"""The methods, each with the settings that are tried on validation data: as many for every method that learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.quality import few_shot, graded_methods
from benchmarks.quality.class_byte import ClassByte
from benchmarks.quality.cross_modal_methods import (
    FixedMargin,
    JointObjective,
    PairContrastive,
    fit_cca,
    fit_joint,
    fit_rmsh,
)
from benchmarks.quality.fits import (
    TREE_IMAGES_TRIED,
    UNDIVIDED,
    Model,
    Settings,
    fit_byte,
    fit_few_shot,
    fit_few_shot_itq,
    fit_few_shot_ours,
    fit_free_codes,
    fit_from_noise,
    fit_hasher,
    fit_linear,
    fit_rotation,
    fit_sign,
    fit_two_views,
    fit_words,
    on_features,
)
from benchmarks.quality.graded_methods import fit_graded, grid
from benchmarks.quality.graded_task import BYTES
from benchmarks.quality.graded_task import TASKS as GRADED_TASKS
from benchmarks.quality.graph_task import propagated, refined, spread_then
from benchmarks.quality.recommenders import (
    fit_factors,
    fit_graph,
    fit_on_factors,
    hasher,
    linear,
)
from benchmarks.quality.tasks import Items, Task
from benchmarks.quality.view_task import on_gradients
from fasthash import baselines

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
VIEWS = ("m-mnist", "m-kmnist")
GRADED = tuple(GRADED_TASKS)
ANCHORED = ("a", "b", "b-reduced", "c", "c-reduced")  # every class has rows to train on
FEW_SHOT = tuple(few_shot.TASKS)


@dataclass(frozen=True)
class Method:
    """`fit(task, rows, bits, seed, settings)` -> Model. `settings`: those tried; an ablation has its `base`'s.

    `elsewhere`, `changes`: those tried, and an ablation's change, in their place on the tasks that they name.
    `unlabelled`: it learns from labels, and from rows without one too. `widths`: those it has; None: all of the task.
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
    widths: tuple[int, ...] | None = None

    def rows(self, train: Items) -> Items:
        """Those of the training rows that it is fitted on."""
        return train if self.learns_from == "inputs" or self.unlabelled else train.labelled


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


def _graded(name: str, title: str, learn: graded_methods.Learn, most: int, *settings: Settings) -> Method:
    """Of at most so many bytes an item; more would not be filled."""
    name, widths = f"graded-{name}", tuple(8 * count for count in BYTES if count <= most)
    fit = fit_graded(learn, name)
    return Method(name, title, "inputs", fit, settings or ({},), tasks=GRADED, widths=widths)  # type: ignore[arg-type]


def _grids(name: str, title: str, function: Any, seeded: bool = True) -> tuple[Method, ...]:
    """1, 2 and 4 bits a dimension; at most what first holds all 384 dimensions and a scale."""
    return tuple(
        _graded(f"{name}-{planes}", f"{title}, {planes} bit{'s' * (planes > 1)}", grid(function, planes, seeded), most)
        for planes, most in ((1, 64), (2, 128), (4, 212))
        if not (name == "turboquant" and planes == 1)  # that is RaBitQ of 1 bit
    )


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


CAPTION_EPOCHS = 40  # without labels: a linear encoder's steps cost little
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
BYTE_TRIED: tuple[Settings, ...] = ({"C": 1.0}, {"C": 10.0}, {"C": 100.0})
BYTE_ITQ_TRIED: tuple[Settings, ...] = (
    {"weight": 64, "graded": False},
    {"weight": 64},
    {"weight": 255},
)
ASYMMETRIC_TRIED: tuple[Settings, ...] = ({}, {"lr": 1e-3}, {"epochs": 1})
CIMON_TRIED: tuple[Settings, ...] = ({}, {"contrast": 1.0}, {"contrast": 1.0, "similar": 0.1})
PSH_TRIED: tuple[Settings, ...] = ({}, {"pair": 3.0}, {"lr": 4e-2, "classification": 100.0})
UNSEEN = dict.fromkeys(("e-unseen", *UNSEEN_IMAGES), UNSEEN_TRIED)

MULTILABEL_TRIED: tuple[Settings, ...] = ({}, {"similarity_weight": 2.0}, {"temperature_y": 0.15})
HASHGNN_TRIED: tuple[Settings, ...] = ({}, {"beta_rise": 0.02}, {"cross_entropy": 1.0})
RMSH_TRIED: tuple[Settings, ...] = ({}, {"lr": 1e-3}, {"dropout": 0.5})
CCA_TRIED: tuple[Settings, ...] = tuple({"regularization": part} for part in (0.1, 1.0, 10.0))
GRADED_TRIED: tuple[Settings, ...] = tuple(
    {**trained, **searched}
    for searched in ({}, {"decoded": False})
    for trained in (
        {"epochs": 4},
        {"epochs": 2, "lr": 1e-3},
        {"epochs": 2, "lr": 1e-3, "components": 96},
        {"epochs": 1, "lr": 1e-4},  # hardly away from its start, ITQ
    )
)
FACTORS_TRIED: tuple[Settings, ...] = ({"l2": 1e-3}, {"l2": 1e-2}, {"l2": 3e-2})

ON_GRAPH: Settings = {"item_bits": 0, "hidden": (256,), "epochs": 30}
GRAPH_TRIED: tuple[Settings, ...] = (
    {"target": "hard"},
    {"target": "hard", "temperature_z": 0.15},
    {"target": "soft", "neighbors": 1, "temperature_y": 0.15, "temperature_z": 0.1, "kl": 0.1},
)

DEFAULTS = ("a", *OPEN)  # tasks where Hasher is tried with its defaults

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
        "fasthash, defaults",
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
    Method("views-itq", "ITQ", "inputs", on_gradients(fit_linear(baselines.itq, True)), tasks=VIEWS),
    Method(
        "views-sdc",
        "SDC",
        "inputs",
        on_gradients(fit_hasher("cosine", loss="sdc", epochs=CAPTION_EPOCHS)),
        ({}, {"loss.a": 2.0, "loss.b": 2.0}, {"lr": 1e-3}),
        tasks=VIEWS,
    ),
    Method(
        "views-bihalf",
        "BiHalf",
        "inputs",
        on_gradients(fit_hasher("l1", loss="bihalf", epochs=CAPTION_EPOCHS)),
        ({}, {"lr": 1e-3}, {"loss.gamma": 1.0}),
        tasks=VIEWS,
    ),
    Method(
        "views-ours",
        "fasthash",
        "inputs",
        on_gradients(fit_hasher("l1", epochs=CAPTION_EPOCHS)),
        ({}, {"kl": 1.0}, {"hidden": (512,)}),
        tasks=VIEWS,
    ),
    *_with_ablations(
        Method("cimon", "CIMON", "inputs", fit_two_views, CIMON_TRIED, tasks=VIEWS),
        ("no-confidence", "W1 = 1", {"confidence": False}),
        ("no-clusters", "W2 = 1", {"clusters": 0}),
        ("no-contrast", "no NT-Xent", {"contrast": 0.0}),
        ("one-view", "one view", {"views": 1}),
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
    replace(_graded("sign", "sign(x - mean)", graded_methods.sign, 48), widths=(384,)),
    _graded("rotation", "random rotation, sign", graded_methods.rotation, 48),
    _graded("itq", "ITQ", graded_methods.itq, 48),
    _graded("itq-scales", "ITQ with scales", graded_methods.itq_with_scales, 48),
    _graded("itq-decoded", "ITQ with a decoder", graded_methods.itq_decoded, 48),
    *_grids("rabitq", "RaBitQ", baselines.rabitq),
    *_grids("osq", "OSQ", baselines.osq, seeded=False),
    *_grids("turboquant", "TurboQuant", baselines.turboquant),
    _graded("pq", "PQ", graded_methods.pq, 212),
    _graded("ours", "fasthash", graded_methods.ours, 212, *GRADED_TRIED),
    _graded("default", "fasthash, defaults", graded_methods.ours, 64),
)
