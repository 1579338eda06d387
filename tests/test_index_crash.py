"""Index folders when a change is cut off (errors, crashes, power loss): the last complete state is there."""

import errno
import itertools
import os
import shutil
import stat
import sys

import numpy as np
import pytest
from index_folders import content, files, make_folder, make_keyed_folder, random_codes

from fasthash import _durable
from fasthash.index import HammingIndex, IndexFolderError, merge
from fasthash.index.exchange import build
from fasthash.index.store import writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the model of the disk is that of POSIX")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder on which an add merges segments, and so deletes files."""
    folder = make_folder(tmp_path_factory.mktemp("start") / "index")
    with HammingIndex.open(folder, writable=True) as index:
        for seed in range(merge.MERGE_FAN - 3):
            index.add(random_codes(3, seed=seed))
    return folder


@pytest.fixture(scope="module")
def keyed_start(tmp_path_factory):
    """A folder with keys, of few files: the model of power loss tries all subsets of those that a change deletes."""
    folder = make_keyed_folder(tmp_path_factory.mktemp("keyed") / "index")
    with HammingIndex.open(folder, writable=True) as index:
        index.add(random_codes(6), keys=["0/", "1/x", "2/xx", "a", "b", "c"])
    return folder


def other_index():
    index = HammingIndex(64, bit_weights=[(40, 3), (24, 1)])  # the folder's has none: a change of the format's version
    index.add(random_codes(20, seed=9), ids=np.arange(20) * 7)
    index.remove([14])
    return index


ACTIONS = {
    "add": lambda index: index.add(random_codes(10, seed=5)),
    "add ids": lambda index: index.add(random_codes(3, seed=5), ids=[5000, 20, 777]),
    "remove": lambda index: index.remove([0, 1, 2, 1010]),
    "remove all": lambda index: index.remove(index.ids),
    "upsert": lambda index: index.add(random_codes(3, seed=6), ids=[5, 6, 9000], replace=True),
    "compact": lambda index: index.compact(),
}
NAMES = ("0/", "new", "1/x", "ü", "newer")  # two of them are there
KEYED_ACTIONS = {
    "keyed add": lambda index: index.add(random_codes(10, seed=5), keys=[f"new {row}" for row in range(10)]),
    "keyed replace": lambda index: index.add(random_codes(5, seed=6), keys=NAMES, replace=True),
    "keyed replace ids": lambda index: index.add(random_codes(5, seed=6), [5, 9, 7, 9000, 8], keys=NAMES, replace=True),
    "keyed remove": lambda index: index.remove(keys=["0/", "2/xx", "nobody"]),
    "keyed compact": lambda index: index.compact(),
}
ALL_ACTIONS = ACTIONS | KEYED_ACTIONS | {"first keys": lambda index: index.add(random_codes(3), keys=["a", "b", "c"])}


def run(action, folder, index=None):
    """Does the action on a folder, or on an index that is open for writing there."""
    if action in ALL_ACTIONS:
        if index is not None:
            ALL_ACTIONS[action](index)
        else:
            with HammingIndex.open(folder, writable=True) as opened:
                ALL_ACTIONS[action](opened)
    elif action == "keyed build":
        blocks = ((random_codes(4, seed=seed), None, [f"{seed}{'y' * row}" for row in range(4)]) for seed in range(2))
        HammingIndex.build(folder, blocks, overwrite=True)
    elif action.startswith("build"):
        blocks = ((random_codes(4, seed=seed), np.arange(4) * 9 + 3 - seed) for seed in range(3))
        HammingIndex.build(folder, blocks, overwrite=action == "build over", bit_weights=[(1, 200), (63, 1)])
    else:
        other_index().save(folder, overwrite=action == "overwrite")


def held(index):
    """The content of an index and its rows, deleted ones included."""
    return *content(index), sum(segment.rows for segment in index._contents.segments)


def state(folder):
    """The content of a folder that opens and verifies; None where there is no index (yet)."""
    if not (folder / "manifest.json").exists():
        return None
    index = HammingIndex.open(folder)
    index.verify()
    return held(index)


@pytest.fixture(params=[*ALL_ACTIONS, "overwrite", "save", "build", "build over", "keyed build"])
def case(request, start, keyed_start, tmp_path, monkeypatch):
    """(action, folder, state before, state after)"""
    monkeypatch.setattr(build, "_RUN_BYTES", 16 * 6)  # a build writes two segments
    monkeypatch.setattr(build, "_KEYED_ROWS", 4)
    action, folder = request.param, tmp_path / "index"
    if action.startswith("keyed"):
        start = keyed_start
    elif action == "first keys":  # the format's version changes
        start = tmp_path / "empty"
        HammingIndex(64).save(start)
    if action in ("save", "build"):
        before = None
    else:
        shutil.copytree(start, folder)
        before = state(folder)
        shutil.copytree(start, tmp_path / "finished")
    run(action, tmp_path / "finished")
    after = state(tmp_path / "finished")
    assert after != before
    return action, folder, before, after


