"""GraphHasher: from edges between users and items to binary codes of both, in the manners of Hasher."""

from __future__ import annotations

import operator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arguments import number, one_device, shown, whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._checkpoint import GRAPH, check_tensors, load_checkpoint, save_checkpoint
from fasthash.codes import pack_bits
from fasthash.hamming import SearchResult, hamming_topk
from fasthash.train.checksum import fingerprint
from fasthash.train.edges import Edges, read_edges
from fasthash.train.hash_gnn import Graph, GraphEncoder, LinkBatches, LinkLoss, RowOutputs
from fasthash.train.loop import run
from fasthash.train.params import Params
from fasthash.train.plan import LIMITS as PLAN
from fasthash.train.plan import Plan
from fasthash.train.randomness import seeded
from fasthash.train.settings import NOT_SAVED, RUN, Limits, checked
from fasthash.train.state import History
from fasthash.train.threads import short_waits

MOST_LAYERS = 8
BLOCK = 1 << 24  # codes that the searches of a block of users may give

LIMITS: Limits = {
    **RUN,
    "layers": partial(whole, low=0, high=MOST_LAYERS),
    "negatives": partial(whole, low=1),
    "beta": partial(number, least=0, most=1),
    "beta_rise": partial(number, least=0, most=1),
    "cross_entropy": partial(number, least=0),
    "epochs": PLAN["epochs"],
    "batch_size": partial(whole, low=1),
    "weight_decay": PLAN["weight_decay"],
}


class UsersItems(NamedTuple):
    """Outputs float32 [U, bits] and [I, bits], or packed codes uint8, of users and of items."""

    users: Any
    items: Any


