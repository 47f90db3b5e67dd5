"""One run: a cluster, members, feeders, faults, then quiet, a clean stop, and the checker.

Promise: the verdict is the checker's; what the rig itself could not do (a member that does not end, records
that are never finished) makes the run fail, never pass.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaException

from chaos import feeder, nemesis, truth
from chaos import member as consuming
from chaos.checker import Verdict, check
from chaos.cluster import Cluster
from chaos.events import Event, Log, read_all
from chaos.proxy import Rule

__all__ = ["HandOff", "Plan", "Protocol", "Report", "Rig"]

HandOff = Literal["acknowledged", "transactional"]
Protocol = Literal["classic", "consumer"]


_GAP = (1.0, 4.0)  # seconds between two faults
_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for."""

    seconds: float
    seed: int
    faults: tuple[str, ...]
    handoff: HandOff
    protocol: Protocol
    mutant: str = ""
    nodes: int = 3
    members: int = 3
    rate: float = 150.0
    """Records a second of each feeder."""
    feeders: int = 2
    quiet: float = 60.0
    """Seconds without any progress, after the last fault, that are one problem."""
    each: bool = False
    """Do each fault once, in their order, instead of drawing them; it takes as long as it takes."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    plan: Plan
    verdict: Verdict
    events: list[Event]
    faults: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Of the rig itself."""

    @property
    def passed(self) -> bool:
        """Whether all promises held, and all was seen."""
        return self.verdict.passed and not self.problems

    def summary(self) -> dict[str, Any]:
        """The last line."""
        v = self.verdict
        names = ("lost", "unseen", "duplicates", "duplicates_allowed", "order_violations")
        more = ("commits_past_frontier", "early", "handled")
        rest = ("commits_went_back", "unscheduled", "beyond_allowed", "wrong", "unclean", "crash_loops")
        told: dict[str, Any] = {name: getattr(v, name) for name in (*names, *more)}
        told["faults"] = len(self.faults)
        told |= {name: getattr(v, name) for name in (*rest, "repeated_attempts")}
        told |= {"handoff": self.plan.handoff, "protocol": self.plan.protocol, "seed": self.plan.seed}
        return told | {"passed": self.passed}


