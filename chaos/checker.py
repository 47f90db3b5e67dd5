"""Judges a run: a pure function of what was seen (`events`) and what the broker holds (`truth`).

After Jepsen's Kafka workload and Kafka's own system tests. Each rule stands in a function of its own and
names what it found. The engine's counters and callbacks are not among its sources.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from operator import itemgetter
from typing import Any

from chaos.epochs import Epoch, epochs_of
from chaos.events import Event
from chaos.truth import Place, Truth
from chaos.workload import MAX_ATTEMPTS, RETRY, SOURCE, Order

__all__ = ["Verdict", "check"]

_COMMITTED_BY = 1.5
"""Seconds from a record's end, and the answers to its writes, to a commit that must tell of it: the interval,
and a busy machine."""

_EARLY_BY = 0.0015  # seconds; a due time travels through a topic in milliseconds of the clock of day


@dataclass(slots=True)
class Verdict:
    """What was found. The first eight must be zero, `duplicates` within what is allowed for each record."""

    lost: int = 0
    unseen: int = 0
    order_violations: int = 0
    commits_past_frontier: int = 0
    commits_went_back: int = 0
    early: int = 0
    unscheduled: int = 0
    """Attempts beyond those that the policy makes."""
    beyond_allowed: int = 0
    """Records with more copies of a result, or more repeats of an attempt, than faults explain."""
    wrong: int = 0
    """Records with another result than the one that they ask for."""
    unclean: int = 0
    """Partitions that were not committed to their end after a clean stop."""
    duplicates: int = 0
    duplicates_allowed: int = 0
    repeated_attempts: int = 0
    crash_loops: int = 0
    """Records given up because their process was killed during them, twice."""
    handled: int = 0
    problems: list[str] = field(default_factory=list)
    """What was found, in words; the first of each kind."""

    @property
    def passed(self) -> bool:
        """Whether all promises held."""
        return self.handled > 0 and not (
            self.lost
            or self.unseen
            or self.order_violations
            or self.commits_past_frontier
            or self.commits_went_back
            or self.early
            or self.unscheduled
            or self.beyond_allowed
            or self.wrong
            or self.unclean
        )

    def found(self, rule: str, text: str) -> None:
        """Count one under `rule`, and keep the first few texts."""
        setattr(self, rule, getattr(self, rule) + 1)
        if getattr(self, rule) <= 5:
            self.problems.append(f"{rule}: {text}")


def check(events: Sequence[Event], truth: Truth, *, handoff: str) -> Verdict:
    """All rules."""
    verdict = Verdict()
    exactly_once = handoff == "transactional"
    epochs = epochs_of(events, exactly_once=exactly_once)
    places: dict[str, list[Place]] = defaultdict(list)
    for place, order in truth.orders.items():
        places[order.id].append(place)
    orders = {order.id: order for order in truth.orders.values()}
    finished = finish_times(events, truth)
    check_outcomes(verdict, events, truth, orders, places)
    check_order(verdict, epochs)
    check_commits(verdict, events, truth, finished)
    check_went_back(verdict, events, truth)
    check_delays(verdict, events)
    check_repeats(verdict, events, truth, epochs, orders, places, exactly_once=exactly_once)
    check_left(verdict, truth)
    return verdict


# -- what the rules look at ------------------------------------------------------------------------


def finish_times(events: Sequence[Event], truth: Truth) -> dict[str, list[tuple[float, int]]]:
    """By id: when something that finishes an attempt was written, and which attempt. Only what is there.

    Of a write that was repeated because its answer was lost the broker says only that it is there already: it
    has no offset, and stands for what its partition holds of that order.
    """
    written = [(place, name) for place, (name, _) in (*truth.results.items(), *truth.retries.items())]
    there = {place for place, _ in written}
    somewhere = {(topic, partition, name) for (topic, partition, _), name in written}
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for event in events:
        if event["event"] != "written":
            continue
        topic, partition, offset = event["place"]
        known = (topic, partition, event["id"]) in somewhere
        if known if offset is None else (topic, partition, offset) in there:
            found[event["id"]].append((event["t"], event["attempt"]))
    return found


# -- the rules -------------------------------------------------------------------------------------


def check_outcomes(
    verdict: Verdict,
    events: Sequence[Event],
    truth: Truth,
    orders: dict[str, Order],
    places: dict[str, list[Place]],
) -> None:
    """Each acknowledged order has a result, and the one that it asks for."""
    results: dict[str, set[str]] = defaultdict(set)
    for name, result in truth.results.values():
        results[name].add(result)
    produced = {event["id"] for event in events if event["event"] == "produced"}
    started = {event["id"] for event in events if event["event"] == "start"}
    waiting = {
        name
        for (topic, partition, offset), (name, _) in truth.retries.items()
        if offset >= truth.committed.get((topic, partition), -1)
    }
    for name in sorted(produced - orders.keys()):
        verdict.found("lost", f"{name} was acknowledged and is not in its topic")
    for name, order in orders.items():
        got = results.get(name)
        if not got:
            if name in waiting:
                verdict.found("unseen", f"{name} waits in the retry topic and has no result")
            elif any(offset < truth.committed.get((t, p), -1) for t, p, offset in places[name]):
                verdict.found("lost", f"{name} is committed and has no result")
            elif name not in started:
                verdict.found("unseen", f"{name} was never handled")
            else:
                verdict.found("unseen", f"{name} was begun and has no result")
            continue
        verdict.handled += 1
        expected = _expected(order)
        for result in got - {expected}:
            if result == "CrashLoopError":
                verdict.crash_loops += 1
            else:
                verdict.found("wrong", f"{name} ended as {result} and not as {expected}")


def _expected(order: Order) -> str:
    return {"ok": "ok", "reject": "Reject", "exhaust": "MaxRetriesExceededError"}[order.end]


def check_order(verdict: Verdict, epochs: Sequence[Epoch]) -> None:
    """Within an epoch and a key: one at a time, in the order of the log, each brought to its end first."""
    for epoch in epochs:
        if epoch.tp[0] != SOURCE:
            continue
        last: dict[str, Event] = {}  # by key: what happened last
        for step in epoch.steps:
            if step["event"] == "end":
                key = _key_of(epoch, step, last)
                if key is not None:
                    last[key] = step | {"key": key}
                continue
            key = step["key"]
            if key.startswith("d-"):
                continue
            before = last.get(key)
            last[key] = step
            if before is None:
                continue
            here, there = step["place"][2], before["place"][2]
            text = f"{epoch.who} {epoch.tp} key {key}: offset {here} began after {there} "
            if before["event"] == "start":
                verdict.found("order_violations", text + "had begun and not ended")
            elif here < there:
                verdict.found("order_violations", text + "had ended")
            elif here > there and before["how"] == "fail" and before["attempt"] < MAX_ATTEMPTS:
                verdict.found("order_violations", text + "had failed and was to be tried again")


def _key_of(epoch: Epoch, end: Event, last: dict[str, Event]) -> str | None:
    for key, step in last.items():
        if step["event"] == "start" and step["place"] == end["place"]:
            return key
    return None


def check_commits(
    verdict: Verdict, events: Sequence[Event], truth: Truth, finished: dict[str, list[tuple[float, int]]]
) -> None:
    """No commit passes a record for which nothing was written when the commit was made."""
    by_tp: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)  # offset, when it was finished
    for (topic, partition, offset), order in truth.orders.items():
        at = min((t for t, _ in finished.get(order.id, ())), default=inf)
        by_tp[topic, partition].append((offset, at))
    for (topic, partition, offset), (name, attempt) in truth.retries.items():
        at = min((t for t, done in finished.get(name, ()) if done >= attempt), default=inf)
        by_tp[topic, partition].append((offset, at))
    latest: dict[tuple[str, int], list[tuple[int, float, int]]] = {}
    for tp, times in by_tp.items():
        times.sort()
        running: list[tuple[int, float, int]] = []  # offset; the latest finish up to there, and whose
        for offset, when in times:
            before = running[-1] if running else (-1, float("-inf"), -1)
            running.append((offset, when, offset) if when > before[1] else (offset, *before[1:]))
        latest[tp] = running
    made: dict[tuple[str, int], Event] = {}
    for event in events:
        if event["event"] == "commit":
            made[event["who"], event["number"]] = event
        elif event["event"] == "committed":
            commit = made.pop((event["who"], event["number"]), None)
            for topic, partition, offset in () if commit is None else commit["offsets"]:
                below = latest.get((topic, partition), [])
                count = bisect_left(below, offset, key=itemgetter(0))
                if count and below[count - 1][1] > commit["t"]:  # type: ignore[index]
                    which = below[count - 1][2]
                    text = f"{event['who']} committed {topic}-{partition} {offset}, {which} was unfinished"
                    verdict.found("commits_past_frontier", text)


def check_went_back(verdict: Verdict, events: Sequence[Event], truth: Truth) -> None:
    """What was acknowledged stays: for whoever asks later, for commits made later, and in the end.

    Two commits on their way at the same time may be answered in any order.
    """
    made: dict[tuple[str, int], tuple[Event, dict[tuple[str, int], int]]] = {}
    asked: dict[tuple[str, str, int], int] = {}
    known: dict[tuple[str, int], int] = {}

    def look(tp: tuple[str, int], offset: int, least: int, what: str) -> None:
        if max(-1, offset) < least:  # the client says -1001 where nothing was ever committed
            verdict.found("commits_went_back", f"{tp[0]}-{tp[1]}: {what} {offset} after {least}")

    for event in events:
        match event["event"]:
            case "commit":
                tps = [(topic, partition) for topic, partition, _ in event["offsets"]]
                made[event["who"], event["number"]] = event, {tp: known.get(tp, -1) for tp in tps}
            case "committed":
                commit, before = made.pop((event["who"], event["number"]), (None, {}))
                for topic, partition, offset in () if commit is None else commit["offsets"]:
                    tp = topic, partition
                    look(tp, offset, before[tp], f"{event['who']} committed")
                    known[tp] = max(offset, known.get(tp, -1))
            case "resuming":
                for topic, partition in event["partitions"]:
                    asked[event["who"], topic, partition] = known.get((topic, partition), -1)
            case "resumed":
                for topic, partition, offset in event["offsets"]:
                    least = asked.pop((event["who"], topic, partition), -1)
                    look((topic, partition), offset, least, f"{event['who']} resumed at")
    for tp, offset in truth.committed.items():
        look(tp, offset, known.get(tp, -1), "in the end it is")


def check_delays(verdict: Verdict, events: Sequence[Event]) -> None:
    """No attempt starts before its wait is over."""
    failed: dict[tuple[str, int], float] = {}
    for event in events:
        if event["event"] == "end" and event["how"] == "fail":
            due = event["t"] + event["delay"]
            key = (event["id"], event["attempt"] + 1)
            failed[key] = min(due, failed.get(key, due))
        elif event["event"] == "start" and event["attempt"] > 1:
            due = failed.get((event["id"], event["attempt"]), 0.0)
            if event["t"] < due - _EARLY_BY:
                text = f"{event['id']}, attempt {event['attempt']}, {(due - event['t']) * 1000:.1f} ms"
                verdict.found("early", text)


def check_repeats(
    verdict: Verdict,
    events: Sequence[Event],
    truth: Truth,
    epochs: Sequence[Epoch],
    orders: dict[str, Order],
    places: dict[str, list[Place]],
    *,
    exactly_once: bool,
) -> None:
    """Results and attempts come once for each copy of an order, but for what a fault explains.

    A producer that was not answered may have written an order twice; that is not the consumer's doing.
    """
    crashes = _repeats(events, epochs, exactly_once=exactly_once)
    rewritten, reread = _written_again(events)
    results = Counter(name for name, _ in truth.results.values())
    attempts = Counter((e["id"], e["attempt"]) for e in events if e["event"] == "start")
    for name, copies in results.items():
        extra, most = copies - len(places[name]), 0 if exactly_once else crashes[name] + rewritten[name]
        verdict.duplicates += max(0, extra)
        verdict.duplicates_allowed += most
        if extra > most:
            most += len(places[name])
            found = sorted(f"{t}-{p}@{o}" for (t, p, o), (who, _) in truth.results.items() if who == name)
            text = f"{name} has {copies} results ({', '.join(found)}), allowed are {most}"
            verdict.found("beyond_allowed", text)
    for (name, attempt), times in attempts.items():
        once = max(1, len(places[name]))
        most = once + crashes[name] + reread[name]
        verdict.repeated_attempts += max(0, times - once)
        if times > most:
            text = f"{name}, attempt {attempt}: begun {times} times, allowed are {most}"
            verdict.found("beyond_allowed", text)
        order = orders.get(name)
        if attempt > MAX_ATTEMPTS or (order is not None and order.end == "reject" and attempt > 1):
            verdict.found("unscheduled", f"{name}, attempt {attempt}")


def _repeats(events: Sequence[Event], epochs: Sequence[Epoch], *, exactly_once: bool) -> Counter[str]:
    """How often each record may be handled again.

    Once for each epoch that handled it and ended without a clean revocation before a commit told of it (none
    can before what the record wrote is acknowledged); and once for each write of it that got no answer, or a
    bad one. With transactions that is no reason: it is written again, not handled again.
    """
    unwritten = () if exactly_once else (e["id"] for e in events if e["event"] == "unwritten")
    found: Counter[str] = Counter(unwritten)
    answered = _answered(events)
    for epoch in epochs:
        if epoch.clean or epoch.ended == inf:  # of one that goes on nothing can be repeated
            continue
        touched: dict[tuple[Any, ...], tuple[str, float]] = {}
        for step in epoch.steps:
            ended = step["event"] == "end" and step["how"] != "fail"
            touched[tuple(step["place"])] = step["id"], step["t"] if ended else inf
        for name, ended in touched.values():
            # Each order that ends writes something: what had no answer yet no commit can tell of.
            done = max((t for t in answered[epoch.who, name] if ended <= t <= epoch.ended), default=inf)
            if not any(at >= done + _COMMITTED_BY for at in epoch.told):
                found[name] += 1
    return found


def _answered(events: Sequence[Event]) -> dict[tuple[str, str], list[float]]:
    """When what each member wrote of each record was acknowledged, and stayed so.

    What it wrote in a transaction that then failed was not written: it comes again in a later one, and until
    then a commit tells of it as unfinished.
    """
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    waiting: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for event in events:
        number: int = event.get("transaction") or 0  # none
        match event["event"]:
            case "written" if not number:
                found[event["who"], event["id"]].append(event["t"])
            case "written":
                waiting[event["who"], number].append(event)
            case "committed" if number:
                for write in waiting.pop((event["who"], number), ()):
                    found[write["who"], write["id"]].append(write["t"])
            case "began":  # its numbers begin anew
                waiting = defaultdict(list, {k: v for k, v in waiting.items() if k[0] != event["who"]})
    return found


def _written_again(events: Sequence[Event]) -> tuple[Counter[str], Counter[str]]:
    """How often a client may have written something of each record again by itself; and a retry of it.

    For each new epoch that the client took (`watched.Epochs`) while it was on its way, once for each record,
    however much of it was. Only a retry that is there twice is handled twice. A write that timed out is
    itself a reason for a new epoch, and counted as one without an answer: only epochs before count for it.
    """
    anything: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    taken = [event for event in events if event["event"] == "producer-epoch"]
    writes = [event for event in events if event["event"] in ("written", "unwritten")]
    for new in taken:
        out = [event for event in writes if event["who"] == new["who"] and _on_its_way(event, new)]
        for name in {event["id"] for event in out}:
            anything[name] += new["times"]
        for name in {event["id"] for event in out if _topic_of(event) == RETRY}:
            retries[name] += new["times"]
    return anything, retries


def _topic_of(write: Event) -> str:
    return str(write["place"][0] if write["event"] == "written" else write["topic"])


def _on_its_way(write: Event, new: Event) -> bool:
    before = new["since"] if write["event"] == "written" else new["until"]
    return bool(write["sent"] < new["until"] and write["t"] > before)


def check_left(verdict: Verdict, truth: Truth) -> None:
    """After a clean stop all is committed."""
    for (topic, partition), end in sorted(truth.ends.items()):
        committed = truth.committed.get((topic, partition), -1)
        if committed < end:
            verdict.found("unclean", f"{topic}-{partition}: committed {committed}, the log ends at {end}")
