"""Ratios, targets, geometric means, and the tables of gpu_attention.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from gpu_cases import Target, main_cases
from gpu_ours import OURS
from gpu_peers import CUDNN_FLEX, FA4, FLEX
from tables import error_lines, markdown_table, number

BASELINE = Path(__file__).with_name("gpu_baseline.json")
GEOMEAN_TARGETS = {"best": 2.05, FLEX: 3.5}
SECTION_TARGETS = {"splat": 1.2, "small": 1.0}  # of the best peer, geometric mean
BUILT_IN = ("SDPA cuDNN", "SDPA flash")  # peers that come with torch, measured wherever they run


def load_baseline(path: Path = BASELINE) -> dict[str, dict[str, dict[str, float]]]:
    """dim -> case -> peer -> ms, on another day in another process."""
    tables: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text(encoding="utf-8"))["forward_ms"]
    return tables


def peer_times(times: dict[str, float], baseline: dict[str, float] | None) -> dict[str, dict[str, Any]]:
    """peer -> ms and how: "measured", or "scaled", baseline * (Flex here / Flex there), for those not measured."""
    found = {name: {"ms": ms, "how": "measured"} for name, ms in times.items() if name != OURS}
    if baseline and FLEX in times:
        factor = times[FLEX] / baseline[FLEX]  # far from 1: another machine, or FlexAttention compiled otherwise
        for name in (FA4, CUDNN_FLEX, *BUILT_IN):
            if name in baseline and name not in found:
                found[name] = {"ms": baseline[name] * factor, "how": "scaled", "factor": factor}
    return found


def compare(row: dict[str, Any], target: Target | None, baseline: dict[str, float] | None) -> dict[str, Any]:
    """best (the fastest peer), the ratios to it, to Flex and to the target's peer; whether the target is met."""
    times = {name: one["ms"] for name, one in row["times"].items() if "ms" in one}
    peers = peer_times(times, baseline)
    found: dict[str, Any] = {"peers": peers}
    if peers:
        name = min(peers, key=lambda peer: peers[peer]["ms"])
        found["best"] = {"name": name, **peers[name]}
    ours = times.get(OURS)
    if ours is None:
        return found
    if "best" in found:
        found["best_ratio"] = found["best"]["ms"] / ours
    if FLEX in peers:
        found["flex_ratio"] = peers[FLEX]["ms"] / ours
    if "floor_ms" in row:
        found["floor_ratio"] = ours / row["floor_ms"]
    against = found.get("best") if target and target.peer == "best" else peers.get(target.peer) if target else None
    if target and against:
        reached = against["ms"] / ours
        found["target"] = {"peer": target.peer, "wanted": target.ratio, "got": reached, "met": reached >= target.ratio}
    return found


