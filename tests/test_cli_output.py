"""Standard output that nobody reads, and the look of --help."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fasthash.cli import main
from fasthash.cli.output import ClosedOutput, report, show
from fasthash.cli.parser import UserError
from fasthash.index import HammingIndex


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    rng = np.random.default_rng(0)
    np.save(folder / "features.npy", rng.normal(size=(60, 4)).astype(np.float32))
    np.save(folder / "codes.npy", rng.integers(0, 256, (3000, 8), np.uint8))
    np.save(folder / "ids.npy", np.arange(1000))
    (folder / "labels.txt").write_text("a\nb\nc\n" * 1000)
    options = ["--bits", "16", "--epochs", "1", "--out", f"{folder}/model"]
    assert main(["train", f"{folder}/features.npy", *options]) == 0
    assert main(["index", "build", f"{folder}/codes.npy", "--out", f"{folder}/index"]) == 0
    return folder


def codes_of(folder: Path) -> int:
    return len(HammingIndex.open(folder / "own"))


# Command, and what tells that its work is done. `own` is an index of 3,000 codes of the test's own.
CHANGES = {
    "train": ("train features.npy --bits 8 --epochs 1 --out own-model", lambda here: (here / "own-model").exists()),
    "encode": ("encode model features.npy --out own.npy", lambda here: np.load(here / "own.npy").shape == (60, 2)),
    "build": ("index build codes.npy --out fresh", lambda here: len(HammingIndex.open(here / "fresh")) == 3000),
    "add": ("index add own codes.npy", lambda here: codes_of(here) == 6000),
    "remove": ("index remove own ids.npy", lambda here: codes_of(here) == 2000),
    "mih": ("index mih own", lambda here: json.loads((here / "own/manifest.json").read_text())["segments"][0]["mih"]),
    "compact": ("index compact own", lambda here: codes_of(here) == 3000),
    "export": ("index export own --out own.u8bin", lambda here: (here / "own.u8bin").stat().st_size == 8 + 24000),
    "search": ("search own codes.npy --out own.npz", lambda here: "ids" in np.load(here / "own.npz")),
}
ANSWERS = {
    "search": "search index codes.npy",
    "search json": "search index codes.npy --json",
    "eval": "eval codes.npy codes.npy --query-labels labels.txt --database-labels labels.txt",
    "verify": "index verify index",
    "info": "info",
    "help": "--help",
    "version": "--version",
}


@pytest.fixture
def own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of `made` and an index of its own."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    HammingIndex.build("own", "codes.npy", progress=False)
    return tmp_path


def run(arguments: str, redirection: str, unbuffered: str = "") -> tuple[int, str]:
    """Status and stderr of a command in a shell, with its stdout as told."""
    command = f"PYTHONUNBUFFERED={unbuffered} {sys.executable} -m fasthash {arguments} {redirection}"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


CLOSED = ["| true", ">&-"]


@pytest.mark.parametrize(
    ("command", "redirection"),
    [*((command, CLOSED[0]) for command in CHANGES), ("add", CLOSED[1]), ("train", CLOSED[1])],
)
def test_work_that_is_done_is_a_success_without_a_reader(command: str, redirection: str, own: Path) -> None:
    """So that nobody does it twice: a retry of index add would double the codes."""
    arguments, done = CHANGES[command]
    assert run(arguments, redirection) == (0, "")
    assert done(own)


@pytest.mark.parametrize("flag", ["", " --json"])
@pytest.mark.parametrize("command", ["add", "encode"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_work_that_is_done_is_a_success_where_its_report_finds_no_room(command: str, flag: str, own: Path) -> None:
    arguments, done = CHANGES[command]
    status, err = run(arguments + flag, "> /dev/full")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith(
        "fasthash: the work is done, but its report could not be written: standard output: cannot be written (No space"
    )
    assert done(own)


@pytest.mark.parametrize(
    ("command", "redirection"),
    [*((command, CLOSED[0]) for command in ANSWERS), ("search", CLOSED[1]), ("help", CLOSED[1])],
)
def test_answers_without_a_reader_end_quietly(command: str, redirection: str, own: Path) -> None:
    assert run(ANSWERS[command], redirection) == (0, "")


@pytest.mark.parametrize("command", ["version", "search"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_answers_that_are_written_at_once(command: str, own: Path) -> None:
    assert run(ANSWERS[command], "| true", unbuffered="1") == (0, "")
    status, err = run(ANSWERS[command], "> /dev/full", unbuffered="1")
    assert (status, err) == (2, "fasthash: error: standard output: cannot be written (No space left on device)\n")


@pytest.mark.parametrize("command", ["search", "verify", "help"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_answers_that_find_no_room_are_failures(command: str, own: Path) -> None:
    status, err = run(ANSWERS[command], "> /dev/full")
    assert (status, err) == (2, "fasthash: error: standard output: cannot be written (No space left on device)\n")


def test_failures_stay_failures_without_readers(own: Path) -> None:
    for redirection in (*CLOSED, ">&- 2>&-", "2>&-"):
        assert run("index add own nothing.npy", redirection)[0] == 2
    assert run("index add own codes.npy", ">&- 2>&- <&-") == (0, "")
    assert codes_of(own) == 6000


def test_names_that_a_terminal_cannot_show(own: Path) -> None:
    (own / "ж").symlink_to(own / "own")
    done = subprocess.run(
        [sys.executable, "-m", "fasthash", "index", "add", "ж", "codes.npy"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, rb"\u0436: added 3,000, 6,000 codes now" + b"\n", b"")


def test_a_broken_pipe_elsewhere_is_a_failure(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has died, say: training has not succeeded then."""

    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("fasthash.train.Hasher.fit", broken)
    assert main(["train", "features.npy", "--out", "m"]) == 2


def test_output_without_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            raise io.UnsupportedOperation

    class Full(Broken):
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Broken())
    report("done")
    with pytest.raises(ClosedOutput):
        show("answer")
    monkeypatch.setattr("sys.stdout", Full())
    report("done")
    with pytest.raises(UserError, match="standard output: cannot be written"):
        show("answer")
    assert capsys.readouterr().err.count("\n") == 1


# Help

COMMANDS = [
    *([], ["demo"], ["train"], ["encode"], ["export"], ["search"], ["eval"], ["bench"], ["info"], ["index"]),
    ["report"],
    *(["index", action] for action in ("build", "add", "remove", "mih", "compact", "export", "info", "verify")),
]


@pytest.mark.parametrize("columns", [64, 80, 200])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "fasthash")
def test_help_does_not_run_together(
    command: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith(f"usage: {' '.join(['fasthash', *command])} ")
    heads = [number for number, line in enumerate(lines) if re.fullmatch(r"(example|start with|help on .*):", line)]
    assert heads
    last = "\n".join(lines[heads[0] :])
    for block in re.split(r"(?m)^(?:example|start with|help on .*):\n", last)[1:]:
        typed = block.replace("\\\n", "").split()  # one command, whole
        assert typed[0] == "fasthash"
        assert typed.count("fasthash") == 1
        assert all(line.endswith("\\") for line in block.strip().splitlines()[:-1])
        assert all(line.startswith("  ") for line in block.splitlines())


def test_the_end_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.endswith(
        "\nstart with:\n  fasthash demo\nhelp on a command:\n  fasthash COMMAND --help\n"
    )


def test_json_answers_of_commands_that_change(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "add", "own", "codes.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codes"] == 6000
