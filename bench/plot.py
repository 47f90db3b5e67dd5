"""Draws relance's speed beside each peer's as an SVG, without a library.

Promise: one bar for each peer and work, on a logarithmic axis with the peer at 1; light and dark pages both
work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_LEFT, _WIDTH, _ROW, _TOP = 210, 460, 22, 34
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.work { font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.bar { fill: #2f6f9f }
.axis { stroke: #8c959f; stroke-width: 1 }
.grid { stroke: #8c959f; stroke-opacity: .3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .bar { fill: #6cb6ff } }
</style>"""


def ratios(entries: Sequence[Mapping[str, Any]]) -> str:
    """Relance's speed divided by each peer's, for all works that have ratios."""
    rows: list[tuple[str, str, float]] = [
        (one["work"], one["peer"], float(one["relance_ratio"])) for one in entries if one.get("relance_ratio")
    ]
    values = [value for _, _, value in rows] or [1.0]
    low = min(0.5, 10 ** math.floor(math.log10(min(values))) if min(values) < 0.5 else 0.5)
    high = max(2.0, max(values) * 1.1)

    def x(value: float) -> float:
        return _LEFT + _WIDTH * math.log(value / low) / math.log(high / low)

    works = list(dict.fromkeys(work for work, _, _ in rows))
    height = _TOP + _ROW * (len(rows) + len(works)) + 30
    quick = any(one.get("quick") for one in entries)
    told = "; ".join(f"{work}: {value:.2f} times {peer}" for work, peer, value in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img"'
        ' aria-labelledby="t d"><title id="t">How many times as fast as each peer relance is</title>'
        f'<desc id="d">{escape(told or "no ratios")}</desc>{_STYLE}',
        f'<text x="{_LEFT}" y="16" class="small">relance ÷ peer, records a second, median of paired rounds'
        f"{' (quick run: not to be quoted)' if quick else ''}</text>",
    ]
    for tick in _ticks(low, high):
        kind = "axis" if tick == 1 else "grid"
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP - 8}" y2="{height - 22}" class="{kind}"/>'
        )
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle" class="small">{tick:g}</text>'
        )
    y = _TOP
    for work in works:
        parts.append(f'<text x="8" y="{y + 14}" class="work">{escape(work)}</text>')
        y += _ROW
        for _, peer, value in (row for row in rows if row[0] == work):
            left, right = sorted((x(1.0), x(value)))
            parts.append(f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(peer)}</text>')
            bar = f'x="{left:.1f}" y="{y + 3}" width="{max(1.0, right - left):.1f}" height="{_ROW - 8}"'
            parts.append(f'<rect {bar} class="bar"/>')
            parts.append(f'<text x="{right + 6:.1f}" y="{y + 14}" class="small">{value:.2f}</text>')
            y += _ROW
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    steps = [step * 10.0**power for power in range(-3, 6) for step in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]
