"""Bars, the paper's claims, and the tables of flurka_gpu.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flurka_gpu_peers import (
    DENSE,
    DENSE_UNFUSED,
    FLA,
    FLURKA,
    FLURKA_EINSUM,
    KERNEL,
    KERNEL_EAGER,
    LAYER_B,
    LAYER_B_EINSUM,
    LOW_RANK_A,
    LOW_RANK_B,
    LOW_RANK_CUDNN,
    LOW_RANK_FLASH,
    LOW_RANK_UNFUSED,
    OURS,
    OURS_KERNEL,
    OURS_LOW_RANK,
)
from tables import error_lines, markdown_table, number

Row = dict[str, Any]
LARGE = ("4x8192", "1x65536")
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Bar:
    """What is asked: the fastest of peers takes at least ``ratio`` times ours; of the floor, ours at most that."""

    section: str
    text: str
    peers: tuple[str, ...]
    ratio: float
    shapes: tuple[str, ...] = LARGE


FUSED_LOW_RANK = (LOW_RANK_CUDNN, LOW_RANK_FLASH)
BARS = (
    Bar("core", "of the floor", (FLOOR,), 1.4),
    Bar("core", "SDPA(Q, EK, FV)", FUSED_LOW_RANK, 1.4),
    Bar("core", "torch.compile of FLuRKA by einsum", (FLURKA_EINSUM,), 3.0),
    Bar("core", "torch.compile of FLuRKA in its best wording", (FLURKA,), 3.0),
    Bar("core", "dense", (DENSE,), 30.0, ("1x65536",)),
    Bar("core", "low-rank unfused", (LOW_RANK_UNFUSED,), 3.3),
    Bar("gradients", "SDPA(Q, EK, FV), forward + backward", FUSED_LOW_RANK, 1.4),
    Bar("gradients", "torch.compile of FLuRKA by einsum, forward + backward", (FLURKA_EINSUM,), 3.0),
    Bar("gradients", "torch.compile of FLuRKA in its best wording, forward + backward", (FLURKA,), 3.0),
    Bar("layer", "low-rank layer (b)", (LOW_RANK_B,), 1.15),
    Bar("layer", "torch.compile of FLuRKA (b) by einsum", (LAYER_B_EINSUM,), 1.7),
    Bar("layer", "torch.compile of FLuRKA (b) in its best wording", (LAYER_B,), 1.7),
    Bar("layer", "kernel layer", (KERNEL,), 2.0),
)
CLAIMS = (  # of the paper: text, least ratio, and for each section the fused and the unfused peers
    ("3.3x low-rank", 3.3, {"core": (FUSED_LOW_RANK, (LOW_RANK_UNFUSED,)), "layer": ((LOW_RANK_A, LOW_RANK_B), ())}),
    ("1.7x kernel", 1.7, {"core": ((KERNEL, FLA), (KERNEL_EAGER,)), "layer": ((KERNEL,), ())}),
    ("20x dense", 20.0, {"core": ((DENSE,), (DENSE_UNFUSED,)), "layer": ((DENSE,), ())}),
    ("30x dense", 30.0, {"core": ((DENSE,), (DENSE_UNFUSED,)), "layer": ((DENSE,), ())}),
)


def ratio(row: Row, peers: Iterable[str]) -> float | None:
    """The time of the fastest of some peers / ours; of the floor, ours / floor. None where one was not measured."""
    times = row["times"]
    ours = times.get(OURS, {}).get("ms")
    if FLOOR in peers:
        return ours / row["floor_ms"] if ours and row.get("floor_ms") else None
    known = [times[name]["ms"] for name in peers if "ms" in times.get(name, {})]
    return min(known) / ours if known and ours else None


def verdicts(sections: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """Every bar at every shape that it is asked of."""
    found = []
    for bar in BARS:
        for row in sections.get(bar.section, []):
            got = ratio(row, bar.peers) if row["shape"] in bar.shapes else None
            if got is not None:
                met = got <= bar.ratio if FLOOR in bar.peers else got >= bar.ratio
                found.append({"section": bar.section, "bar": bar.text, "shape": row["shape"], "wanted": bar.ratio,
                              "got": got, "met": met})  # fmt: skip
    return found


def claims(sections: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """Which of the paper's ratios are reached, beside fused and beside unfused peers."""
    found = []
    for text, wanted, peers in CLAIMS:
        for section, pair in peers.items():
            for row in sections.get(section, []):
                one = {"claim": text, "section": section, "shape": row["shape"]}
                for kind, names in zip(("fused", "unfused"), pair, strict=True):
                    got = ratio(row, names)
                    one |= {kind: got, f"{kind} reached": None if got is None else got >= wanted}
                found.append(one)
    return found


