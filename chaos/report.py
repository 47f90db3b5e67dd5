"""A run for people: some lines of text, and a picture of when which fault met whom, and what went on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from chaos.events import Event
from chaos.rig import Report

__all__ = ["added_up", "text", "timeline"]

_PROMISES = (
    ("lost", "acknowledged, committed and without a result"),
    ("unseen", "acknowledged and not handled in the end"),
    ("wrong", "with another result than they ask for"),
    ("order_violations", "order of a key broken within an epoch"),
    ("commits_past_frontier", "commits past an unfinished record"),
    ("commits_went_back", "commits that went back"),
    ("early", "retries before their time"),
    ("unscheduled", "attempts beyond the policy"),
    ("beyond_allowed", "repeated more often than faults explain"),
    ("unclean", "partitions not committed to their end after a clean stop"),
)


def text(report: Report) -> str:
    """The verdict, a line for each promise."""
    verdict, plan = report.verdict, report.plan
    lines = [
        f"{plan.handoff} hand-off, group.protocol={plan.protocol}, seed {plan.seed}, {plan.seconds:g} s:"
        f" {verdict.handled} orders handled, {len(report.faults)} faults"
    ]
    for name, what in _PROMISES:
        count = getattr(verdict, name)
        lines.append(f"  {'✗' if count else '✓'} {count:>6} {what}")
    lines.append(
        f"    {verdict.duplicates:>6} duplicates of results (faults would explain"
        f" {verdict.duplicates_allowed}); {verdict.repeated_attempts} attempts repeated;"
        f" {verdict.crash_loops} given up as crash loops"
    )
    lines += [f"  ! {problem}" for problem in (*report.problems, *verdict.problems)]
    return "\n".join(lines)


def added_up(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last lines of several runs as one: numbers are added, other things are told once each."""
    found: dict[str, Any] = {}
    for name, first in summaries[0].items():
        values = [summary[name] for summary in summaries]
        if isinstance(first, bool):
            found[name] = all(values)
        elif isinstance(first, int) and name != "seed":
            found[name] = sum(values)
        else:
            found[name] = first if len(set(values)) == 1 else sorted(set(values))
    return found


# -- the picture -----------------------------------------------------------------------------------

_LEFT, _WIDTH, _ROW, _CHART = 130, 860, 20, 90
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.small { font-size: 10px; fill: #57606a }
.fault { fill: #cf222e; fill-opacity: .75 }
.quiet { fill: #8c959f; fill-opacity: .15 }
.owned { fill: #2f6f9f }
.in { fill: none; stroke: #8c959f; stroke-width: 1.5 }
.out { fill: none; stroke: #1a7f37; stroke-width: 1.5 }
.grid { stroke: #8c959f; stroke-opacity: .3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .owned { fill: #6cb6ff } .out { stroke: #57ab5a } }
</style>"""


def timeline(report: Report) -> str:
    """Faults above, who owned how much in the middle, produced and handled records a second below."""
    events = report.events
    began = min((e["t"] for e in events), default=0.0)
    ended = max((e["t"] for e in events), default=1.0)
    scale = _WIDTH / max(1e-9, ended - began)

    def x(t: float) -> float:
        return _LEFT + (t - began) * scale

    kinds = list(dict.fromkeys(f["fault"] for f in report.faults))
    members = sorted({e["who"] for e in events if e["event"] == "assigned" and e["partitions"]})
    height = 30 + _ROW * (len(kinds) + len(members)) + _CHART + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" role="img"'
        f' aria-labelledby="t"><title id="t">A chaos run: faults, assignments, throughput</title>{_STYLE}',
        f'<text x="8" y="16">{escape(report.plan.handoff)}, {escape(report.plan.protocol)}, seed'
        f" {report.plan.seed}: {'passed' if report.passed else 'FAILED'}</text>",
    ]
    y = 30
    for kind in kinds:
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(kind)}</text>')
        for fault in (f for f in report.faults if f["fault"] == kind):
            width = max(2.0, (fault["ended"] - fault["began"]) * scale)
            parts.append(
                f'<rect class="fault" x="{x(fault["began"]):.1f}" y="{y + 3}" width="{width:.1f}"'
                f' height="{_ROW - 6}"><title>{escape(kind)}: {escape(fault["whom"])}</title></rect>'
            )
        y += _ROW
    for member in members:
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(member)}</text>')
        for since, until, share in _owned(events, member, ended):
            parts.append(
                f'<rect class="owned" x="{x(since):.1f}" y="{y + 3}" width="{(until - since) * scale:.1f}"'
                f' height="{_ROW - 6}" fill-opacity="{0.25 + 0.75 * min(1.0, share / 9):.2f}">'
                f"<title>{share} partitions</title></rect>"
            )
        y += _ROW
    parts += _chart(events, began, ended, y + 10)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _owned(events: Sequence[Event], member: str, ended: float) -> Iterator[tuple[float, float, int]]:
    """From when to when the member owned how many partitions."""
    now: set[tuple[str, int]] = set()
    since = 0.0
    for event in (e for e in events if e["who"] == member):
        before = len(now)
        match event["event"]:
            case "assigned":
                now.update(map(tuple, event["partitions"]))
            case "revoked" | "lost":
                now.difference_update(map(tuple, event["partitions"]))
            case "began" | "stopped" | "died":
                now.clear()
        if len(now) != before:
            if before:
                yield since, event["t"], before
            since = event["t"]
    if now:
        yield since, ended, len(now)


def _chart(events: Sequence[Event], began: float, ended: float, top: float) -> Iterator[str]:
    seconds = int(ended - began) + 1
    counts = {"produced": [0] * seconds, "end": [0] * seconds}
    for event in events:
        if event["event"] in counts and event.get("how", "ok") == "ok":
            counts[event["event"]][int(event["t"] - began)] += 1
    most = max(1, *counts["produced"], *counts["end"])
    step = _WIDTH / max(1e-9, ended - began)
    for name, values in counts.items():
        points = " ".join(
            f"{_LEFT + (i + 0.5) * step:.1f},{top + _CHART * (1 - value / most):.1f}"
            for i, value in enumerate(values)
        )
        yield f'<polyline class="{"in" if name == "produced" else "out"}" points="{points}"/>'
    yield f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{top + _CHART}" y2="{top + _CHART}"/>'
    yield f'<text class="small" x="{_LEFT - 8}" y="{top + 8}" text-anchor="end">{most}/s</text>'
    yield (
        f'<text class="small" x="{_LEFT}" y="{top + _CHART + 14}">0 s</text>'
        f'<text class="small" x="{_LEFT + _WIDTH}" y="{top + _CHART + 14}" text-anchor="end">'
        f"{ended - began:.0f} s; grey: produced a second, green: handled</text>"
    )
