"""Goes through one work: warms up, takes turns, and gives the entries of the JSON.

Promise: each timed part lasts at least ten seconds (one with --quick); one that turned out shorter is run
again with more records.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import homes, rounds
from bench.homes import MissingPeerError
from bench.peers import PEERS
from bench.rounds import Result
from bench.runs import Asked, run
from bench.topics import Topics
from bench.works import QUICK_ROUNDS, Work

LEAST, QUICK_LEAST = 10.0, 1.0  # seconds of each timed part
_MARGIN = 1.25  # aimed at so much more: a warm-up's estimate is no promise
_START = 120.0  # seconds that a program may take beside the timed part


class Show:
    """What one sees meanwhile: a bar on a terminal, a line for each run elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)

    def say(self, line: str) -> None:
        """What is going on now."""
        if self._bar is not None:
            self._bar.update(self._task, description=line, completed=0.0)
        else:
            print(line, file=sys.stderr, flush=True)

    def share(self, share: float) -> None:
        """How much of it is done, 0 to 1."""
        if self._bar is not None:
            self._bar.update(self._task, completed=share)

    def print(self, text: str) -> None:
        """What stays."""
        if self._bar is not None:
            self._bar.console.print(end="")  # moves the bar out of the way
        print(text, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()


class Bench:
    """The works on one broker."""

    def __init__(
        self, bootstrap: str, show: Show, *, rounds: int | None, quick: bool, against: Sequence[str] | None
    ) -> None:
        self._topics = Topics(bootstrap)
        self._show = show
        self._rounds = rounds
        self._quick = quick
        self._against = against
        self._commands: dict[str, list[str]] = {}
        self._missing: dict[str, str] = {}

    def measure(self, work: Work) -> list[Result]:
        """All entries of a work, relance's first."""
        if work.kind == "startup":
            return startup(work.quick_n if self._quick else work.n, self._show)
        peers = [name for name in work.peers if name == "relance" or self._wants(name)]
        self._find_homes(peers)
        there = [name for name in peers if name not in self._missing]
        try:
            if work.kind == "throughput":
                found = self._throughput(work, there)
            elif work.name == "isolation":
                found = self._isolation(work)
            else:
                found = self._paced(work, there)
        finally:
            if work.kind != "throughput" or self._quick:
                self._topics.delete_filled()
        return found + [
            rounds.missing(work.name, name, self._missing[name]) for name in peers if name in self._missing
        ]

    def _wants(self, name: str) -> bool:
        return self._against is None or name in self._against

    def _find_homes(self, peers: Sequence[str]) -> None:
        for name in peers:
            if name in self._commands or name in self._missing:
                continue
            try:
                self._commands[name] = homes.command_of(PEERS[name], self._show.say)
            except MissingPeerError as error:
                self._missing[name] = str(error)
                self._show.print(f"missing: {name}: {error}")

    def _options(self, work: Work) -> Mapping[str, Any]:
        return work.quick_options or work.options if self._quick else work.options

    def _run(self, work: Work, peer: str, n: int, lasts: float = 180.0, **more: Any) -> Result:
        asked = Asked(
            work=work,
            peer=PEERS[peer],
            n=n,
            options={**self._options(work), **more.pop("options", {})},
            limit=_START + lasts,
            **more,
        )
        return run(asked, self._commands[peer], self._topics, self._show.share)

    # -- throughput ----------------------------------------------------------------------------------

    def _throughput(self, work: Work, peers: list[str]) -> list[Result]:
        least = QUICK_LEAST if self._quick else LEAST
        floor = work.quick_n if self._quick else work.n
        runs: dict[str, list[Result]] = {name: [] for name in peers}
        sizes: dict[str, int] = {}
        for name in peers:
            self._show.say(f"{work.name}: {name}: warm-up")
            tried = rounds.estimated(lambda n, name=name: self._run(work, name, n), self._quick)
            if not rounds.is_result(tried):
                self._tell(work, name, "warm-up", tried)
                runs[name].append(tried)
                continue
            # A floor is for those who get there in a minute or two; a slow peer shows its speed with fewer.
            wanted = floor if floor / tried["records_per_s"] < 10 * least else 0
            sizes[name] = rounds.records_for(tried, least * _MARGIN, wanted)
        for name, where in self._turns(work, list(sizes)):
            self._show.say(f"{work.name}: {name}: {where}, {sizes[name]:,} records")
            result = self._run(work, name, sizes[name])
            if rounds.is_result(result) and result["seconds"] < least:
                sizes[name] = rounds.records_for(result, least * _MARGIN, sizes[name])
                self._show.say(f"{work.name}: {name}: {where} again, {sizes[name]:,} records")
                result = self._run(work, name, sizes[name])
            self._tell(work, name, where, result)
            runs[name].append(result)
        entries = [rounds.entry(work.name, name, runs[name]) for name in peers]
        rounds.add_ratios(entries, {name: _padded(runs[name], self._count(work)) for name in peers})
        if work.name == "fast-key":
            self._add_proof(work, entries)
        return entries

    def _add_proof(self, work: Work, entries: Sequence[Result]) -> None:
        """The same consumer with a handler of a millisecond: how many handlers wait at once."""
        options = {"wait_ms": 1, "concurrency": 64}
        n = 20_000 if self._quick else 100_000
        self._show.say(f"{work.name}: relance: how many in flight")
        proof = self._run(work, "relance", n, options=options, program_work="fast-key-proof")
        ours = entries[0]
        ours["max_in_flight"] = None if proof.get("problem") else proof.get("max_in_flight")
        ours["proof"] = {name: value for name, value in proof.items() if name not in ("settings", "versions")}

    # -- works of their own --------------------------------------------------------------------------

    def _paced(self, work: Work, peers: list[str]) -> list[Result]:
        """Where time is set by the work, and what counts is how late, or how large, somebody was."""
        n = work.quick_n if self._quick else work.n
        runs: dict[str, list[Result]] = {name: [] for name in peers}
        for name, where in self._turns(work, peers):
            self._show.say(f"{work.name}: {name}: {where}, {n:,} records")
            runs[name].append(self._run(work, name, n, self._lasts(work, n)))
            self._tell(work, name, where, runs[name][-1])
        return [rounds.entry(work.name, name, runs[name]) for name in peers]

    def _lasts(self, work: Work, n: int) -> float:
        """How many seconds it may take, beside its start."""
        return (n / work.rate if work.rate else 300.0) + float(self._options(work).get("hold_s", 0.0))

    def _isolation(self, work: Work) -> list[Result]:
        n = work.quick_n if self._quick else work.n
        runs: dict[str, list[Result]] = {"clean": [], "failing": []}
        for case, where in self._turns(work, list(runs)):
            self._show.say(f"{work.name}: relance: {case}: {where}, {n:,} records")
            options = {"failing": case == "failing"}
            runs[case].append(self._run(work, "relance", n, self._lasts(work, n), options=options))
            self._tell(work, "relance", f"{case}: {where}", runs[case][-1])
        clean, failing = (rounds.entry(work.name, "relance", runs[case], case=case) for case in runs)
        ratios = rounds.paired_ratios(runs["failing"], runs["clean"], "p99_ms")
        failing["p99_ratio"] = round(statistics.median(ratios), 3) if ratios else None
        failing["p99_ratios"] = [round(value, 3) for value in ratios]
        return [clean, failing]

    # -- rounds --------------------------------------------------------------------------------------

    def _count(self, work: Work) -> int:
        return self._rounds or (min(QUICK_ROUNDS, work.rounds) if self._quick else work.rounds)

    def _turns(self, work: Work, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Who is next, and how that is called."""
        count = self._count(work)
        for round_ in range(count):
            for name in rounds.rotated(names, round_):
                yield name, f"round {round_ + 1} of {count}"

    def _tell(self, work: Work, peer: str, where: str, result: Result) -> None:
        speed = (
            f"{result['records_per_s']:,.0f} records/s in {result['seconds']:.1f} s" if _ok(result) else ""
        )
        self._show.say(f"{work.name}: {peer}: {where}: {speed or 'no result: ' + str(result.get('problem'))}")


def _ok(result: Result) -> bool:
    return rounds.is_result(result)


def _padded(runs: Sequence[Result], count: int) -> list[Result | None]:
    return [*runs, *[None] * (count - len(runs))][:count]


def startup(n: int, show: Show) -> list[Result]:
    """`import relance` and `relance --help`, each from a cold process, taking turns."""
    beside = Path(sys.executable).parent / "relance"
    commands = {
        "import relance": [sys.executable, "-c", "import relance"],
        "relance --help": [str(beside), "--help"],
        "python alone": [sys.executable, "-c", "pass"],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(n + 1):
        show.say(f"startup: {turn} of {n}")
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
            if turn:  # the first fills the file cache
                took[name].append((time.perf_counter() - began) * 1000)
    entries = []
    for name, values in took.items():
        ordered = sorted(values)
        entries.append(
            {
                "work": "startup",
                "peer": "python" if name == "python alone" else "relance",
                "case": name,
                "n": n,
                "seconds": round(sum(values) / 1000, 3),
                "records_per_s": None,
                "p50_ms": round(statistics.median(ordered), 1),
                "p99_ms": round(ordered[-1], 1),
                "rounds": n,
                "settings": {"command": name},
            }
        )
    return entries
