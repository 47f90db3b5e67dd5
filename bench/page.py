"""Writes the figures of a run into docs/benchmarks.md: `python -m bench.page FILE.json`.

Promise: no figure of that page is typed by hand; a quick run is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plot, report
from bench.peers import PEERS
from bench.works import WORKS

DOCS = Path(__file__).resolve().parent.parent / "docs"
START, END = "<!-- figures: written by bench/page.py -->", "<!-- end of the figures -->"

Result = Mapping[str, Any]


def figures(entries: Sequence[Result]) -> str:
    """The tables of all works in `entries`, as Markdown."""
    lines = list(_machine(entries))
    for name in dict.fromkeys(str(one["work"]) for one in entries):
        lines += ["", *_work(name, [one for one in entries if one["work"] == name])]
    return "\n".join(lines)


def _machine(entries: Sequence[Result]) -> Iterator[str]:
    for one in entries:
        if facts := one.get("machine"):
            told = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))
            yield f"Measured with: {told}."
            return


def _work(name: str, entries: Sequence[Result]) -> Iterator[str]:
    work = WORKS[name]
    with_ratio = any("relance_ratio" in one for one in entries)
    heads = ["", *(report.HEADS.get(column, column) for column in work.shows)]
    heads += ["relance ÷ it"] if with_ratio else []
    yield f"### `{name}`: {work.title}"
    yield ""
    yield "| " + " | ".join(heads) + " |"
    yield "|---|" + "---:|" * (len(heads) - 1)
    for one in entries:
        peer = PEERS.get(str(one["peer"]))
        title = (peer.title or peer.name) if peer else str(one["peer"])
        if reason := one.get("missing") or (one.get("problem") if not one.get("rounds") else None):
            said = "missing" if one.get("missing") else "no result"
            yield f"| {title} | {said}: {reason} |" + " |" * (len(heads) - 2)
            continue
        cells = [report.shown(column, one.get(column)) for column in work.shows]
        if with_ratio:
            cells.append(f"{one['relance_ratio']:.2f}" if one.get("relance_ratio") else "")
        yield f"| {title} | " + " | ".join(cells) + " |"
    yield ""
    for verdict in report.verdicts(work, entries):
        yield f"- {report.told(verdict)}"


def filled(page: str, text: str) -> str:
    """`page` with `text` between its marks. Raises ValueError where they are missing."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page has no {START!r} and {END!r}")
    return f"{before}{START}\n{text}\n{END}{after}"


def main(words: Sequence[str]) -> int:
    """The exit status: 2 for wrong arguments or a quick run."""
    if len(words) != 1 or words[0].startswith("-"):
        print(
            "usage: python -m bench.page FILE.json  (of ./scripts/bench.sh --json FILE.json)", file=sys.stderr
        )
        return 2
    try:
        entries = json.loads(Path(words[0]).read_text())
    except (OSError, ValueError) as error:
        print(f"page: {words[0]}: {error}", file=sys.stderr)
        return 2
    if any(one.get("quick") for one in entries):
        print(f"page: {words[0]} is of a quick run, whose figures are not to be quoted", file=sys.stderr)
        return 2
    page = DOCS / "benchmarks.md"
    page.write_text(filled(page.read_text(), figures(entries)))
    (DOCS / "benchmarks.svg").write_text(plot.ratios(entries))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