def geomeans(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """dim -> geometric means over the sparse masks, how many of them count, and what is wanted."""
    sparse = {case.name for case in main_cases(8192).values() if not case.dense}
    found: dict[str, dict[str, Any]] = {}
    for dim in sorted({row["dim"] for row in rows}, reverse=True):
        here = [row for row in rows if row["dim"] == dim and row["case"] in sparse]
        one: dict[str, Any] = {"of": len(sparse)}
        for name, key in (("best", "best_ratio"), (FLEX, "flex_ratio")):
            ratios = [row[key] for row in here if key in row]
            if ratios:
                one[name] = {"got": geometric_mean(ratios), "wanted": GEOMEAN_TARGETS[name], "cases": len(ratios)}
        found[str(dim)] = one
    return found


COLUMNS = {
    "main": ("case", "dim", "kept", "ours ms", "Flex ms", "best peer", "best / ours", "asked", "Flex / ours",
             "ours / floor", "error"),
    "splat": ("case", "shape", "kept", "ours ms", "Flex ms", "best peer", "dense ms", "Flex / ours", "best / ours",
              "dense / ours", "ours / floor", "error"),
    "small": ("case", "shape", "ours ms", "Flex ms", "best peer", "dense ms", "Flex / ours", "best / ours",
              "ours host us", "ours wall us", "Flex host us", "Flex wall us", "error"),
    "host": ("case", "call", "host us", "wall us", "error"),
    "long": ("case", "shape", "ours ms", "Flex ms", "Flex / ours", "ours / floor", "tables KiB", "build s", "again s",
             "Flex mask KiB", "Flex mask peak MiB", "Flex mask s", "error"),
    "configs": ("case", "dim", "config", "ours ms", "error"),
}  # fmt: skip


def cells(row: dict[str, Any]) -> dict[str, str]:
    """What the tables show of a row, by column; columns without a value are missing."""
    times, best, target, facts = row.get("times", {}), row.get("best"), row.get("target"), row.get("facts", {})
    checked = row.get("check", {}).get(OURS, {})
    flex_facts, our_facts = facts.get(FLEX, {}), facts.get(OURS, {})
    sign = "met" if target and target["met"] else "MISSED"
    scaled = f" (scaled x{best['factor']:.2f})" if best and best["how"] == "scaled" else ""
    error = row.get("error") or row.get("errors", {}).get(OURS) or times.get(OURS, {}).get("error") or ""
    if error:
        error = error[:60]
    elif checked:
        error = f"{checked['error']:.1e}"
    shown = {
        "case": row.get("case"),
        "dim": row.get("dim"),
        "shape": row.get("shape"),
        "call": row.get("call"),
        "config": row.get("config"),
        "kept": f"{row['density']:.2%}" if "density" in row else None,
        "best peer": f"{best['ms']:.3f} {best['name']}{scaled}" if best else "",
        "asked": f"{target['got']:.2f} of {target['peer']}, {target['wanted']} {sign}" if target else "",
        "error": error,
        **{f"{label} ms": number(times.get(name, {}).get("ms")) for label, name in _LABELS},
        **{f"{label} {kind} us": number(row.get("host", {}).get(name, {}).get(f"{kind}_us"), 1)
           for label, name in _LABELS for kind in ("host", "wall")},
        "host us": number(row.get("host_us"), 1),
        "wall us": number(row.get("wall_us"), 1),
        "best / ours": number(row.get("best_ratio"), 2),
        "Flex / ours": number(row.get("flex_ratio"), 2),
        "dense / ours": number(row.get("dense_ratio"), 2),
        "ours / floor": number(row.get("floor_ratio"), 2),
        "tables KiB": number(our_facts.get("table_bytes"), 1, 1024),
        "build s": number(our_facts.get("build_s"), 4),
        "again s": number(our_facts.get("build_again_s"), 4),
        "Flex mask KiB": number(flex_facts.get("mask_bytes"), 1, 1024),
        "Flex mask peak MiB": number(flex_facts.get("mask_peak_bytes"), 1, 2**20),
        "Flex mask s": number(flex_facts.get("mask_s"), 4),
    }  # fmt: skip
    return {name: str(value) for name, value in shown.items() if value is not None}


_LABELS = (("ours", OURS), ("Flex", FLEX), ("dense", "dense"))


def table(section: str, rows: list[dict[str, Any]]) -> str:
    """A section as a Markdown table, columns aligned so that it reads in a terminal too."""
    head = COLUMNS[section]
    body = [[cells(row).get(name, "") for name in head] for row in rows]
    return markdown_table([*head], body, aligned=True)


def tables(found: dict[str, Any]) -> str:
    """The sections' tables, with the geometric means and notes."""
    parts = []
    for name, rows in found["sections"].items():
        if rows:
            parts.append(f"## {name}\n\n{table(name, rows)}")
        if name == "main":
            parts += _geomean_lines(geomeans(rows))
        elif name in ("splat", "small"):
            parts += _ratio_line(name, rows)
    return "\n\n".join([*parts, *(f"Note: {note}." for note in found["notes"])])


def report(found: dict[str, Any]) -> str:
    """All of it as Markdown."""
    ceilings = found["ceilings"]
    head = [
        f"# Attention on a Hopper GPU\n\n{found['hardware']}. {found['date'] or 'No date given'}.",
        "Forward, bf16; ms: the smaller of CUDA-event median and CUDA-graph time, everybody in one process, in turns. "
        '"(scaled)": not measured here, but the baseline\'s time x (FlexAttention here / there), the factor beside it. '
        f"Main section: batch 2, heads 16, n 8192. Ceilings: {ceilings['tflops']:.0f} TFLOP/s (8192^3), "
        f"{ceilings['gbs']:.0f} GB/s (copy).",
        f"Made by `python benchmarks/gpu_attention.py {found['arguments']}`.",
    ]
    return "\n\n".join([*head, tables(found), *error_lines(_places(found["sections"]))]) + "\n"


def _places(sections: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row, and where it stands."""
    for name, rows in sections.items():
        for row in rows:
            place = (name, row["case"], row.get("dim", ""), row.get("call", row.get("config", "")))
            yield " ".join(str(word) for word in place if word), row


def _ratio_line(section: str, rows: list[dict[str, Any]]) -> list[str]:
    """The geometric mean of best peer / ours over a section, and its least."""
    ratios = [row["best_ratio"] for row in rows if "best_ratio" in row]
    if not ratios:
        return []
    asked = f" (asked {SECTION_TARGETS[section]})" if section in SECTION_TARGETS else ""
    mean = f"{geometric_mean(ratios):.2f}{asked}, the least {min(ratios):.2f}"
    return [f"Geometric mean of best peer / ours over {len(ratios)} cases: {mean}."]


def _geomean_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for dim, one in found.items():
        words = [f"{got['got']:.2f} of {name} over {got['cases']} (asked {got['wanted']})"
                 for name, got in one.items() if name != "of"]  # fmt: skip
        if words:
            lines.append(f"Geometric mean, {one['of']} sparse masks, head_dim {dim}: {'; '.join(words)}.")
    return lines
