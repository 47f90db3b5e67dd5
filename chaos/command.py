"""./scripts/chaos.sh: one run, its report, and an exit status that says whether all promises held."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chaos import report as reports
from chaos.cluster import Cluster
from chaos.failpoints import POINTS
from chaos.mutants import MUTANTS
from chaos.nemesis import FAULTS, fault_named
from chaos.rig import HandOff, Plan, Protocol, Report, Rig
from relance.broker import BrokerFailedError, MissingToolError

COMBINATIONS: Final[list[tuple[HandOff, Protocol]]] = [
    (handoff, protocol)
    for protocol in ("classic", "consumer")
    for handoff in ("acknowledged", "transactional")
]
RUNS = Path(".run") / "chaos"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 where all promises held, 1 where not, 2 for wrong arguments, 130 for Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.list_mutants:
        for name, make in MUTANTS.items():
            print(f"{name:22} {(make.__doc__ or '').splitlines()[0]}")
        return 0
    if options.list_faults:
        for fault in FAULTS.values():
            print(f"{fault.name:18} {fault.what}{f' (only {fault.needs})' if fault.needs else ''}")
        print(f"die-at:POINT       a member is killed there, one of: {', '.join(POINTS)}")
        return 0
    faults = tuple(FAULTS) if options.faults is None else tuple(n for n in options.faults.split(",") if n)
    for name in faults:
        try:
            fault_named(name)
        except KeyError:
            known = [*FAULTS, *(f"die-at:{point}" for point in POINTS)]
            parser.error(f"no fault {name}; there are: {', '.join(known)}")
    if options.mutant and options.mutant not in MUTANTS:
        parser.error(f"no mutant {options.mutant}; there are: {', '.join(MUTANTS)}")
    if options.nodes < 3:  # there is nobody to take over
        faults = tuple(name for name in faults if not fault_named(name).needs_nodes)
    signal.signal(signal.SIGTERM, _interrupt)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    # With the process: two that begin within a second would empty each other's folder.
    folder = (options.keep or RUNS / f"{stamp}-{os.getpid()}").absolute()
    found: list[Report] = []
    try:
        for seed in range(options.seed, options.seed + options.runs):
            handoff, protocol = COMBINATIONS[seed % len(COMBINATIONS)]
            plan = Plan(
                options.seconds,
                seed,
                faults,
                options.handoff or handoff,
                options.protocol or protocol,
                options.mutant or "",
                nodes=options.nodes,
                members=options.members,
                rate=options.rate,
                quiet=options.quiet,
                each=options.each,
            )
            found.append(run(plan, folder if options.runs == 1 else folder / f"seed-{seed}"))
    except FolderError as error:
        parser.error(f"{error}: choose another with --keep")
    except (BrokerFailedError, MissingToolError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(reports.added_up([one.summary() for one in found])))
    return 0 if all(one.passed for one in found) else 1


class FolderError(Exception):
    """A run's files cannot be there."""


def run(plan: Plan, folder: Path) -> Report:
    """Run, print the report, keep its files in `folder`, which is emptied first. Raises FolderError."""
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / "events").exists():
            raise FolderError(f"{folder} holds other things than a run of ours")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise FolderError(f"{folder} cannot be made: {error.strerror}") from error

    def say(line: str) -> None:
        print(f"chaos: {line}", file=sys.stderr, flush=True)

    say(f"{plan.handoff} hand-off, group.protocol={plan.protocol}, seed {plan.seed}, {plan.seconds:g} s")
    cluster = Cluster(folder / "cluster", plan.nodes)
    try:
        cluster.start()
        found = Rig(plan, cluster, folder, say).run()
    finally:
        cluster.purge()
    (folder / "timeline.svg").write_text(reports.timeline(found))
    told = found.summary() | {"problems": [*found.problems, *found.verdict.problems]}
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    print(reports.text(found))
    print(f"events, logs, report.json and timeline.svg: {folder}", flush=True)
    return found


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def _between(kind: type[float], least: float, most: float) -> Callable[[str], float]:
    """For argparse: a number of that kind, both ends included."""
    what = "a whole number" if kind is int else "a number"

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {what} from {least} to {most}")
        return number

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./scripts/chaos.sh",
        description="Torment consumers on a cluster of three brokers, and check that nothing was lost.",
    )
    parser.add_argument(
        "--seconds", type=_between(float, 5, 86_400), default=300.0, help="of faults (default: 300)"
    )
    parser.add_argument(
        "--seed", type=_between(int, 0, 2**31), default=1, help="draws faults and records (default: 1)"
    )
    parser.add_argument(
        "--runs", type=_between(int, 1, 1000), default=1, metavar="N", help="with this seed and the next ones"
    )
    parser.add_argument("--faults", metavar="LIST", help=f"of: {', '.join(FAULTS)} (default: all; '': none)")
    parser.add_argument("--each", action="store_true", help="each of them once, in this order, however long")
    parser.add_argument("--list-faults", action="store_true", help="say what they are")
    parser.add_argument(
        "--handoff", choices=("acknowledged", "transactional"), help="default: by the seed, in turns"
    )
    parser.add_argument("--protocol", choices=("classic", "consumer"), help="default: by the seed, in turns")
    parser.add_argument(
        "--nodes", type=_between(int, 1, 9), default=3, metavar="N", help="brokers (default: 3)"
    )
    parser.add_argument(
        "--members", type=_between(int, 1, 20), default=3, metavar="N", help="consumers (default: 3)"
    )
    parser.add_argument(
        "--rate",
        type=_between(float, 1, 100_000),
        default=150.0,
        metavar="N",
        help="records a second of each of two producers",
    )
    parser.add_argument(
        "--quiet",
        type=_between(float, 1, 3600),
        default=60.0,
        metavar="S",
        help="seconds without progress, at the end, that are a problem (default: 60)",
    )
    parser.add_argument("--mutant", metavar="NAME", help="break a promise of the engine; see --list-mutants")
    parser.add_argument("--list-mutants", action="store_true", help="say what they are")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the files (default: .run/chaos/…)")
    return parser