class Crashed(BaseException):
    """The process ends here: nothing is tidied up."""


class Steps:
    """Lets the first `allowed` steps that change the disk happen; the next fails, and after a crash all later ones."""

    CALLS = ("open", "fsync", "replace", "unlink", "mkdir")

    def __init__(self, patch, allowed, failure):
        self.left, self.failure, self.failed = allowed, failure, False
        for name in self.CALLS:
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, call):
        def step(*arguments, **keywords):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **keywords)
            self.left -= 1
            if self.left < 0 and (not self.failed or self.failure is Crashed):
                self.failed = True
                raise Crashed if self.failure is Crashed else OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments, **keywords)

        return step


def test_a_crash_at_any_step(case, tmp_path):
    action, folder, before, after = case
    for allowed in itertools.count():
        copy = tmp_path / f"copy{allowed}"
        if folder.exists():
            shutil.copytree(folder, copy)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, allowed, Crashed)
            try:
                run(action, copy)
            except Crashed:
                pass
            else:
                if not steps.failed:
                    break
        assert state(copy) in (before, after)
        if state(copy) == before:
            run(action, copy)  # what the crash left does not stand in the way
        assert state(copy) == after
    assert state(copy) == after
    assert allowed > 5


def test_an_error_at_any_step(case, tmp_path):
    action, folder, before, after = case
    for allowed in itertools.count():
        copy = tmp_path / f"copy{allowed}"
        if folder.exists():
            shutil.copytree(folder, copy)
        index = HammingIndex.open(copy, writable=True) if action in ALL_ACTIONS else None
        names = set(os.listdir(copy)) if copy.exists() else set()
        message = None
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, allowed, OSError)
            try:
                run(action, copy, index)
            except (OSError, IndexFolderError) as error:
                message = str(error)
        if not steps.failed:
            break
        assert message is None or "No space left on device" in message  # a file that cannot be deleted waits
        assert state(copy) in (before, after)
        if index is not None:
            assert held(index) == state(copy)
        if state(copy) == before:
            assert set(os.listdir(copy)) - names <= {"lock"} if copy.exists() else True
            run(action, copy, index)
        assert state(copy) == after
    assert allowed > 5


class Disk:
    """What a folder may look like after a power loss, at every moment of a change.

    A file holds what it held when it was last synced, or nothing where it never was, or some or all of what was written
    since. A name is as it was when the folder was last synced, or as it is, each name by itself: nothing orders what
    was not synced.
    """

    def __init__(self, patch, folder, graveyard):
        self.folder, self.graveyard, self.moments = folder, graveyard, []
        self.synced = {}  # inode -> bytes
        self.names = {}  # name -> inode, as last synced
        self.links = 0
        graveyard.mkdir()
        for file in folder.iterdir():
            self.synced[self.keep(file)] = file.read_bytes()
        self.names = self.current()
        self.calls = {name: getattr(os, name) for name in ("open", "fsync", "replace", "unlink")}
        for name in self.calls:
            patch.setattr(os, name, self.wrap(name))

    def keep(self, file):
        """Keeps an inode from being used again."""
        self.links += 1
        os.link(file, self.graveyard / str(self.links))
        return file.stat().st_ino

    def current(self):
        return {entry.name: entry.inode() for entry in os.scandir(self.folder)}

    def wrap(self, name):
        def call(*arguments, **keywords):
            self.look()
            result = self.calls[name](*arguments, **keywords)
            if name == "open" and arguments[1] & os.O_CREAT and os.fstat(result).st_nlink == 1:
                self.keep(arguments[0])
            if name == "fsync":
                inode = os.fstat(arguments[0]).st_ino
                if inode == self.folder.stat().st_ino:
                    self.names = self.current()
                else:
                    self.synced[inode] = self.bytes_of(inode)
            self.look()
            return result

        return call

    def bytes_of(self, inode):
        return next(file.read_bytes() for file in self.graveyard.iterdir() if file.stat().st_ino == inode)

    def look(self):
        """Notes the states that a loss of power at this moment may leave."""
        now = self.current()
        every = {inode: self.bytes_of(inode) for inode in {*now.values(), *self.names.values()}}
        moment = (tuple(sorted(self.names.items())), tuple(sorted(now.items())), dict(self.synced), every)
        if not self.moments or self.moments[-1] != moment:
            self.moments.append(moment)

    def outcomes(self, moment):
        """Folders as {name: bytes}."""
        durable, now, synced, every = dict(moment[0]), dict(moment[1]), moment[2], moment[3]
        changed = [name for name in {**durable, **now} if durable.get(name) != now.get(name)]
        for choice in itertools.product((durable, now), repeat=len(changed)):
            names = {**durable, **{name: side.get(name) for name, side in zip(changed, choice, strict=True)}}
            for held in contents(synced, every):
                yield {name: held[inode] for name, inode in names.items() if inode is not None}


