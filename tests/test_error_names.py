"""Every public function's errors begin with its own name, whatever it is given in the place of an argument."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fasthash
from fasthash import Hierarchy, baselines, codes, embeddings, evaluate, gradients, losses, metrics, targets
from fasthash.losses.published import LOSSES

rng = np.random.default_rng(0)
CODES = rng.integers(0, 256, (20, 8), dtype=np.uint8)
X = rng.normal(size=(20, 6))
Y = np.arange(20) % 4
SIMILARITY = np.eye(4) + 0.5 * np.kron(np.eye(2), 1 - np.eye(2))

# Arguments that a function may take, by name; those of one function only are in OWN.
SHARED: dict[str, Any] = {
    "z": torch.rand(10, 6),
    "target": torch.rand(10, 6),
    "distance": 1.0 - torch.eye(10),
    "temperature_y": 0.2,
    "temperature_z": 0.1,
    "weight": None,
    "weights": None,
    "tau_z": None,
    "tau_y": None,
    "eps": 1e-2,
    "p": 2,
    "k": 3,
    "x": X,
    "y": X,
    "X": X,
    "E": X,
    "Y": np.eye(4, dtype=int),
    "a": CODES,
    "b": CODES,
    "codes": CODES,
    "queries": CODES[:5],
    "query": CODES[:5],
    "database": CODES,
    "query_labels": Y[:5],
    "database_labels": Y,
    "query_input": X[:5],
    "database_input": X,
    "class_similarity": SIMILARITY,
    "class_weights": np.ones((5, 4)),
    "run": {"0": {"1": 1.0}},
    "qrels": {"0": {"1": 1}},
    "query_names": range(5),
    "database_names": range(len(CODES)),
    "filter": None,
    "radius": 3,
    "at": 5,
    "ties": "expected",
    "classes": ["a", "b"],
    "hierarchy": None,
    "matrix": 1 - SIMILARITY,
    "distances": 1 - SIMILARITY,
    "limit": 4,
    "relative": torch.rand(3, 3),
    "threshold": 0.5,
    "iterations": 2,
    "seed": 0,
    "bits_per_dimension": 2,
    "logits": torch.zeros(10, 6),
    "f": lambda bits: bits.sum(-1),
    "Q": X[:5],
    "encoder": "lsh",
    "oversample": 3,
    "fit_rows": 100,
}
OWN: dict[str, dict[str, Any]] = {
    "asymmetric_topk": {
        "queries": rng.random((5, 64)),
        "code_scale": np.ones(20, np.float16),
        "metric": "dot",
        "bit_weights": None,
    },
    "maxsim_topk": {"query_offsets": [0, 2, 5], "offsets": [0, 1, 8, 15, 20], "bit_weights": None},
    "retrieval": {"query_names": None, "database_names": None},
    "pack_bits": {"z": X},
    "against_exact": {"at": [3], "bits": [8], "refine": "int8", "metric": "dot", "progress": False},
    "from_signed": {"codes": CODES.view(np.int8)},
    "duplicate_groups": {"link": "star"},
    "hamming_pairs": {"other": CODES, "limit": 40},
    "label_distances": {"y": Y},
    "code_distance_bounds": {"bits": 64, "words": 150},
    **{name: {"bits": 64} for name in ("unpack_bits", "code_bytes", "evaluate", "code_statistics")},
    **{name: {"bits": 4} for name in ("lsh", "pca_sign", "itq")},
}
BAD: list[Any] = [
    None,
    "text",
    object(),
    1.5,
    -3,
    True,
    float("nan"),
    [],
    {},
    np.array(["a", "b"]),
    np.zeros((2, 3), complex),
    np.zeros((0, 6)),
    np.zeros(3, np.int64),
    np.zeros((7, 5)),
    np.full((20, 6), np.nan),
    torch.zeros(4, 3, 2, dtype=torch.int32),
    10**30,
]
ENDLESS = {("itq", "iterations", 10**30)}  # a number that is legal, and takes too long


def functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for home in (fasthash, codes, targets, baselines, embeddings, evaluate, gradients, losses, metrics):
        for name in getattr(home, "__all__", vars(home)):
            value = getattr(home, name)
            own = home is fasthash or value.__module__.startswith(home.__name__) if inspect.isfunction(value) else False
            if own and not name.startswith(("_", "check_", "read_")):  # a file that is not there is an OSError
                found[name] = value
    return found


FUNCTIONS = functions()


def valid(name: str) -> dict[str, Any]:
    known = {**SHARED, **OWN.get(name, {})}
    return {key: known[key] for key in inspect.signature(FUNCTIONS[name]).parameters if key in known}


def own_error(call: Callable[[], Any], name: str, what: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as caught:
            error = caught
        else:
            return
    assert str(error).startswith(f"{name}: "), f"{what}: {type(error).__name__}: {error}"
    assert not re.search(r"torch\.(u?int|b?float|bool|complex)", str(error)), f"{what}: {error}"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_errors_begin_with_the_name_of_the_function(name: str) -> None:
    arguments = valid(name)
    FUNCTIONS[name](**arguments)
    for key in arguments:
        for bad in BAD:
            if (name, key) in {case[:2] for case in ENDLESS} and isinstance(bad, int) and bad == 10**30:
                continue
            own_error(lambda key=key, bad=bad: FUNCTIONS[name](**{**arguments, key: bad}), name, f"{key}={bad!r}")


def test_sides_of_two_widths_and_kinds_are_told_by_the_function_that_was_called() -> None:
    for name in ("nearest", "kl_divergence", "kl_loss"):
        x, y = torch.rand(9, 4), torch.rand(9, 5)
        with pytest.raises(ValueError, match=f"^{name}: both sides must have the same D, got 4 and 5"):
            FUNCTIONS[name](x, y)
        with pytest.raises(ValueError, match=f"^{name}: leading dimensions must broadcast"):
            FUNCTIONS[name](torch.rand(2, 9, 4), torch.rand(3, 9, 4))
    for name in ("entropy", "kl_divergence"):
        rest = (X,) if name == "kl_divergence" else ()
        for one in (X[:1], X[:0]):
            with pytest.raises(ValueError, match=f"^{name}: at least 1 other row is needed"):
                FUNCTIONS[name](one, *rest)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_errors_of_published_losses(name: str) -> None:
    levels = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    wanted = inspect.signature(LOSSES[name].__init__).parameters
    known = {key: value for key, value in {"bits": 6, "classes": 4, "levels": levels}.items() if key in wanted}
    loss, title = LOSSES[name](**known), LOSSES[name].__name__
    u, y = torch.rand(20, 6), torch.rand(20, 3) if name == "sdc" else torch.from_numpy(Y)
    loss(u, y)
    for bad in BAD:
        own_error(lambda bad=bad: loss(bad, y), title, f"u={bad!r}")
        own_error(lambda bad=bad: loss(u, bad), title, f"y={bad!r}")
        if not (isinstance(bad, int) and bad == 10**30):
            for key in known:
                own_error(lambda key=key, bad=bad: LOSSES[name](**{**known, key: bad}), title, f"{key}={bad!r}")


def test_a_hierarchy_is_asked_for_by_name() -> None:
    with pytest.raises(TypeError, match="class_distances: hierarchy must be a Hierarchy or None, got list"):
        targets.class_distances(["a", "b"], [("r", "a"), ("r", "b")])
    assert targets.class_distances(["a", "b"], Hierarchy.from_edges([("r", "a"), ("r", "b")])).shape == (2, 2)
