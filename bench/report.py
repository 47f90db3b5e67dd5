"""The table at the end: each peer's figures, the ratios, and which targets were reached.

Promise: what is no result, and who is missing, stands in it as plainly as what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.works import Target, Work

Result = Mapping[str, Any]

HEADS = {
    "records_per_s": "records/s",
    "seconds": "s",
    "n": "records",
    "max_rss_mb": "max RSS MB",
    "key_disorder": "disorder",
    "dead_lettered": "letters",
    "max_in_flight": "in flight",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "max_ms": "max ms",
    "flaky_p50_ms": "flaky p50 ms",
    "flaky_p99_ms": "flaky p99 ms",
    "flaky_samples": "flaky",
    "p99_ratio": "÷ clean",
    "failed_attempts": "failed tries",
    "slope_mb_per_min": "MB/min",
    "held_seconds": "held s",
}


def verdicts(work: Work, entries: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Each target with its value and whether it was reached; None where it wasn't measured."""
    for target in work.targets:
        value = value_of(target, entries)
        reached = (
            None if value is None else (value >= target.bound if target.at_least else value <= target.bound)
        )
        yield {"target": target.text, "value": value, "reached": reached}


def value_of(target: Target, entries: Sequence[Result]) -> float | None:
    """What a target is about, as measured."""
    ours = [one for one in entries if one["peer"] == "relance" and not one.get("problem")]
    if target.case:
        ours = [one for one in ours if one.get("case") == target.case]
    if not ours:
        return None
    if target.against:
        return ours[0].get("ratios", {}).get(target.against)
    return ours[0].get(target.figure)


def table(work: Work, entries: Sequence[Result], note: str = "") -> str:
    """One work's part of the output."""
    columns = list(work.shows)
    with_ratio = any("relance_ratio" in one for one in entries)
    rows = [["", *(HEADS.get(name, name) for name in columns), *(["relance ÷ it"] if with_ratio else [])]]
    for one in entries:
        if one.get("missing"):
            rows.append([one["peer"], f"missing: {one['missing']}"])
        elif one.get("problem") and not one.get("rounds"):
            rows.append([one["peer"], f"no result: {one['problem']}"])
        else:
            row = [one["peer"], *(shown(name, one.get(name)) for name in columns)]
            if with_ratio:
                row.append(f"{one['relance_ratio']:.2f}" if one.get("relance_ratio") else "")
            rows.append(row)
    lines = [f"{work.name}: {work.title}{f' ({note})' if note else ''}", *aligned(rows)]
    for one in entries:
        if one.get("problem") and one.get("rounds"):
            lines.append(f"  {one['peer']}: a round was no result: {one['problem']}")
    for verdict in verdicts(work, entries):
        lines.append(f"  {told(verdict)}")
    return "\n".join(lines)


def told(verdict: Mapping[str, Any]) -> str:
    """A target in one line."""
    if verdict["reached"] is None:
        return f"· {verdict['target']}: not measured"
    return f"{'✓' if verdict['reached'] else '✗'} {verdict['target']}: {verdict['value']:.4g}" + (
        "" if verdict["reached"] else ", not reached"
    )


def shown(name: str, value: Any) -> str:
    """A figure as the table shows it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if name in (
        "records_per_s",
        "n",
        "key_disorder",
        "dead_lettered",
        "parked",
        "failed_attempts",
        "flaky_samples",
    ):
        return f"{value:,.0f}"
    return f"{value:.2f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: names to the left, figures to the right; a row of two words is a name and a remark."""
    full = [row for row in rows if len(row) != 2 or len(rows[0]) == 2]
    widths = [max(len(row[i]) if i < len(row) else 0 for row in full) for i in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        if row in full:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(widths[i]) for i, cell in enumerate(row) if i)]
        else:
            cells = [row[0].ljust(widths[0]), row[1]]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
