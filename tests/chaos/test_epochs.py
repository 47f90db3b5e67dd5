"""Which ownership a step belongs to, and which drains were cut short."""

from __future__ import annotations

import pytest
from history import History

from chaos.epochs import Epoch, epochs_of
from chaos.workload import CONCURRENCY, DRAIN, OUT, RETRY, SOURCE


def the_epoch(history: History, *, exactly_once: bool = False) -> Epoch:
    return next(e for e in epochs_of(history.events, exactly_once=exactly_once) if e.who == "member-1")


def drained(history: History, seconds: float, *, stops: bool = False) -> None:
    """The partition goes, after so long."""
    if stops:
        history.tell("signal", "rig", member="member-1", signal="SIGTERM")
    else:
        history.tell("revoking", partitions=[[SOURCE, 0]])
    history.now += seconds
    if stops:
        history.tell("revoking", partitions=[[SOURCE, 0]])
    history.tell("revoked", partitions=[[SOURCE, 0]])


class TestADrain:
    @pytest.mark.parametrize("stops", [False, True])
    @pytest.mark.parametrize("exactly_once", [False, True])
    @pytest.mark.parametrize("ended", [False, True])
    @pytest.mark.parametrize(("seconds", "clean"), [(2.0, True), (DRAIN, False)])
    def test_is_cut_short_if_it_took_all_its_time_while_something_was_not_finished(
        self, history: History, stops: bool, exactly_once: bool, ended: bool, seconds: float, clean: bool
    ) -> None:
        history.order("a")
        history.begin("a")
        if ended:
            history.end("a")
        drained(history, seconds, stops=stops)
        assert the_epoch(history, exactly_once=exactly_once).clean == clean

    @pytest.mark.parametrize("exactly_once", [False, True])
    def test_is_clean_however_long_it_took_if_all_was_finished(
        self, history: History, exactly_once: bool
    ) -> None:
        history.order("a")
        history.handled("a")
        history.commit(1)
        history.order("b")
        history.begin("b")
        history.end("b", "fail", delay=0.2)  # waits in memory, which no drain waits for
        drained(history, DRAIN)
        assert the_epoch(history, exactly_once=exactly_once).clean

    def test_waits_for_nothing_that_began_after_it_or_belongs_to_another_partition(
        self, history: History
    ) -> None:
        history.order("a")
        history.tell("assigned", partitions=[[SOURCE, 1]])
        history.tell("start", id="b", key="k-2", attempt=1, place=[SOURCE, 1, 0])
        history.tell("revoking", partitions=[[SOURCE, 0]])
        history.now += 1.0
        history.begin("a")
        history.now += DRAIN
        history.tell("revoked", partitions=[[SOURCE, 0]])
        assert the_epoch(history).clean

    def test_waits_with_transactions_for_all_of_its_feed_and_for_no_other_feed(
        self, history: History
    ) -> None:
        history.tell("assigned", partitions=[[SOURCE, 1], [RETRY, 0]])
        history.tell("start", id="b", key="d-2", attempt=1, place=[SOURCE, 1, 0])
        for topic in (SOURCE, RETRY):
            history.tell("revoking", partitions=[[topic, 0]])
        history.now += DRAIN
        for topic in (SOURCE, RETRY):
            history.tell("revoked", partitions=[[topic, 0]])
        found = {e.tp: e.clean for e in epochs_of(history.events, exactly_once=True)}
        assert (found[SOURCE, 0], found[RETRY, 0]) == (False, True)

    def test_is_cut_short_if_a_write_was_refused_during_it(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.tell("revoking", partitions=[[SOURCE, 0]])
        history.now += DRAIN
        history.tell("unwritten", id="a", attempt=1, topic=OUT, error="no", sent=history.now)
        history.tell("revoked", partitions=[[SOURCE, 0]])
        assert not the_epoch(history).clean

    @pytest.mark.parametrize("answer", ["", "committed", "uncommitted"])
    def test_with_transactions_a_write_is_finished_with_its_transaction(
        self, history: History, answer: str
    ) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.written("a", transaction=3)
        history.tell("commit", number=7, offsets=[[SOURCE, 0, 1]])
        if answer:
            history.tell(answer, number=7, **({"transaction": 3} if answer == "committed" else {}))
        drained(history, DRAIN)
        assert the_epoch(history, exactly_once=True).clean == (answer == "committed")

    def test_with_transactions_what_one_wrote_that_never_ended_is_not_finished_by_another(
        self, history: History
    ) -> None:
        for name in ("a", "b"):
            history.order(name)
            history.begin(name, key=f"d-{name}")
            history.end(name)
            history.written(name, transaction=3)
        history.tell("revoking", partitions=[[SOURCE, 0]])
        history.now += DRAIN
        history.written("a", transaction=5)
        history.tell("commit", number=7, offsets=[[SOURCE, 0, 1]])
        history.tell("committed", number=7, transaction=5)
        history.tell("revoked", partitions=[[SOURCE, 0]])
        assert not the_epoch(history, exactly_once=True).clean

    @pytest.mark.parametrize(("before", "clean"), [(1.0, False), (2 * DRAIN, True)])
    def test_gives_up_early_what_was_refused_just_before_it(
        self, history: History, before: float, clean: bool
    ) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.tell("unwritten", id="a", attempt=1, topic=OUT, error="no", sent=history.now)
        history.now += before
        drained(history, 2.0)
        assert the_epoch(history, exactly_once=True).clean == clean

    def test_forgets_with_the_partition_what_was_not_finished(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        drained(history, DRAIN)
        history.assigned()
        history.order("b")
        history.handled("b")
        drained(history, DRAIN)
        assert [e.clean for e in epochs_of(history.events, exactly_once=False)] == [False, True]


class TestALoss:
    def starts(self, history: History, count: int) -> None:
        """Of handlers that also end, at once."""
        for _ in range(count):
            name = f"o{len(history.truth.orders)}"
            history.order(name)
            history.begin(name, key=f"d-{name}")
            history.end(name)
            history.now -= 0.3

    @pytest.mark.parametrize("heard", [False, True])
    def test_no_more_than_can_run_at_a_time_begins_after_it_however_late_the_engine_hears(
        self, history: History, heard: bool
    ) -> None:
        history.tell("losing", partitions=[[SOURCE, 0]])
        if heard:
            history.tell("lost", partitions=[[SOURCE, 0]])
        history.now -= 0.1
        self.starts(history, CONCURRENCY + 5)
        if not heard:
            history.tell("lost", partitions=[[SOURCE, 0]])
        steps = the_epoch(history).steps
        assert [step["event"] for step in steps] == ["start", "end"] * CONCURRENCY

    def test_that_is_of_all_its_partitions_together(self, history: History) -> None:
        history.tell("assigned", partitions=[[SOURCE, 1]])
        history.tell("losing", partitions=[[SOURCE, 0], [SOURCE, 1]])
        history.tell("start", id="b", key="k-2", attempt=1, place=[SOURCE, 1, 0])
        self.starts(history, CONCURRENCY)
        assert len(the_epoch(history).steps) == 2 * (CONCURRENCY - 1)

    def test_what_runs_may_end_but_not_long_after_it(self, history: History) -> None:
        for name in ("a", "b"):
            history.order(name)
            history.begin(name, key=f"d-{name}")
        history.tell("losing", partitions=[[SOURCE, 0]])
        history.tell("lost", partitions=[[SOURCE, 0]])
        history.end("a")
        history.now += 1.0
        history.end("b")
        assert [(s["event"], s["id"]) for s in the_epoch(history).steps] == [
            ("start", "a"),
            ("start", "b"),
            ("end", "a"),
        ]
