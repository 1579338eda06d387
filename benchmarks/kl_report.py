"""Goals and tables of bench_kl.py's results: plain Python over its JSON."""

from __future__ import annotations

from typing import Any

SMALL = 256  # rows: up to here calls are timed 200 at a time, above one by one
FADD_CEILING = 1.5e13  # element pairs/s of L1 on an H100 at 1.755 GHz: two additions a pair

RIVALS = {
    "a_cdist_autograd": "cdist + min, autograd",
    "b_cdist_gather": "cdist, no_grad, + gather",
    "c_compiled": "torch.compile, broadcast",
    "d_keops": "KeOps argKmin + gather",
}


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What the loss is meant to reach, beside what it did; goals of what was not measured are left out."""
    found: list[dict[str, Any]] = []

    def add(what: str, goal: float, measured: float | None, unit: str, at_least: bool) -> None:
        if measured is not None:
            met = measured >= goal if at_least else measured <= goal
            found.append(
                {"what": what, "goal": goal, "measured": measured, "unit": unit, "at_least": at_least, "met": met}
            )

    on_cpu = result["device"] == "cpu"
    for case in result["cases"]:
        rows, dims, p, ratio = case["B"], case["D"], case["p"], case["ratio"]
        name = f"L{p}, B = M = {rows:,}, D = {dims}"
        if rows <= SMALL:
            add(f"{name}: in all", 150, case["milliseconds"]["fasthash"] * 1e3, "us", False)
        if on_cpu and rows > SMALL:
            least = {"b_cdist_gather": 8 if dims < 256 else 15, "c_compiled": 2, "a_cdist_autograd": 15}
            if p == 2:
                least = {"b_cdist_gather": 2 if dims < 256 else 1, "c_compiled": 1, "a_cdist_autograd": 1}
            for rival, goal in least.items():
                add(f"{name}: over {RIVALS[rival]}", goal, ratio.get(rival), "x", True)
        if not on_cpu and p == 1 and rows > SMALL:
            searched = 1.5 * rows * rows * dims / (case["search_milliseconds"] * 1e-3)
            add(f"{name}: the search, of the ceiling", 0.6, searched / FADD_CEILING, "", True)
            add(f"{name}: of the ceiling", 0.6, case["element_pairs_per_second"] / FADD_CEILING, "", True)
            if (rows, dims) == (16384, 256):
                add(f"{name}: in all", 12, case["milliseconds"]["fasthash"], "ms", False)
            for rival, goal in {"a_cdist_autograd": 10, "b_cdist_gather": 5, "c_compiled": 5}.items():
                add(f"{name}: over {RIVALS[rival]}", goal, ratio.get(rival), "x", True)
    for sampler in result["samplers"]:
        if sampler["rows"] == 4096:
            add("sampler, 4,096 x 64", 5, sampler["milliseconds"]["fasthash"], "ms", False)
    memory = result.get("memory")
    if memory is not None:
        what = f"peak memory beyond inputs and gradients, B = M = {memory['B']:,}, D = {memory['D']}"
        add(what, 64, memory["peak_bytes"] / 2**20, "MiB", False)
    return found


def times_table(result: dict[str, Any]) -> str:
    """Forward and backward of every contender, and how many times slower than fasthash each rival is."""
    heads = ["norm", "B = M", "D", "fasthash", *RIVALS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|" + "---:|" * (len(heads) - 3)]
    for case in result["cases"]:
        times, ratio = case["milliseconds"], case["ratio"]
        cells = [f"{times[r]:.3g} ms ({ratio[r]:.3g}x)" if r in times else "-" for r in RIVALS]
        lines.append(
            f"| L{case['p']} | {case['B']:,} | {case['D']} | {times['fasthash']:.3g} ms | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def samplers_table(result: dict[str, Any]) -> str:
    lines = ["| samples of Beta(0.1, 0.1) | fasthash | torch |", "|---|---:|---:|"]
    for sampler in result["samplers"]:
        times = sampler["milliseconds"]
        lines.append(
            f"| {sampler['rows']:,} x {sampler['dims']} | {times['fasthash']:.3g} ms | {times['torch']:.3g} ms |"
        )
    return "\n".join(lines)


def after_torch_table(result: dict[str, Any]) -> str:
    """What the loss costs right after a torch op, with GNU OpenMP's own spin count and with a small one."""
    lines = [
        "| L1, D = 64, B = M | OpenMP's spinning | machine idle | right after a torch op |",
        "|---:|---|---:|---:|",
    ]
    for row in result.get("after_torch", ()):
        lines.append(f"| {row['B']:,} | {row['spin']} | {row['idle']:.3g} ms | {row['after_matmul']:.3g} ms |")
    return "\n".join(lines)


def goals_table(result: dict[str, Any]) -> str:
    lines = ["| goal | wanted | measured | met |", "|---|---:|---:|---|"]
    for goal in result["goals"]:
        sign, unit = "at least" if goal["at_least"] else "at most", goal["unit"] and " " + goal["unit"]
        met = "yes" if goal["met"] else "no"
        lines.append(f"| {goal['what']} | {sign} {goal['goal']:g}{unit} | {goal['measured']:.3g}{unit} | {met} |")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """All of it as Markdown."""
    parts = [times_table, goals_table, samplers_table, after_torch_table]
    return "\n\n".join(part(result) for part in parts) + "\n"


def docs_table(result: dict[str, Any]) -> str:
    """What docs/kl-loss.md shows."""
    machine = result["machine"]
    versions = machine["versions"]
    where = f"{machine['processor']}, {result['threads']} threads, torch {versions['torch']}"
    memory = result["memory"]
    return "\n\n".join(
        [
            f"Forward and backward with a tensor target, milliseconds ({where}):",
            times_table(result),
            "The sampler of the default target, against torch's:",
            samplers_table(result),
            f"Peak memory at B = M = {memory['B']:,}, D = {memory['D']}, beyond inputs and gradients: "
            f"{memory['peak_bytes'] / 2**20:.0f} MiB.",
            "In a training loop, where OpenMP's threads still spin after the torch op before:",
            after_torch_table(result),
        ]
    )
