"""The faults, drawn from the matrix with a seed: each is done, lasts, and is healed.

Promise: what is drawn depends on the seed alone; what was done, to whom and when stands in the events.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from chaos.failpoints import POINTS
from chaos.proxy import END_TXN, OFFSET_COMMIT, PRODUCE, TXN_OFFSET_COMMIT, Rule

__all__ = ["FAULTS", "Fault", "World", "draw", "fault_named"]

SESSION = 6.0  # seconds; of the members
_STOPS_WITHIN = 30.0  # seconds; whoever takes longer when it is asked to end is a problem of the run
_SMALL, _LARGE = 5_000, 1_048_588  # bytes: some records of the rig, and Kafka's default
_PATIENCE = 6  # times ten seconds for a crash point to be passed


class World(Protocol):
    """What a fault can lay hands on. `member` is a member's name."""

    handoff: str

    def members(self) -> list[str]:
        """Those that run."""

    def nodes(self) -> list[int]:
        """Those that run."""

    def signal(self, member: str, name: str) -> None:
        """Send SIGKILL, SIGTERM, SIGSTOP or SIGCONT."""

    def wait_gone(self, member: str, timeout: float) -> bool:
        """Wait for its end."""

    def restart(self, member: str, failpoint: str = "", hits: int = 1) -> None:
        """Start a member of that name (again)."""

    def retire(self, member: str) -> None:
        """It is not to come back."""

    def kill_node(self, node: int) -> None:
        """SIGKILL a broker."""

    def revive_nodes(self) -> None:
        """Start the brokers that don't run."""

    def leader(self) -> int:
        """The node that leads most of the source topic."""

    def coordinator(self) -> int:
        """The node that coordinates the group."""

    def limit(self, size: int) -> None:
        """How many bytes the topics that members write to take at once."""

    def disturb(self, rule: Rule) -> None:
        """Set a rule of the proxy."""

    def relieve(self, rule: Rule) -> None:
        """Take it back."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind. `needs`: the hand-off where it makes sense, empty for both."""

    name: str
    what: str
    do: Callable[[World, random.Random], str]
    """Does it, waits, heals it; returns to whom."""
    needs: str = ""
    needs_nodes: bool = False
    """It takes three brokers."""


def fault_named(name: str) -> Fault:
    """One of FAULTS, or `die-at:POINT` with a failpoint's name. Raises KeyError."""
    kind, _, point = name.partition(":")
    if kind != "die-at":
        return FAULTS[name]
    return Fault(
        name,
        f"a member is killed at the failpoint {point}",
        partial(_die_at, point=point),
        POINTS[point].handoff,
    )


def draw(chance: random.Random, names: Sequence[str], handoff: str) -> Fault:
    """The next fault."""
    return chance.choice([fault for fault in map(fault_named, names) if fault.needs in ("", handoff)])


# -- members ---------------------------------------------------------------------------------------


def kill(world: World, chance: random.Random) -> str:
    member = chance.choice(world.members())
    world.signal(member, "SIGKILL")
    world.wait_gone(member, 10.0)
    world.wait(chance.uniform(0.0, 3.0))
    world.restart(member)
    return member


def _stopped(world: World, member: str) -> None:
    world.signal(member, "SIGTERM")
    world.wait_gone(member, _STOPS_WITHIN)


def kill_at(world: World, chance: random.Random) -> str:
    point = chance.choice([name for name, p in POINTS.items() if p.handoff in ("", world.handoff)])
    return _die_at(world, chance, point)


def _die_at(world: World, chance: random.Random, point: str) -> str:
    """A member is started so that it dies there, and once it has, it is started again."""
    member = chance.choice(world.members())
    in_a_rebalance = point in ("revoking", "drained")
    hits = 1 if in_a_rebalance else chance.randint(1, 20)
    _stopped(world, member)
    world.restart(member, point, hits)
    died = False
    for _ in range(_PATIENCE):
        if in_a_rebalance:  # somebody comes, so that it has to give something away, if it has it by now
            world.wait(3.0)
            world.restart("guest")
        died = world.wait_gone(member, 10.0)
        if died:
            break
        if in_a_rebalance:
            _stopped(world, "guest")
    if not died:
        world.signal(member, "SIGKILL")
        world.wait_gone(member, 20.0)
    world.restart(member)
    if in_a_rebalance:
        _stopped(world, "guest")
        world.retire("guest")
    return f"{member} at {point}, passage {hits}{'' if died else ', which did not come'}"


def stop(world: World, chance: random.Random) -> str:
    member = chance.choice(world.members())
    _stopped(world, member)
    world.wait(chance.uniform(0.0, 2.0))
    world.restart(member)
    return member


