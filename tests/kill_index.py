"""Kills a process with SIGKILL again and again while it changes an index, and checks what is left after each time.

    python tests/kill_index.py --kills 5000 [--keys]

A child does changes that are a function of their number: add, add with ids, upsert, remove, compact, build. It tells
through a pipe when one is done. After the kill the folder must open, verify, and hold exactly what all changes that
were done made of it, or those and the one that was under way. With --keys every code has a key.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fasthash import HammingIndex

ACTIONS = ("add", "add", "add ids", "add ids", "upsert", "remove", "remove", "compact", "build")


class Model:
    """What the index must hold after changes 0 .. number - 1."""

    def __init__(self):
        self.codes, self.next_id = {}, 0

    def copy(self):
        other = Model()
        other.codes, other.next_id = dict(self.codes), self.next_id
        return other

    def change(self, number):
        """(action, ids, codes) of a change to this state."""
        rng = np.random.default_rng(number)
        action = ACTIONS[rng.integers(len(ACTIONS))]
        codes = rng.integers(0, 256, (int(rng.integers(1, 40)), 8), np.uint8)
        known = np.array(sorted(self.codes), np.int64)
        if action in ("add ids", "build"):
            free = np.setdiff1d(np.arange(5000), known if action == "add ids" else known[:0])
            return action, rng.permutation(free)[: len(codes)], codes
        if action == "upsert":
            return action, rng.permutation(5000)[: len(codes)], codes
        if action == "remove":
            return action, rng.choice(known, min(len(known), 60), replace=False) if len(known) else known, codes
        return action, self.next_id + np.arange(len(codes)), codes

    def apply(self, number):
        """The state after a change."""
        action, ids, codes = self.change(number)
        after = self.copy()
        if action == "remove":
            for id in ids.tolist():
                del after.codes[id]
        elif action != "compact":
            if action == "build":
                after = Model()
            after.codes.update(zip(ids.tolist(), map(bytes, codes), strict=True))
            after.next_id = max(after.next_id, int(ids.max()) + 1)
        return after


def keys_of(ids):
    """The keys of ids, of different lengths."""
    return [f"{'ü' * (id % 5)}{id}" for id in ids.tolist()]


def do(folder, index, change, keyed):
    """Makes a change to the folder; gives the index, open for writing."""
    action, ids, codes = change
    keys = keys_of(ids) if keyed else None
    if action == "build":
        index.close()
        half = len(codes) // 2
        parts = (slice(half), slice(half, None))
        blocks = [(codes[part], ids[part], keys and keys[part]) for part in parts]
        HammingIndex.build(folder, blocks, bits=64, overwrite=True, progress=False)
        return HammingIndex.open(folder, writable=True)
    if action == "remove":
        index.remove(keys=keys) if keyed else index.remove(ids)
    elif action == "compact":
        index.compact()
    else:
        index.add(codes, None if action == "add" else ids, keys=keys, replace=action == "upsert")
    return index


def child(folder, model, number, pipe, keyed):
    index = HammingIndex.open(folder, writable=True)
    os.write(pipe, b"o")
    while True:
        index = do(folder, index, model.change(number), keyed)
        model = model.apply(number)
        number += 1
        os.write(pipe, b"d")


def held(folder, keyed):
    index = HammingIndex.open(folder, mmap=False)
    index.verify()
    if keyed and index.keys_of(index.ids).tolist() != keys_of(index.ids):
        sys.exit(f"{folder}: other keys than those of the ids")
    return dict(zip(index.ids.tolist(), map(bytes, index.get(index.ids)), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    rng = random.Random(seed)
    torch.set_num_threads(1)  # the threads of a pool do not live on in a fork
    done, under_way = 0, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        HammingIndex(64).save(folder)
        model, number = Model(), 0
        for kill in range(arguments.kills):
            readable, writable = os.pipe()
            process = os.fork()
            if process == 0:
                try:
                    child(folder, model, number, writable, arguments.keys)
                finally:
                    os._exit(1)  # it ends by the kill alone
            os.close(writable)
            os.read(readable, 1)  # it is at work
            time.sleep(rng.random() * rng.choice((0.003, 0.02, 0.08)))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            told = b""
            while part := os.read(readable, 4096):
                told += part
            os.close(readable)
            if os.WTERMSIG(status) != signal.SIGKILL:
                sys.exit(f"seed {seed}, kill {kill}: the child failed at change {number + len(told)}")
            for _ in told:
                model, number = model.apply(number), number + 1
            found, after = held(folder, arguments.keys), model.apply(number)
            if found != model.codes:
                if found != after.codes:
                    sys.exit(f"seed {seed}, kill {kill}: not the state after change {number - 1} or {number}")
                model, number = after, number + 1
                under_way += 1
            elif found == after.codes and HammingIndex.open(folder)._contents.next_id == after.next_id != model.next_id:
                model, number = after, number + 1
            done += len(told)
    print(f"{arguments.kills} kills, {done} changes done, {under_way} done but not told: every state was whole")


if __name__ == "__main__":
    main()