def contest_table(rows: list[Row]) -> str:
    """Every contender of the sections core, layer, gradients."""
    body = []
    for row in rows:
        for name, one in row["times"].items():
            ms = one.get("ms")
            checked = row["check"].get(name)
            body.append([
                row["shape"], name, number(ms), number(one.get("event_ms")), number(one.get("graph_ms")),
                number(row["nbytes"] / ms * 1e-6 if ms else None, 0), number(ratio(row, (name,)), 2),
                number(ms / row["floor_ms"] if ms and row.get("floor_ms") else None, 2),
                f"{checked['error']:.1e}" if checked else "",
            ])  # fmt: skip
    head = ["shape", "contender", "ms", "event ms", "graph ms", "GB/s (8nD)", "/ ours", "/ floor", "error"]
    return markdown_table(head, body, aligned=True)


def sweep_table(rows: list[Row]) -> str:
    """A line a problem."""
    body = []
    for row in rows:
        times = {name: one.get("ms") for name, one in row["times"].items()}
        body.append([
            row["shape"], str(row["rank"]), row["feature_map"],
            number(row.get("floor_ms"), 4), number(times.get(OURS), 4), number(ratio(row, (FLOOR,)), 2),
            number(times.get(OURS_LOW_RANK), 4), number(times.get(OURS_KERNEL), 4),
            number(times.get(LOW_RANK_CUDNN), 4), number(ratio(row, (LOW_RANK_CUDNN,)), 2),
            number(times.get(DENSE), 4), number(ratio(row, (DENSE,)), 1),
        ])  # fmt: skip
    head = ["shape", "rank", "map", "floor ms", "ours ms", "ours / floor", "our low-rank ms", "our kernel ms",
            "low-rank (cuDNN) ms", "/ ours", "dense ms", "/ ours"]  # fmt: skip
    return markdown_table(head, body, aligned=True)


def host_table(rows: list[Row]) -> str:
    """Microseconds of a call."""
    body = [[row["call"], number(row.get("host_us"), 1), number(row.get("wall_us"), 1)] for row in rows]
    return markdown_table(["call", "host us", "wall us"], body, aligned=True)


def bars_table(found: list[dict[str, Any]]) -> str:
    """What was asked for, and what was measured."""
    body = [
        [one["section"], one["bar"], one["shape"], number(one["wanted"], 2), number(one["got"], 2),
         "met" if one["met"] else "MISSED"]
        for one in found
    ]  # fmt: skip
    return markdown_table(["section", "bar", "shape", "asked", "got", ""], body, aligned=True)


def claims_table(found: list[dict[str, Any]]) -> str:
    """The paper's ratios."""
    words = {True: "reached", False: "not reached", None: ""}
    body = [
        [one["claim"], one["section"], one["shape"],
         *(text for kind in ("fused", "unfused") for text in (number(one[kind], 2), words[one[f"{kind} reached"]]))]
        for one in found
    ]  # fmt: skip
    return markdown_table(["claim", "section", "shape", "beside fused", "", "beside unfused", ""], body, aligned=True)


TABLES = {"core": contest_table, "layer": contest_table, "gradients": contest_table, "sweep": sweep_table,
          "host": host_table}  # fmt: skip
NOTES = {
    "core": "floor: K and V once or the operations of their compression, whichever takes longer, then Q and out once.",
    "layer": "floor: the operations of order (b)'s large products: x w_q, its compression twice, and w_o.",
    "gradients": "Forward and backward, gradients of q, k, v and both projections. floor: the forward pass's.",
    "sweep": "GPU times of the core by rank, length and feature map; nothing that torch.compile has to build.",
    "host": "One call when the GPU has next to nothing to do: until it returns, and until its work is done.",
}


def tables(found: dict[str, Any]) -> str:
    """The sections' tables, bars and claims, and notes."""
    parts = [f"## {name}\n\n{NOTES[name]}\n\n{TABLES[name](rows)}" for name, rows in found["sections"].items() if rows]
    if found["bars"]:
        parts.append(f"## What was asked\n\n{bars_table(found['bars'])}")
    if found["claims"]:
        parts.append(f"## The paper's claims\n\n{claims_table(found['claims'])}")
    return "\n\n".join([*parts, *(f"Note: {note}" for note in found["notes"])])


def report(found: dict[str, Any]) -> str:
    """All of it as Markdown."""
    ceilings = found["ceilings"]
    head = [
        f"# FLuRKA on a Hopper GPU\n\n{found['hardware']}. {found['date'] or 'No date given'}.",
        "Forward, bf16, model_dim 1024 = 16 heads x 64, rank 256 and elu unless said. ms: the smaller of CUDA-event "
        "median (the cache overwritten before each call) and CUDA-graph time (several sets of inputs in turn), "
        f"everybody in one process, in turns. Ceilings: {ceilings['tflops']:.0f} TFLOP/s (8192^3), "
        f"{ceilings['gbs']:.0f} GB/s (copy).",
        f"Made by `python benchmarks/flurka_gpu.py {found['arguments']}`.",
    ]
    where = (
        (f"{section} {row.get('shape', row.get('call'))}", row)
        for section, rows in found["sections"].items()
        for row in rows
    )
    return "\n\n".join([*head, tables(found), *error_lines(where)]) + "\n"
