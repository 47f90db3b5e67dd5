"""./scripts/bench.sh [WORK …] [--quick] [--json FILE] [--against PEER,…]: measures, prints, writes the JSON.

Promise: the broker is our own, on a free port, and gone at the end, also after Ctrl-C; the JSON is written
after each work, so that a long measurement that is stopped keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import homes, machine, plot, report, rounds
from bench.measure import Bench, Show
from bench.peers import PEERS
from bench.works import QUICK_ROUNDS, ROUNDS, WORKS, Work
from relance.broker import BrokerFailedError, LocalBroker, MissingToolError


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 where relance has a result in each work, 1 where not, 2 for wrong arguments."""
    parser = _parser()
    options = parser.parse_args(argv)
    for name in options.works:
        if name not in WORKS:
            parser.error(f"no work {name}; there are: {', '.join(WORKS)}")
    against = None if options.against is None else [name for name in options.against.split(",") if name]
    for name in against or ():
        if name not in PEERS:
            parser.error(f"no peer {name}; there are: {', '.join(PEERS)}")
    works = [WORKS[name] for name in options.works] or list(WORKS.values())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _measure(works, options, against)
    except (BrokerFailedError, MissingToolError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./scripts/bench.sh", description="Measure relance beside its peers, on a broker of its own."
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of: {', '.join(WORKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small numbers: to see it work, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the ratios there")
    parser.add_argument(
        "--against", metavar="PEER,…", help=f"of: {', '.join(PEERS)} (default: all of a work)"
    )
    once = ", ".join(work.name for work in WORKS.values() if work.rounds == 1)
    parser.add_argument(
        "--rounds",
        type=_rounds,
        metavar="N",
        help=f"how many (default: {ROUNDS}, with --quick {QUICK_ROUNDS}; {once}: 1)",
    )
    return parser


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds: 1 or more")
    return int(text)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def _measure(works: Sequence[Work], options: argparse.Namespace, against: Sequence[str] | None) -> int:
    show = Show()
    facts = machine.facts() | {"measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    entries: list[dict[str, Any]] = []
    if options.quick:
        show.print("quick: small numbers on a warm-up's word; the figures are not to be quoted")
    if facts["load_before"] > 0.5:
        show.print(
            f"note: this machine is busy already (load {facts['load_before']}); the figures will be noisy"
        )
    began = time.monotonic()
    homes.run_dir().mkdir(parents=True, exist_ok=True)
    broker = LocalBroker(homes.run_dir(), port=0, heap_mb=1024, say=show.say)
    broker.purge()  # what an interrupted run left
    try:
        broker.start()
        bench = Bench(broker.bootstrap, show, rounds=options.rounds, quick=options.quick, against=against)
        for work in works:
            found = bench.measure(work)
            common = {"quick": options.quick, "machine": facts}
            if work.name != "startup":
                common["broker"] = {"kafka": facts["kafka"], "nodes": 1, "heap_mb": 1024}
            entries += [one | common for one in found]
            _mark(work, entries)
            show.print("\n" + report.table(work, found, "quick" if options.quick else ""))
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(entries, indent=1, default=str) + "\n")
    finally:
        show.close()
        broker.purge()
    if options.svg:
        options.svg.write_text(plot.ratios(entries))
    show.print(f"\n{len(works)} works in {time.monotonic() - began:.0f} s{_absent(entries)}")
    return 0 if _all_measured(works, entries) else 1


def _mark(work: Work, entries: Sequence[dict[str, Any]]) -> None:
    """Put the targets into relance's first entry of the work."""
    mine = [one for one in entries if one["work"] == work.name]
    for one in mine:
        if one["peer"] == "relance":
            one["targets"] = list(report.verdicts(work, mine))
            break


def _absent(entries: Sequence[dict[str, Any]]) -> str:
    names = sorted({one["peer"] for one in entries if one.get("missing")})
    return f"; missing: {', '.join(names)}" if names else ""


def _all_measured(works: Sequence[Work], entries: Sequence[dict[str, Any]]) -> bool:
    results = {
        one["work"] for one in entries if one["peer"] == "relance" and rounds.is_result(one | {"problem": ""})
    } | {one["work"] for one in entries if one.get("p50_ms") is not None and one["peer"] == "relance"}
    return all(work.name in results for work in works)