class Rig:
    """A run in `folder`, on a cluster that is up. It is the nemesis's world, too."""

    def __init__(self, plan: Plan, cluster: Cluster, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.handoff: str = plan.handoff
        self._cluster = cluster
        self._folder = folder
        self._events = folder / "events"
        self._say = say
        self._log = Log(self._events / "rig.jsonl")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._retired: set[str] = set()
        self._problems: list[str] = []
        self._stop = threading.Event()
        self._ends_at = 0.0

    def run(self) -> Report:
        """All of it; some seconds longer than the plan's."""
        plan = self.plan
        with self._everything_ended():
            for i in range(plan.members):
                self.restart(f"member-{i + 1}")
            self._until(lambda: self._assigned() >= plan.members, 60.0, "all members have partitions")
            feeders = [self._feed(f"f{i + 1}") for i in range(plan.feeders)]
            self._ends_at = time.monotonic() + plan.seconds
            self._torment()
            for process in feeders:
                process.send_signal(signal.SIGTERM)
            for process in feeders:
                self._ended(process, "a feeder", feeder.GIVES_UP + 10.0)
            self._log.write("quiet")
            self._cluster.revive()
            self._revive_members()
            self._until_finished()
            for name in self._names():
                self.signal(name, "SIGTERM")
            for name in self._names():
                self._ended(self._processes[name], name, 30.0)
        events = read_all(self._events)
        found = check(events, truth.read(self._cluster.direct), handoff=plan.handoff)
        faults = [event for event in events if event["event"] == "fault"]
        return Report(plan, found, events, faults, self._problems)

    # -- nemesis.World -----------------------------------------------------------------------------

    def members(self) -> list[str]:
        """Those that run."""
        return [name for name in self._names() if self._processes[name].poll() is None]

    def nodes(self) -> list[int]:
        """Those that run."""
        return self._cluster.nodes()

    def signal(self, member: str, name: str) -> None:
        """Send a signal; nobody minds if it is gone."""
        process = self._processes[member]
        self._log.write("signal", member=member, signal=name)
        if process.poll() is None:
            process.send_signal(getattr(signal, name))

    def wait_gone(self, member: str, timeout: float) -> bool:
        """Wait for its end."""
        try:
            self._processes[member].wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self, member: str, failpoint: str = "", hits: int = 1) -> None:
        """Start a member of that name. One that runs is killed before that."""
        before = self._processes.get(member)
        if before is not None and before.poll() is None:
            self._problems.append(f"{member} did not end when asked, and was killed")
            before.kill()
            before.wait()
        plan = self.plan
        config = consuming.Config(
            name=member,
            bootstrap=self._cluster.bootstrap,
            events=str(self._events),
            handoff=plan.handoff,
            protocol=plan.protocol,
            failpoint=failpoint,
            hits=hits,
            mutant=plan.mutant,
        )
        self._processes[member] = self._start("chaos.member", member, config)
        self._retired.discard(member)

    def retire(self, member: str) -> None:
        """It is not to come back."""
        self._retired.add(member)

    def kill_node(self, node: int) -> None:
        """SIGKILL a broker."""
        self._cluster.kill(node)

    def revive_nodes(self) -> None:
        """Start the brokers that don't run."""
        self._cluster.revive()

    def leader(self) -> int:
        """The node that leads most of the source topic."""
        return int(self._patiently(self._cluster.leader))

    def coordinator(self) -> int:
        """The node that coordinates the group."""
        return int(self._patiently(self._cluster.coordinator))

    def limit(self, size: int) -> None:
        """How many bytes the topics that members write to take at once."""
        self._patiently(lambda: self._cluster.limit(size))

    def disturb(self, rule: Rule) -> None:
        """Set a rule of the proxy."""
        self._cluster.proxy.add(rule)

    def relieve(self, rule: Rule) -> None:
        """Take it back."""
        self._cluster.proxy.remove(rule)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._stop.wait(seconds)

    # -- inside ------------------------------------------------------------------------------------

    def _torment(self) -> None:
        chance = random.Random(self.plan.seed)
        if not self.plan.faults:
            self.wait(max(0.0, self._ends_at - time.monotonic()))
        for fault in self._faults(chance):
            self.wait(chance.uniform(*_GAP))
            self._revive_members()
            began = time.monotonic()
            try:
                whom = fault.do(self, chance)
            except KafkaException as error:
                whom = f"nobody: {error}"
            self._log.write("fault", fault=fault.name, whom=whom, began=began, ended=time.monotonic())
            left = max(0.0, self._ends_at - time.monotonic())
            to_go = "" if self.plan.each else f"; {left:.0f} s to go"
            self._say(f"{fault.name}: {whom} ({time.monotonic() - began:.1f} s{to_go})")

    def _revive_members(self) -> None:
        """Nobody told them to end: that is a defect, and not to be the end of the run."""
        for name in self._names():
            status = self._processes[name].poll()
            if status is not None:
                self._problems.append(f"{name} ended by itself, status {status}")
                self.restart(name)

    def _faults(self, chance: random.Random) -> Iterator[nemesis.Fault]:
        names, handoff = self.plan.faults, self.plan.handoff
        if self.plan.each:
            yield from (f for f in map(nemesis.fault_named, names) if f.needs in ("", handoff))
            return
        while names and time.monotonic() < self._ends_at:
            yield nemesis.draw(chance, names, handoff)

    def _names(self) -> list[str]:
        return [name for name in self._processes if name not in self._retired]

    def _start(self, module: str, name: str, config: Any) -> subprocess.Popen[bytes]:
        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", module, msgspec.json.encode(config).decode()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=Path(__file__).resolve().parent.parent,
            )

    def _feed(self, name: str) -> subprocess.Popen[bytes]:
        plan = self.plan
        config = feeder.Config(name, self._cluster.bootstrap, str(self._events), plan.seed, plan.rate)
        process = self._start("chaos.feeder", name, config)
        self._processes[name] = process
        self._retired.add(name)  # no member
        return process

    def _assigned(self) -> int:
        """How many members have partitions of the source."""
        return len({e["who"] for e in read_all(self._events) if e["event"] == "assigned" and e["partitions"]})

    def _lag(self) -> int:
        return int(self._patiently(lambda: truth.lag(self._cluster.direct)).lag)

    def _until_finished(self) -> None:
        """Until the lag is 0; it may take any time while it becomes less."""
        least, deadline = self._lag(), time.monotonic() + self.plan.quiet
        while least > 0:
            if time.monotonic() > deadline:
                self._problems.append(f"the lag is {least} and did not get less for {self.plan.quiet:g} s")
                return
            self.wait(_TICK)
            now = self._lag()
            if now < least:
                least, deadline = now, time.monotonic() + self.plan.quiet

    def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self._problems.append(f"waited {timeout:g} s in vain for: {what}")
                return
            self.wait(_TICK)

    def _ended(self, process: subprocess.Popen[bytes], name: str, timeout: float) -> None:
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._problems.append(f"{name} did not end within {timeout:g} s")
        else:
            if status != 0:
                self._problems.append(f"{name} ended with status {status}")

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 90.0
        while True:
            try:
                return ask()
            except (KafkaException, IndexError):
                if time.monotonic() > deadline:
                    raise
                self.wait(0.5)

    @contextlib.contextmanager
    def _everything_ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
