"""The project's CUDA kernels, compiled for the CPU and run under an emulation of the CUDA execution model.

`emulation.h` says what is emulated. `build()` compiles the very .cu files of csrc/ with the C++ compiler, the address
sanitizer and the undefined-behaviour sanitizer; `Emulation` runs the library in a process of its own (the address
sanitizer must be loaded first there), so that a report ends that process and not the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = [
    *sorted((ROOT / "csrc").glob("*/cuda/*_cuda.cu")),
    ROOT / "csrc/core/api.cpp",
    HERE / "emulation.cpp",
    HERE / "one_pass_plan.cpp",
    HERE / "toy_kernels.cu",
]
FLAGS = [
    "-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
    "-ffp-contract=off", "-DFASTHASH_EMULATE_CUDA", "-include", "cuda_runtime.h", f"-I{HERE / 'include'}",
    f"-I{ROOT / 'csrc'}",
]  # fmt: skip
SMALL = ("FASTHASH_SMALL_SIZES",)  # little tiles and stretches, so that small inputs have several
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def compiler() -> str | None:
    """g++, or None where there is none."""
    return shutil.which("g++")


def build(
    sources: Sequence[Path] = SOURCES,
    change: Callable[[Path, str], str] | None = None,
    defines: Sequence[str] = SMALL,
) -> Path:
    """Compile the emulated library and return its path; what was compiled before is not compiled again.

    change: makes of a source, given its path and its text, the text that is compiled instead.
    defines: macros. Without SMALL tiles and stretches are as large as on a GPU.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("the emulation needs g++")
    command = [cxx, *FLAGS, *SANITIZERS, *(f"-D{name}" for name in defines)]
    texts = {source: source.read_text() for source in sources}
    if change is not None:
        texts = {source: change(source, text) for source, text in texts.items()}
    headers = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh"), *HERE.rglob("*.h")]
    state = hashlib.sha256(" ".join(command).encode())
    for path in sorted(headers):
        state.update(path.read_bytes())
    for text in texts.values():
        state.update(text.encode())
    folder = ROOT / "build" / "emulation"
    library = folder / f"{state.hexdigest()[:16]}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of test processes that want the same library, one compiles it
        if not library.exists():
            _compile(library, sources, command, None if change is None else texts)
    return library


def _compile(library: Path, sources: Sequence[Path], command: list[str], changed: dict[Path, str] | None) -> None:
    """changed: the texts that are compiled in place of the sources' own."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:

        def compile_one(source: Path) -> Path:
            target = Path(scratch) / f"{source.parent.name}-{source.stem}.o"
            compiled = source if changed is None else target.with_suffix(".cpp")
            if changed is not None:
                compiled.write_text(changed[source])
            # The scheduler itself is trusted, and half of the time is spent in it.
            trusted = (
                ["-O2", "-fno-sanitize=all", "-DFH_EMULATION_ASAN", f"-I{HERE}"]
                if source.name == "emulation.cpp"
                else []
            )
            run([*command, *trusted, "-x", "c++", "-c", str(compiled), "-o", str(target)])
            return target

        with ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0)))) as pool:
            objects = list(pool.map(compile_one, sources))
        linked = Path(scratch) / "linked.so"
        run([*command, "-shared", *map(str, objects), "-o", str(linked)])
        linked.replace(library)


def with_faults(faults: Sequence[tuple[str, str, str]], headers: Sequence[str] = ()) -> Callable[[Path, str], str]:
    """For `build`: puts faults (file, sound text, wrong text) into the sources, and into these headers of csrc/.

    In the wrong text FAULT is 1 where `Emulation.call` names this fault, counted from 1, and 0 elsewhere.
    """

    def change(source: Path, text: str) -> str:
        files = {source.name}
        for header in headers:
            line = f'#include "{header}"\n'
            if line in text:
                content = (ROOT / "csrc" / header).read_text().replace("#pragma once", "")
                text = text.replace(line, content, 1).replace(line, "")  # it may be included by several of them
                files.add(Path(header).name)
        for number, (file, sound, wrong) in enumerate(faults, 1):
            if file in files:
                assert sound in text, f"{file} is not what it was: put the fault where {sound!r} went"
                text = text.replace(sound, wrong.replace("FAULT", f"(fh_emulation_fault == {number})"))
        return text

    return change


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


class EmulationError(RuntimeError):
    """A kernel failed: an error status with its message, or the report of a sanitizer."""


class Emulation:
    """The emulated library in a process of its own. `call` runs an operation of `operations.py` there."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        find = [str(compiler()), "-print-file-name=libasan.so"]
        sanitizer = subprocess.run(find, capture_output=True, text=True, check=True)
        environment = {
            **os.environ,
            "LD_PRELOAD": sanitizer.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99:handle_segv=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        self.reports = tempfile.TemporaryFile()  # noqa: SIM115
        return subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(self.library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.reports,
            env=environment,
        )

    def call(self, operation: str, *, seed: int = 0, shortfall: int = 0, fault: int = 0, **arguments: Any) -> Any:
        """The result of the operation under the schedule of `seed`, with a workspace `shortfall` bytes too small.

        fault: which of the faults shows that were put into the sources (0: none; -n: launches fail with CUDA error n).
        """
        if self.process is None:
            self.process = self.start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = pickle.dumps((operation, seed, shortfall, fault, arguments))
        try:
            self.process.stdin.write(struct.pack("<q", len(request)) + request)
            self.process.stdin.flush()
            size = self.process.stdout.read(8)
        except BrokenPipeError:
            size = b""
        if len(size) < 8:
            self.process.wait()
            self.process = None
            self.reports.seek(0)
            raise EmulationError(self.reports.read().decode(errors="replace")[:8000])
        ok, result = pickle.loads(self.process.stdout.read(struct.unpack("<q", size)[0]))
        if not ok:
            raise EmulationError(result)
        return result

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
            self.process = None