def contents(synced, every):
    """What the files may hold: each what was synced, all that was written, or only the first or last part of that."""
    unsure = [inode for inode in every if synced.get(inode) != every[inode]]
    kinds = (
        itertools.product(range(4), repeat=len(unsure))
        if len(unsure) < 3
        else [[kind] * len(unsure) for kind in range(4)]
    )
    for kind in kinds:
        held = dict(every)
        for inode, choice in zip(unsure, kind, strict=True):
            old, new = synced.get(inode, b""), every[inode]
            half = len(new) // 2
            held[inode] = (old, new, new[:half], old[:half].ljust(half, b"\0") + new[half:])[choice]
        yield held


def after_power_loss(case, tmp_path, patch):
    """Every state that may be found, and whether the change was complete by then."""
    action, folder, _, _ = case
    folder.mkdir(exist_ok=True)
    disk = Disk(patch, folder, tmp_path / "graveyard")
    run(action, folder)
    disk.look()
    patch.undo()
    seen = set()
    for number, moment in enumerate(disk.moments):
        for outcome in disk.outcomes(moment):
            last = number == len(disk.moments) - 1
            key = (last, *sorted(outcome.items()))
            if key not in seen:
                seen.add(key)
                crashed = tmp_path / "crashed"
                shutil.rmtree(crashed, ignore_errors=True)
                crashed.mkdir()
                for name, data in outcome.items():
                    (crashed / name).write_bytes(data)
                yield state(crashed), last


def test_power_loss_at_any_moment(case, tmp_path, monkeypatch):
    _, _, before, after = case
    number = 0
    for found, last in after_power_loss(case, tmp_path, monkeypatch):
        assert found == after or (found == before and not last)
        number += 1
    assert number > 10


@pytest.mark.parametrize("missing", ["files", "folder before the rename", "folder after the rename"])
def test_the_model_of_power_loss_finds_a_missing_sync(case, tmp_path, monkeypatch, missing):
    action, _, before, after = case
    if action == "remove all" and missing == "folder before the rename":
        pytest.skip("this change makes no file that needs a name")
    if missing == "files":
        sync = _durable._sync
        monkeypatch.setattr(
            _durable, "_sync", lambda file: sync(file) if stat.S_ISDIR(os.fstat(file).st_mode) else None
        )
    else:
        calls = itertools.cycle(["folder before the rename", "folder after the rename"])
        monkeypatch.setattr(writer, "sync_folder", lambda path: next(calls) != missing and _durable.sync_folder(path))
    found_out = False
    try:
        for found, last in after_power_loss(case, tmp_path, monkeypatch):
            found_out = found_out or not (found == after or (found == before and not last))
    except IndexFolderError:
        found_out = True
    assert found_out


def test_an_interrupt_just_after_the_change(start, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    shutil.copytree(start, folder)
    index = HammingIndex.open(folder, writable=True)
    replace = os.replace

    def interrupted(*arguments):
        replace(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.add(random_codes(2), ids=[7000, 7002])
    monkeypatch.undo()
    assert state(folder)[1][-2:] == [7000, 7002]  # done, with all its files
    with pytest.raises(IndexFolderError, match="open it again"):
        index.add(random_codes(1))
    del index
    with HammingIndex.open(folder, writable=True) as again:
        assert again.add(random_codes(1)).tolist() == [7003]


def test_a_new_file_never_replaces_another(tmp_path):
    (tmp_path / "taken").write_bytes(b"old")
    with pytest.raises(FileExistsError), _durable.new_file(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_bytes() == b"old"


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("action", ["add", "add ids", "upsert", "compact", "build"])
def test_a_full_disk_while_writing(start, keyed_start, tmp_path, action, keyed):
    resource = pytest.importorskip("resource")
    folder, codes = tmp_path / "index", random_codes(10_000)
    shutil.copytree(keyed_start if keyed else start, folder)
    # the files of keys are what is too large: so many codes fit
    codes = codes[:1500] if keyed else codes
    count, keys = len(codes), {"keys": [f"{row:036d}" for row in range(len(codes))]} if keyed else {}
    with HammingIndex.open(folder, writable=True) as index:
        if action == "compact":
            index.add(codes, **keys)
        before, names = held(index), files(folder)
        change = {
            "add": lambda: index.add(codes, **keys),
            "add ids": lambda: index.add(codes, np.arange(count) * 2 + 10_000, **keys),
            "upsert": lambda: index.add(codes, np.arange(count), replace=True, **keys),
            "compact": index.compact,
            "build": lambda: (index.close(), HammingIndex.build(folder, iter([codes]), overwrite=True, **keys)),
        }[action]
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                change()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert held(index) == before == state(folder)
        assert files(folder) == names
        change()
        assert state(folder) != before