class GraphHasher(Params):
    """Learns binary codes of users and items from edges between them: good next items are near the user.

    HashGNN: a network along the edges makes outputs of all users and items. The loss draws a user's items nearer than
    other items. In training a row of outputs is replaced by its code with probability beta, which rises from epoch to
    epoch. `fasthash.train.hash_gnn` has formulas and source, and says how sure each part is.

    Layers, negatives and cross_entropy are those of the authors' public code. The other settings are ours, chosen on
    validation edges of MovieLens: each step uses all edges, so batch_size and lr are larger (256 and 1e-3 there). Beta
    rises to 0.95 in 40 epochs; there it rises to 1 in 100 epochs (20 by default). lr rises and falls as in
    `fasthash.train.train`; it is constant there.

    Args:
        bits: length of a code, 1 to 4096.
        layers: how many edges away a user's code sees; items see one less; 0: no graph, only ids.
        negatives: items without an edge, drawn anew for each edge and step; the loss pushes them further away.
        beta: the probability of codes in the first epoch; beta_rise: its increase after every second epoch, up to 1.
            beta=1: codes from the start. Both 0: only real-valued outputs; codes are their signs.
        cross_entropy: weight of the loss that tells edges from other pairs, beside the ranking loss.
        epochs: passes over the edges. batch_size: edges of a step.
        lr, weight_decay: of AdamW.
        run_dir: folder of the run (see `fasthash.train.train`), at the end with model.safetensors as `save` writes it.
            `fit` with the same settings and edges continues an interrupted run, to the same codes.
        device: where to train, "cpu" or "cuda"; None: where a tensor of edges is, else the CPU.
        seed: for weights, order and sampling. The same edges, seed, machine and number of threads give the same codes
            on the CPU. Global generators do not change.
        progress: show a bar on stderr; None: if stderr is a terminal.

    After `fit`: module_ (the network), shape_ (users, items), history_ (losses by epoch).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> users = rng.integers(0, 40, 600)
    >>> edges = np.column_stack([users, 2 * rng.integers(0, 30, 600) + users % 2])  # items of one's own parity
    >>> hasher = GraphHasher(bits=16, epochs=20, seed=0, progress=False).fit(edges, shape=(40, 60))
    >>> codes = hasher.encode()
    >>> codes.users.shape, codes.items.shape
    ((40, 2), (60, 2))
    >>> found = hasher.recommend([0, 1], k=5)  # items without an edge to the user
    >>> bool((found.ids % 2 == [[0], [1]]).mean() > 0.9)
    True
    """

    def __init__(
        self,
        bits: int = 32,
        *,
        layers: int = 2,
        negatives: int = 10,
        beta: float = 0.0,
        beta_rise: float = 0.05,
        cross_entropy: float = 0.1,
        epochs: int = 40,
        batch_size: int = 4096,
        lr: float = 2e-2,
        weight_decay: float = 0.0,
        run_dir: str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.bits = bits
        self.layers = layers
        self.negatives = negatives
        self.beta = beta
        self.beta_rise = beta_rise
        self.cross_entropy = cross_entropy
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.run_dir = run_dir
        self.device = device
        self.seed = seed
        self.progress = progress

    @short_waits()
    def fit(self, edges: Any, *, shape: tuple[int, int] | None = None) -> GraphHasher:
        """Learns from edges: integers [E, 2], rows (user, item), or a scipy sparse matrix [U, I], entries other than 0.

        Users and items are each numbered from 0 (`numpy.unique(ids, return_inverse=True)` does that). A repeated pair
        counts once. shape: (users, items), if some of the last have no edge; None: up to the largest ids, or that of
        the matrix. Memory and time grow with the number of users and items, also of those without edges.

        A user without items gets the code of the average user. An item without users gets its own code, learned only
        when it is drawn as a negative.

        Raises ValueError or TypeError, naming argument, limit and value, for settings out of range and for edges that
        do not fit: ids below 0 or beyond shape, no edge, no user with an item left. FloatingPointError: the loss became
        NaN or infinite.
        """
        settings = checked(self.get_params(), "GraphHasher.fit", LIMITS)
        read = read_edges(edges, shape, "GraphHasher.fit")
        batches = LinkBatches(
            read,
            settings["negatives"],
            batch_size=settings["batch_size"],
            seed=settings["seed"],
            start=settings["beta"],
            rise=settings["beta_rise"],
        )
        if not len(batches):
            got = f"all {len(read)} pairs of {read.shape[0]} users and {read.shape[1]} items"
            raise ValueError(f"GraphHasher.fit: edges must leave some user at least 1 item without an edge, got {got}")
        here = edges.device if isinstance(edges, Tensor) else torch.device("cpu")
        device = here if settings["device"] is None else settings["device"]
        plan = Plan(settings["epochs"], settings["lr"], settings["weight_decay"])
        run_dir = settings["run_dir"]
        with seeded(settings["seed"], device):
            encoder = GraphEncoder(read.shape, settings["bits"], settings["layers"])
            history = run(
                RowOutputs(encoder, Graph(read)),
                batches,
                LinkLoss(settings["cross_entropy"]),
                plan,
                device,
                run_dir=run_dir,
                config=None if run_dir is None else _config(settings, read),
                progress=settings["progress"],
            )
        if not read.counts.all():
            encoder.give_mean_id(torch.from_numpy(read.counts == 0).to(device))
        self._take(settings, encoder.eval(), read, _outputs(encoder, read), history)
        if run_dir is not None:
            self.save(Path(run_dir) / "model.safetensors")
        return self

    def transform(self, edges: Any = None) -> UsersItems:
        """Outputs float32 in [0, 1] of all users [U, bits] and items [I, bits]: numpy, or tensors for a tensor.

        edges: other edges between the same users and items, for example newer ones; nothing is trained again. None:
        those of `fit`. Raises NotFittedError before `fit`, ValueError and TypeError as `fit`.
        """
        self._fitted("transform")
        return UsersItems(*(like(_in_unit(z), edges) for z in self._signed(edges, "transform")))

    def encode(self, edges: Any = None) -> UsersItems:
        """Packed codes uint8 [U, ceil(bits / 8)] and [I, ceil(bits / 8)]: `pack_bits(transform(edges))`, of both."""
        self._fitted("encode")
        return UsersItems(*(like(pack_bits(_in_unit(z)), edges) for z in self._signed(edges, "encode")))

    def recommend(self, users: Any, k: int = 10, *, rescore: int = 0) -> SearchResult:
        """The k items with the nearest codes for each user, without those that the user has an edge with in `fit`.

        Args:
            users: one number or integers [Q], of 0..U-1.
            k: 1 to I.
            rescore: 0: Hamming distances, int32. f >= 1: of the f x k nearest by code, the k with the least (bits - x .
                y) / 2, float32, of the real-valued outputs x and y in (-1, 1). This is the Hamming distance if outputs
                are codes. Needs the outputs of all items, 32 times the size of their codes.

        Returns:
            distances and ids [Q, k], ordered by (distance, id); numpy, or tensors for a tensor of users. If fewer than
                k items are left for a user the missing places have id -1 and distance bits + 1.

        Raises NotFittedError before `fit`, ValueError and TypeError, naming the limit, for other arguments.
        """
        self._fitted("recommend")
        wanted = _numbers(users, self.shape_[0])
        items = self.shape_[1]
        k = whole(k, "GraphHasher.recommend", "k", 1, items, "the number of items")
        rescore = whole(rescore, "GraphHasher.recommend", "rescore", 0)
        near = min(items, k * max(rescore, 1))
        counts = self._edges.counts[wanted]
        blocks = max(1, -(-len(wanted) * (near + int(counts.max(initial=0))) // BLOCK))
        parts = [self._nearest(block, near) for block in np.array_split(wanted, blocks)]
        found = SearchResult(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        if rescore:
            found = self._rescored(wanted, found)
        device = users.device if isinstance(users, Tensor) else "cpu"
        return SearchResult(*(like(torch.from_numpy(part[:, :k].copy()).to(device), users) for part in found))

    def save(self, path: str | PathLike[str]) -> None:
        """Writes network, edges and outputs as one safetensors file, with the settings of `fit` as JSON inside.

        An existing file is replaced only when the new one is on the disk. Raises NotFittedError before `fit`.
        """
        self._fitted("save")
        tensors = {f"network.{name}": value for name, value in self.module_.state_dict().items()}
        tensors |= {"edges": torch.from_numpy(self._edges.keys), "users": self._users, "items": self._items}
        content = {
            "settings": {name: value for name, value in self._settings.items() if name not in NOT_SAVED},
            "shape": self.shape_,
            "losses": self.history_.losses,
        }
        save_checkpoint(path, tensors, content, GRAPH)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> GraphHasher:
        """The GraphHasher that `save` wrote, on `device` (None: the CPU): it has the same codes, bit for bit.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, GRAPH)
        place = one_device("cpu" if device is None else device, GRAPH.load)
        try:
            settings = checked(cls(**content["settings"]).get_params(), "its settings", LIMITS)
            users, items = (operator.index(n) for n in content["shape"])
            keys = tensors.pop("edges")
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                encoder = GraphEncoder((users, items), settings["bits"], settings["layers"])
                expected = {f"network.{name}": value for name, value in encoder.state_dict().items()}
                for name, rows in (("users", users), ("items", items)):
                    expected[name] = torch.empty(rows, settings["bits"], dtype=torch.float32)
            check_tensors(tensors, expected)
            edges = _stored_edges(keys, (users, items))
            outputs = tensors.pop("users").to(place), tensors.pop("items").to(place)
            network = {name.removeprefix("network."): value for name, value in tensors.items()}
            encoder.load_state_dict(network, assign=True)
            losses = [float(loss) for loss in content["losses"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{GRAPH.load}: {path} is damaged or not a fasthash {GRAPH.noun}: {error}") from None
        hasher = cls(**{**content["settings"], "device": device})
        history = History(losses, [None] * len(losses), len(losses))
        hasher._take(settings, encoder.to(place).eval(), edges, outputs, history)
        return hasher

    def _take(
        self,
        settings: dict[str, Any],
        encoder: GraphEncoder,
        edges: Edges,
        outputs: tuple[Tensor, Tensor],
        history: History,
    ) -> None:
        self._settings, self._edges = settings, edges
        self._users, self._items = outputs
        self.module_ = encoder
        self.shape_ = edges.shape
        self.history_ = history

    def _signed(self, edges: Any, method: str) -> tuple[Tensor, Tensor]:
        """Outputs in (-1, 1) of users and items."""
        if edges is None:
            return self._users, self._items
        users, items = _outputs(self.module_, read_edges(edges, self.shape_, f"GraphHasher.{method}"))
        return (users.to(edges.device), items.to(edges.device)) if isinstance(edges, Tensor) else (users, items)

    def _nearest(self, users: NDArray[np.int64], near: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The `near` nearest items by code, of those that are not the user's."""
        counts = self._edges.counts[users]
        depth = min(self.shape_[1], near + int(counts.max(initial=0)))
        of_users = self._users[torch.from_numpy(users).to(self._users.device)]
        codes, database = (pack_bits(_in_unit(z)) for z in (of_users, self._items))
        distances, ids = (part.numpy(force=True) for part in hamming_topk(codes, database, depth))
        known = self._edges.holds(users[:, None], ids)
        order = np.argsort(known, axis=1, kind="stable")[:, :near]
        distances, ids, known = (np.take_along_axis(part, order, 1) for part in (distances, ids, known))
        distances[known], ids[known] = self._settings["bits"] + 1, -1
        return distances, ids

    def _rescored(self, users: NDArray[np.int64], found: SearchResult) -> SearchResult:
        """The same items, ordered by real-valued outputs."""
        bits = self._settings["bits"]
        x, y = (z.numpy(force=True) for z in (self._users, self._items))
        distances = np.empty(found.ids.shape, dtype=np.float32)
        for row, (user, ids) in enumerate(zip(users, found.ids, strict=True)):
            distances[row] = (bits - y[ids] @ x[user]) / 2
        distances[found.ids < 0] = bits + 1
        order = np.lexsort((found.ids, distances), axis=1)
        return SearchResult(*(np.take_along_axis(part, order, 1) for part in (distances, found.ids)))


@torch.no_grad()
def _outputs(encoder: GraphEncoder, edges: Edges) -> tuple[Tensor, Tensor]:
    users, items = encoder(Graph(edges).to(next(encoder.parameters()).device))
    return users, items


def _in_unit(z: Tensor) -> Tensor:
    """Outputs in (-1, 1) as `transform` gives them; codes are roundings of these, to the last bit."""
    return (1.0 + z) / 2


def _config(settings: dict[str, Any], edges: Edges) -> dict[str, Any]:
    """What identifies a run."""
    kept = {name: value for name, value in settings.items() if name not in NOT_SAVED}
    return {"graph_hasher": kept, "data": {"shape": edges.shape, "edges": fingerprint(torch.from_numpy(edges.keys))}}


def _stored_edges(keys: Tensor, shape: tuple[int, int]) -> Edges:
    if keys.dtype != torch.int64 or keys.dim() != 1:
        raise ValueError(f"its edges are {list(keys.shape)} {dtype_name(keys)}, not [E] int64")
    return read_edges(torch.stack([keys // shape[1], keys % shape[1]], dim=1), shape, "its edges")


def _numbers(users: Any, limit: int) -> NDArray[np.int64]:
    """Numbers of users int64 [Q], checked."""
    given = to_tensor(users, "GraphHasher.recommend", "users").detach().cpu()
    if given.dim() == 0:
        given = given[None]
    if given.numel() == 0 and given.dim() == 1:
        given = given.long()
    if given.dim() != 1 or given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise TypeError(
            f"GraphHasher.recommend: users must be an integer or integers [Q], got {dtype_name(given)} {shown(given)}"
        )
    numbers: NDArray[np.int64] = given.long().numpy()
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= limit):
        raise ValueError(
            f"GraphHasher.recommend: users must be between 0 and {limit - 1}, got {numbers.min()}..{numbers.max()}"
        )
    return numbers
