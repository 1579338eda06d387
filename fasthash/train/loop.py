"""The training loop: any module, any loader, one objective."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fasthash import distributed
from fasthash._arguments import choice, one_device
from fasthash._checkpoint import RUN, save_checkpoint
from fasthash.train.averaging import Average
from fasthash.train.plan import PRECISIONS, Plan, adamw, own_optimizer, warn_slow
from fasthash.train.progress_lines import ProgressLines
from fasthash.train.randomness import RankGenerator, common_states, set_common_states
from fasthash.train.run_folder import RunFolder, open_run
from fasthash.train.state import History, State
from fasthash.train.threads import own_threads, short_waits, step_operations, threads_for
from fasthash.train.two_parts import TwoPartEncoder
from fasthash.train.unpacking import Batch, unpacked
from fasthash.train.weights import module_name

__all__ = ["History", "train"]


def train(
    module: nn.Module,
    loader: Iterable[Any],
    objective: Callable[..., Tensor],
    *,
    epochs: int = 15,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    warmup: float = 0.1,
    accumulate: int = 1,
    precision: str = "float32",
    ema: float = 0.0,
    score: Callable[[nn.Module], float] | None = None,
    score_every: int = 1,
    patience: int | None = None,
    run_dir: str | PathLike[str] | None = None,
    config: dict[str, Any] | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
    compile: bool = False,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    group: Any = None,
    device: torch.device | str | None = None,
    progress: bool | str | None = None,
) -> History:
    """Trains `module`, and the parameters of `objective` if it has some, with AdamW or your own optimizer.

    Args:
        module: x [B, ...] -> outputs z [B, bits] in [0, 1], for example a backbone with a `HashHead`.
        loader: a DataLoader, or anything that can be iterated once for each epoch. A batch is x, (x, y) or
            (x, y, features), tensors or numpy arrays; the objective is called as objective(z), objective(z, y),
            objective(z, y, features). Or a dict: its entry "y", "label", "labels", "target" or "targets" is y, and the
            rest is x, which the module is called with by name where there is more than one entry (input_ids and
            attention_mask, say).
        objective: gives the scalar loss: an `Objective`, or any function of the same arguments.
        epochs: passes over the loader.
        lr: highest learning rate: it rises linearly over the first `warmup` (a part of all steps), then falls to 0 in a
            cosine. weight_decay: AdamW's, of matrices only (not of biases, scales and norms).
        accumulate: batches whose gradients are averaged for one step. Losses over pairs see the pairs of each batch
            only, so this is not the same as larger batches.
        precision: "float32", or "bfloat16" or "float16" for mixed precision: the module runs under autocast (with a
            gradient scaler for float16), weights and losses stay float32. float16 on a CPU is slow, and warns.
        ema: decay of a running average of the weights over steps, such as 0.999. The average is scored, and the module
            ends with it (see `fasthash.train.averaging.Average`); 0: none.
        score: called with the module, in evaluation mode and without gradients, after every `score_every`-th epoch and
            the last; higher is better. The module ends with the weights of the best of these epochs; without a score,
            of the last.
        patience: stop after this number of scores in a row that were not better than the best. None: never.
        run_dir: a folder for config.json, environment.json, metrics.csv (a row for each epoch), checkpoint.safetensors
            (the state after the last whole epoch) and, at the end, model.safetensors (the module's state). If it holds
            a checkpoint the run continues from there. On a CPU with the same number of threads the weights are those of
            a run without interruption, bit for bit, if all random numbers come from the global generators of torch,
            numpy and Python or from generators of the loader and its samplers. A finished run is not trained again.
        config: recorded in config.json beside the settings above; a run continues only with the config that it began
            with.
        log: called after every epoch with its row of metrics.csv, a dict; call a tracker from here.
        compile: run the module by `torch.compile`.
        optimizer: makes the optimizer of the module, such as
            lambda m: torch.optim.SGD([{"params": m[0].parameters(), "lr": 0.01}, {"params": m[1].parameters()}], 0.1);
            None: AdamW. Each of its groups goes through the schedule up to its own rate. `lr` is then for parameters of
            the objective, and weight_decay has no meaning. What is in no group, or asks for no gradient, stays.
        group: a torch.distributed process group. Every rank of it calls this function (see docs/training.md). The
            loader gives each rank its part of every batch, the objective sees the whole batch, DistributedDataParallel
            averages gradients, and batch norms take statistics from all ranks. Rank 0 scores, logs and writes.
        device: where to train; None: on the device of the module.
        progress: show a bar on stderr; None: if stderr is a terminal; "lines": a line every 10 seconds, for logs.

    On a CPU a step uses only as many of torch's threads as its size needs (`fasthash.train.threads`): one if it takes
    less than about 20 ms on one core, at most torch.get_num_threads(), and that many for modules with matrices other
    than those of linear layers. `log` is called with that number of threads, `score` with all; afterwards the number is
    as before.

    Returns:
        The `History`. Module and objective are changed in place, stay on the device, and are left in evaluation mode.

    Raises:
        ValueError: a number out of range, a loader without batches, or a run_dir that holds another run, is damaged, or
            is in use.
        FloatingPointError: the mean loss of an epoch was NaN or infinite.
        fasthash.distributed.RankLostError: another rank of the group stopped, or did not answer within the timeout of
            the group. A run_dir lets all ranks go on, in any number.

    >>> from fasthash.train import HashHead, Objective
    >>> batches = [(torch.randn(32, 4), torch.arange(32) % 2) for _ in range(5)]
    >>> objective = Objective(8, classes=2, distance=1.0 - torch.eye(2))
    >>> history = train(HashHead(4, 8), batches, objective, epochs=2)
    >>> len(history.losses), history.best_epoch
    (2, 2)
    """
    plan = Plan(epochs, lr, weight_decay, warmup, accumulate, precision, ema, score_every, patience)
    if plan.patience is not None and score is None:
        raise ValueError(f"train: patience needs a score, got patience {plan.patience} and no score")
    if device is None:
        device = next(chain(module.parameters(), module.buffers()), torch.empty(0)).device
    device = one_device(device, "train")
    warn_slow(plan.precision, device, "train")
    return run(
        module,
        loader,
        objective,
        plan,
        device,
        score=score,
        run_dir=run_dir,
        config=config,
        log=log,
        compile=compile,
        optimizer=optimizer,
        group=group,
        progress=progress,
    )


def run(
    module: nn.Module,
    loader: Iterable[Any],
    objective: Callable[..., Tensor],
    plan: Plan,
    device: torch.device,
    *,
    score: Callable[[nn.Module], float] | None = None,
    run_dir: str | PathLike[str] | None = None,
    config: dict[str, Any] | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
    compile: bool = False,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    group: Any = None,
    progress: bool | str | None = None,
) -> History:
    """`train`, with its numbers as a `Plan`."""
    if isinstance(progress, str):
        choice(progress, "train", "progress", ("lines",))
    trained = nn.ModuleList([module.to(device)])
    if isinstance(objective, nn.Module):
        trained.append(objective.to(device))
    scaler = torch.amp.GradScaler(device.type) if plan.precision == "float16" else None
    if optimizer is None:
        made = adamw(trained, plan.lr, plan.weight_decay)
    else:
        made = own_optimizer(optimizer, trained, plan.lr)
        groups = [{"lr": float(part["lr"]), "parameters": len(part["params"])} for part in made.param_groups]
        config = {**(config or {}), "optimizer": {"kind": type(made).__name__, "groups": groups}}
    state = State(trained, made, scaler, loader, device)
    first = distributed.rank(group) == 0
    with (
        distributed.rank_faults(group, "train", lambda: _advice(state, run_dir)),
        distributed.waiting(group) as wait,
        open_run(run_dir, {**(config or {}), "train": asdict(plan)}, write=first) as folder,
        distributed.synced_batch_norms(module, group),
        short_waits() if device.type == "cpu" else contextlib.nullcontext(),
        contextlib.ExitStack() as until_end,
    ):
        wait()  # one rank may have read its data long before another
        steps = _Steps(state, objective, plan, compile, group, until_end, wait)
        state.average = Average(module, plan.ema) if plan.ema else None
        _go_on(state, folder, group)
        length = _length(loader)
        done = len(state.history.losses) * length
        with _bar(plan.epochs * length, done, progress if first else False) as bar:
            while not state.is_over(plan.epochs, plan.patience):
                _epoch(state, steps, score, bar)
                if folder is not None and first:
                    folder.save(*state.dump())
                if log is not None and first:
                    log(dict(state.metrics[-1]))
        state.finish()
        trained.eval()
        if folder is not None and first:
            folder.write_metrics(state.metrics)
            content = {"module": module_name(module)}
            save_checkpoint(folder.path / "model.safetensors", module.state_dict(), content, RUN)
    return state.history


def _bar(total: int, done: int, progress: bool | str | None) -> tqdm[Any] | ProgressLines:
    if progress == "lines":
        return ProgressLines(total, done)
    hidden = None if progress is None else not progress
    return tqdm(total=total, initial=done, desc="train", unit="step", disable=hidden)


def _epoch(
    state: State, steps: _Steps, score: Callable[[nn.Module], float] | None, bar: tqdm[Any] | ProgressLines
) -> None:
    """One epoch, with its score where one is due, noted in history and metrics."""
    plan, epoch, start = steps.plan, len(state.history.losses) + 1, time.perf_counter()
    loss = steps.epoch(epoch - 1, bar)
    if not math.isfinite(loss):
        raise FloatingPointError(f"train: the loss became {loss} in epoch {epoch}; lr {plan.lr} may be too high")
    due = score is not None and (epoch == plan.epochs or epoch % plan.score_every == 0)
    scored = None
    if score is not None and due:
        with own_threads(steps.every_thread):
            scored = _score(state, score, steps.group, steps.wait)
    state.history.losses.append(loss)
    state.take_score(scored)
    seconds = round(time.perf_counter() - start, 3)
    state.metrics.append({"epoch": epoch, "loss": loss, "score": scored, "lr": steps.lr, "seconds": seconds})
    bar.set_postfix({"loss": f"{loss:.4f}"} | ({} if scored is None else {"score": f"{scored:.4f}"}))


class _Steps:
    """The steps of an epoch: what runs, on which part of the batch, and how gradients become weights."""

    def __init__(
        self,
        state: State,
        objective: Callable[..., Tensor],
        plan: Plan,
        compile: bool,
        group: Any,
        until_end: contextlib.ExitStack,
        wait: Callable[[], None],
    ) -> None:
        self.state, self.objective, self.plan, self.group = state, objective, plan, group
        self.wait = wait
        self.until_end, self.every_thread, self.started = until_end, torch.get_num_threads(), False
        self.precision, self.length, self.lr, self.factor = PRECISIONS[plan.precision], _length(state.loader), 0.0, 0.0
        self.rates = [group["lr"] for group in state.optimizer.param_groups]  # the highest of each
        self.forward: Callable[..., Tensor] = state.module
        if group is not None:
            distributed.broadcast(chain(state.trained.parameters(), state.trained.buffers()), group)
            common = common_states(state.device)
            distributed.broadcast(common, group)
            set_common_states(common, state.device)
            if any(p.requires_grad for p in state.module.parameters()):
                self.forward = distributed.data_parallel(state.module, group)
        if compile:
            self.forward = torch.compile(self.forward)
        floating = (p.dtype for p in state.module.parameters() if p.is_floating_point())
        self.dtype = next(floating, torch.get_default_dtype())

    def epoch(self, epoch: int, bar: tqdm[Any] | ProgressLines) -> float:
        """Goes through the loader once, for the `epoch`-th time from 0; gives the mean loss."""
        state, accumulate = self.state, self.plan.accumulate
        state.trained.train()
        own = None if self.group is None else RankGenerator(distributed.rank(self.group), state.device)
        if own is not None:
            own.start_epoch(epoch)
        start = getattr(getattr(state.loader, "sampler", None), "set_epoch", None)
        if start is not None:  # a DistributedSampler's order
            start(epoch)
        total, count = torch.zeros((), device=state.device), 0
        for batch in state.loader:
            if count == 0:
                self.wait()  # rank 0 has written a checkpoint, and workers have started
            parts = unpacked(batch, state.module, state.device, self.dtype)
            self._start(parts)
            with contextlib.nullcontext() if own is None else own.active():
                z = self._outputs(parts)
            loss = self._loss(z, parts.rest)
            if count % accumulate == 0:
                state.optimizer.zero_grad(set_to_none=True)
            part = loss if accumulate == 1 else loss / accumulate
            (part if state.scaler is None else state.scaler.scale(part)).backward()
            total += loss.detach()  # read once an epoch: reading waits for the device
            self.factor = self.plan.factor(epoch + min((count + 0.5) / self.length, 1.0))
            self.lr = self.plan.lr * self.factor
            count += 1
            bar.update()
            if count % accumulate == 0:
                self._step()
        if count == 0:
            raise ValueError("train: the loader must give at least one batch, got none")
        if left := count % accumulate:
            for p in state.trained.parameters():
                if p.grad is not None:
                    p.grad *= accumulate / left
            self._step()
        return float(total) / count

    def _start(self, batch: Batch) -> None:
        """Before the first step: takes to the number of threads that its size is worth, until the end of the run."""
        if self.started:
            return
        self.started = True
        if self.state.device.type == "cpu":
            module, x = self.state.module, [*batch.places, *batch.names.values()]
            alone = len(x) == 1 or isinstance(module, TwoPartEncoder)
            operations = step_operations(module, self.objective, x[0]) if alone else None
            count = threads_for(operations, self.every_thread)
            self.until_end.enter_context(own_threads(count))
            self.until_end.enter_context(short_waits())

    def _outputs(self, batch: Batch) -> Tensor:
        if self.precision is None:
            return self.forward(*batch.places, **batch.names)
        with torch.autocast(self.state.device.type, self.precision):
            z = self.forward(*batch.places, **batch.names)
        return z.float()

    def _loss(self, z: Tensor, rest: list[Tensor]) -> Tensor:
        if self.group is not None:
            z, *rest = (distributed.gather_batch(part, self.group) for part in (z, *rest))
        return self.objective(z, *rest)

    def _step(self) -> None:
        state = self.state
        if self.group is not None and len(state.trained) > 1:
            # All ranks compute the same gradient of the objective's weights: the mean keeps them so to the last bit.
            distributed.average_gradients(state.trained[1].parameters(), self.group)
        for settings, rate in zip(state.optimizer.param_groups, self.rates, strict=True):
            settings["lr"] = rate * self.factor
        if state.scaler is None:
            state.optimizer.step()
        else:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        if state.average is not None:
            state.average.update()


def _go_on(state: State, folder: RunFolder | None, group: Any) -> None:
    """Takes up the state in the folder, if there is one; all ranks must find the same."""
    if folder is None:
        return
    found = folder.load() if folder.write else None
    if group is not None:
        distributed.broadcast([torch.zeros(1, device=state.device)], group)  # rank 0 has checked the folder
        found = found if folder.write else folder.load()
    if found is not None:
        try:
            state.restore(*found)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"train: run_dir {folder.path} holds a run of another module or objective, or is damaged: {error}"
            ) from None
    if group is not None:
        epochs = torch.tensor([len(state.history.losses)], device=state.device)
        ours = epochs.clone()
        distributed.broadcast([epochs], group)
        if int(epochs) != int(ours):
            raise ValueError(
                f"train: run_dir {folder.path} must be one folder for all ranks: rank 0 found {int(epochs)} epochs in "
                f"it, rank {distributed.rank(group)} {int(ours)}"
            )


def _score(state: State, score: Callable[[nn.Module], float], group: Any, wait: Callable[[], None]) -> float:
    """The score of the weights that count, as rank 0 takes it."""
    result = torch.zeros(1, dtype=torch.float64, device=state.device)
    if distributed.rank(group) == 0:
        state.trained.eval()
        devices = [state.device] if state.device.type == "cuda" else []
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices, enabled=group is not None),  # what it draws, the other ranks do not
            contextlib.nullcontext() if state.average is None else state.average.applied(),
        ):
            result += float(score(state.module))
    if group is not None:
        wait()
        distributed.broadcast([result], group)
    return float(result)


def _advice(state: State, run_dir: str | PathLike[str] | None) -> str:
    """Advice for the case that another rank was lost."""
    epoch = len(state.history.losses) + 1
    if run_dir is None:
        return f" (in epoch {epoch}; there is no run_dir, so training starts from the beginning)"
    return f" (in epoch {epoch}; start all ranks again, and they continue from the checkpoint in {run_dir})"


def _length(loader: Iterable[Any]) -> int:
    """Batches in an epoch; 1 where the loader cannot tell, so that the schedule moves by epochs."""
    try:
        return max(len(loader), 1)  # type: ignore[arg-type]
    except TypeError:
        return 1
