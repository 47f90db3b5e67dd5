"""Who runs when, how much, and what the rounds say together.

Promise: peers take turns (A B C, B C A, C A B), so that a slow minute of the machine meets all of them; a
ratio is taken within a round and the median over the rounds, so that none compares two different minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Result = dict[str, Any]

_STEPS = (1, 1.5, 2, 3, 4, 5, 7, 10)
WARM_UP = (10_000, 300_000)  # records; the second where the first was over too soon to say anything
_SAYS_SOMETHING = 1.0  # seconds


def rotated(peers: Sequence[str], round_: int) -> list[str]:
    """The order of a round: the first goes last in the next."""
    start = round_ % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]


def round_up(n: float) -> int:
    """A round number from `n` on, so that peers of like speed share a topic."""
    if n <= 1000:
        return 1000
    power = 10 ** math.floor(math.log10(n))
    return next(int(step * power) for step in _STEPS if step * power >= n * 0.999999)


def records_for(result: Result, seconds: float, least: int = 0, limit: int = 30_000_000) -> int:
    """How many records make the timed part of a peer as long, going by a run of it."""
    whole_per_timed = result["n"] / result.get("timed_n", result["n"])
    return max(least, min(limit, round_up(result["records_per_s"] * seconds * whole_per_timed)))


def warm_up_sizes(quick: bool) -> tuple[int, ...]:
    """How many records to estimate a peer's speed with, one size after the other."""
    return (WARM_UP[0], WARM_UP[1] // 3) if quick else WARM_UP


def estimated(run: Callable[[int], Result], quick: bool) -> Result:
    """A short run, which says how fast the peer is, or has a `problem`."""
    result: Result = {}
    for n in warm_up_sizes(quick):
        result = run(n)
        if not is_result(result):
            return result | {"problem": result.get("problem") or "the warm-up gave no figure"}
        if result["seconds"] >= _SAYS_SOMETHING:
            break
    return result


def paired_ratios(
    ours: Sequence[Result | None], theirs: Sequence[Result | None], figure: str = "records_per_s"
) -> list[float]:
    """Our figure over theirs, round by round, where both have a result."""
    return [
        mine[figure] / other[figure]
        for mine, other in zip(ours, theirs, strict=True)
        if is_result(mine) and is_result(other)
    ]


def is_result(run: Mapping[str, Any] | None) -> bool:
    """Whether a run counts."""
    return run is not None and not run.get("problem") and bool(run.get("records_per_s"))


def middle(values: Iterable[float | int | None]) -> float | None:
    """The median of those that are there."""
    there = [value for value in values if value is not None]
    return median(there) if there else None


_MEDIANS = (
    "seconds",
    "records_per_s",
    "whole_seconds",
    "whole_records_per_s",
    "cpu_seconds",
    "p50_ms",
    "p99_ms",
    "flaky_p50_ms",
    "flaky_p99_ms",
)
_SUMS = ("duplicates", "key_disorder", "early")
_MOST = ("max_rss_mb", "max_ms", "slope_mb_per_min")
_DETAILS = ("settings", "versions")


def entry(work: str, peer: str, runs: Sequence[Result], **more: Any) -> Result:
    """One object of the JSON: medians of the rounds that count, and each round beneath.

    Where none counts, the figures are None and `problem` says why.
    """
    good = [run for run in runs if is_result(run)]
    last = good[-1] if good else (runs[-1] if runs else {})
    told: Result = {"work": work, "peer": peer, "n": last.get("n", 0), "seconds": None, "records_per_s": None}
    for name, value in last.items():
        if name not in told and name not in ("problem", *_DETAILS):
            told[name] = value
    for name in _MEDIANS:
        if any(name in run for run in good):
            told[name] = middle(run.get(name) for run in good)
    for name, together in (*((name, sum) for name in _SUMS), *((name, max) for name in _MOST)):
        values = [run[name] for run in good if run.get(name) is not None]
        if values:
            told[name] = together(values)
    problems = sorted({str(run["problem"]) for run in runs if run.get("problem")})
    if problems:
        told["problem"] = "; ".join(problems)
    told |= {"rounds": len(good), "runs": [_figures(run) for run in runs], **more}
    told |= {name: last[name] for name in _DETAILS if name in last}
    return told


def _figures(run: Result) -> Result:
    return {name: value for name, value in run.items() if name not in _DETAILS}


def missing(work: str, peer: str, reason: str) -> Result:
    """The object of a peer that isn't there."""
    return {"work": work, "peer": peer, "n": 0, "seconds": None, "records_per_s": None, "missing": reason}


def add_ratios(entries: Sequence[Result], runs: Mapping[str, Sequence[Result | None]]) -> None:
    """To relance's entry its ratio to each peer; to each peer's, relance's ratio to it."""
    ours = next((one for one in entries if one["peer"] == "relance"), None)
    if ours is None:
        return
    for one in entries:
        if one is ours or one.get("missing"):
            continue
        ratios = paired_ratios(runs["relance"], runs[one["peer"]])
        one["relance_ratio"] = round(median(ratios), 4) if ratios else None
        one["relance_ratios"] = [round(value, 4) for value in ratios]
        ours.setdefault("ratios", {})[one["peer"]] = one["relance_ratio"]