def pause(world: World, chance: random.Random) -> str:
    member = chance.choice(world.members())
    world.signal(member, "SIGSTOP")
    world.wait(2 * SESSION)
    world.signal(member, "SIGCONT")
    return member


def storm(world: World, chance: random.Random) -> str:
    extra = [f"storm-{chance.randrange(1000)}-{i}" for i in range(3)]
    for _ in range(2):
        for member in extra:
            world.restart(member)
            world.wait(1.0)
        for member in extra:
            world.signal(member, "SIGTERM")
            world.wait(1.0)
        for member in extra:
            world.wait_gone(member, _STOPS_WITHIN)
    for member in extra:
        world.retire(member)
    return ", ".join(extra)


# -- the network -----------------------------------------------------------------------------------


def _disturbed(world: World, rule: Rule, seconds: float) -> None:
    world.disturb(rule)
    world.wait(seconds)
    world.relieve(rule)


def cut(world: World, chance: random.Random) -> str:
    member = chance.choice(world.members())
    _disturbed(world, Rule(member, refuse=True), chance.uniform(3.0, 2 * SESSION))
    return member


def cut_from_coordinator(world: World, chance: random.Random) -> str:
    member, node = chance.choice(world.members()), world.coordinator()
    _disturbed(world, Rule(member, frozenset({node}), refuse=True), chance.uniform(3.0, 2 * SESSION))
    return f"{member} from node {node}"


def half_open(world: World, chance: random.Random) -> str:
    member = chance.choice(world.members())
    _disturbed(world, Rule(member, silent=True), chance.uniform(3.0, 2 * SESSION))
    return member


def slow(world: World, chance: random.Random) -> str:
    node = chance.choice(world.nodes())
    _disturbed(world, Rule(nodes=frozenset({node}), delay=0.1), 10.0)
    return f"node {node}"


def _withheld(world: World, chance: random.Random, *kinds: int) -> str:
    member = chance.choice(world.members())
    _disturbed(world, Rule(member, withhold=frozenset(kinds)), chance.uniform(2.0, 6.0))
    return member


def withhold_produce(world: World, chance: random.Random) -> str:
    return _withheld(world, chance, PRODUCE)


def withhold_commit(world: World, chance: random.Random) -> str:
    return _withheld(world, chance, OFFSET_COMMIT, TXN_OFFSET_COMMIT)


def withhold_end(world: World, chance: random.Random) -> str:
    return _withheld(world, chance, END_TXN)


# -- brokers ---------------------------------------------------------------------------------------


def _killed(world: World, chance: random.Random, *nodes: int) -> str:
    for node in nodes:
        world.kill_node(node)
    world.wait(chance.uniform(2.0, 6.0))
    world.revive_nodes()
    return ", ".join(f"node {node}" for node in nodes)


def kill_leader(world: World, chance: random.Random) -> str:
    return _killed(world, chance, world.leader())


def kill_coordinator(world: World, chance: random.Random) -> str:
    return _killed(world, chance, world.coordinator())


def below_min_isr(world: World, chance: random.Random) -> str:
    return _killed(world, chance, *chance.sample(world.nodes(), 2))


# -- topics ----------------------------------------------------------------------------------------


def small_limit(world: World, chance: random.Random) -> str:
    world.limit(_SMALL)
    world.wait(chance.uniform(3.0, 8.0))
    world.limit(_LARGE)
    return f"{_SMALL} bytes"


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("kill", "a member is killed (SIGKILL)", kill),
        Fault("kill-at", "a member is killed at a crash point", kill_at),
        Fault("stop", "a member is stopped (SIGTERM) and started again", stop),
        Fault("pause", "a member sleeps for two session timeouts (SIGSTOP)", pause),
        Fault("storm", "three more members come and go, one a second", storm),
        Fault("cut", "a member is cut off from all brokers", cut),
        Fault("cut-coordinator", "a member is cut off from the coordinator only", cut_from_coordinator),
        Fault("half-open", "a member's connections fall silent", half_open),
        Fault("slow", "a broker answers late", slow),
        Fault("withhold-produce", "answers to a member's writes are lost", withhold_produce),
        Fault("withhold-commit", "answers to a member's commits are lost", withhold_commit),
        Fault("withhold-end", "answers to the end of transactions are lost", withhold_end, "transactional"),
        Fault("kill-leader", "the broker that leads is killed", kill_leader, needs_nodes=True),
        Fault("kill-coordinator", "the group's coordinator is killed", kill_coordinator, needs_nodes=True),
        Fault("below-min-isr", "two of three brokers are killed", below_min_isr, needs_nodes=True),
        Fault("small-limit", "topics that are written to take a few records at once", small_limit),
    )
}
