"""The checker on histories made by hand: a clean one passes, and each defect is named by its rule."""

from __future__ import annotations

from typing import Any

import pytest
from history import History, found_by

from chaos.checker import Verdict
from chaos.watched import Epochs
from chaos.workload import (
    CONCURRENCY,
    DRAIN,
    MAX_ATTEMPTS,
    OUT,
    RETRY,
    SOURCE,
    Output,
    result_of,
)


def test_a_clean_run_passes(history: History) -> None:
    for name in ("a", "b"):
        history.order(name)
        history.handled(name)
    history.commit(2)
    history.revoked()
    verdict = history.check()
    assert verdict.passed, verdict.problems
    assert (verdict.handled, verdict.duplicates, verdict.repeated_attempts) == (2, 0, 0)


def test_a_run_in_which_nothing_was_handled_does_not_pass(history: History) -> None:
    assert not history.check().passed


def test_what_is_committed_without_a_result_is_lost(history: History) -> None:
    history.order("a")
    history.begin("a")
    history.end("a", "fail", delay=0.2)
    history.commit(1)
    verdict = history.check()
    assert verdict.lost == 1
    assert "lost" in found_by(verdict)


def test_what_waits_in_the_retry_topic_is_not_lost(history: History) -> None:
    history.order("a", "d-1", fail=1, after=1.5)
    history.truth.retries[RETRY, 0, 0] = "a", 2
    history.tell("written", id="a", attempt=1, place=[RETRY, 0, 0], sent=history.now)
    history.commit(1)
    assert (history.check().lost, history.check().unseen) == (0, 1)
    history.truth.committed[RETRY, 0] = 1
    assert (history.check().lost, history.check().unseen) == (1, 0)


def test_what_was_acknowledged_and_is_not_in_its_topic_is_lost(history: History) -> None:
    history.tell("produced", "f1", id="a", partition=0, offset=0, key="k-1")
    assert history.check().lost == 1


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_not_committed_and_has_no_result_in_the_end_is_unseen(history: History, begun: bool) -> None:
    history.order("a")
    if begun:
        history.begin("a")
    verdict = history.check()
    assert (verdict.unseen, verdict.lost) == (1, 0)
    assert verdict.unclean == 1


def test_another_result_than_asked_for_is_wrong(history: History) -> None:
    history.order("a", end="reject")
    history.handled("a")
    history.commit(1)
    assert found_by(history.check()) == {"wrong"}


@pytest.mark.parametrize(("attempt", "rules"), [(1, {"wrong"}), (2, set())])
def test_what_a_failed_try_sent_is_no_result(history: History, attempt: int, rules: set[str]) -> None:
    order = history.order("a", fail=1)
    history.handled("a")
    history.truth.results[OUT, 0, 0] = "a", result_of(Output("a", attempt), order)
    history.commit(1)
    assert found_by(history.check()) == rules


def test_an_order_given_up_as_a_crash_loop_is_told_apart(history: History) -> None:
    history.order("a")
    history.written("a", error="CrashLoopError")
    history.commit(1)
    verdict = history.check()
    assert verdict.passed, verdict.problems
    assert verdict.crash_loops == 1


class TestOrder:
    def two(self, history: History, key: str = "k-1") -> None:
        history.order("a", key)
        history.order("b", key)

    def test_two_of_a_key_at_a_time(self, history: History) -> None:
        self.two(history)
        history.begin("a")
        history.begin("b")
        assert history.check().order_violations == 1

    def test_the_second_before_the_first(self, history: History) -> None:
        self.two(history)
        history.handled("b")
        history.handled("a")
        assert history.check().order_violations == 1

    def test_the_second_while_the_first_waits_for_its_next_attempt(self, history: History) -> None:
        self.two(history)
        history.begin("a")
        history.end("a", "fail", delay=0.05)
        history.begin("b")
        assert history.check().order_violations == 1

    def test_the_second_after_the_first_was_given_up(self, history: History) -> None:
        self.two(history)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            history.begin("a", attempt)
            history.end("a", "fail", attempt, delay=0.05)
        history.begin("b")
        assert history.check().order_violations == 0

    def test_other_keys_side_by_side(self, history: History) -> None:
        history.order("a", "k-1")
        history.order("b", "k-2")
        history.begin("a", key="k-1")
        history.begin("b", key="k-2")
        assert history.check().order_violations == 0

    def test_another_epoch_begins_anew(self, history: History) -> None:
        self.two(history)
        history.begin("a")
        history.tell("lost", partitions=[[SOURCE, 0]])
        history.assigned("member-2")
        history.begin("a", who="member-2")
        assert history.check().order_violations == 0

    def test_keys_that_go_through_the_retry_topic_have_none(self, history: History) -> None:
        self.two(history, "d-1")
        history.begin("a", key="d-1")
        history.begin("b", key="d-1")
        assert history.check().order_violations == 0


class TestCommits:
    def test_past_what_is_not_written(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.commit(1)
        history.written("a")
        verdict = history.check()
        assert verdict.commits_past_frontier == 1
        assert verdict.lost == 0

    @pytest.mark.parametrize(("partition", "found"), [(0, 0), (1, 1)])
    def test_a_repeated_write_without_an_offset_stands_for_what_is_there(
        self, history: History, partition: int, found: int
    ) -> None:
        history.order("a")
        history.handled("a")
        history.events[-1]["place"] = [OUT, partition, None]
        history.commit(1)
        assert history.check().commits_past_frontier == found

    def test_one_that_was_refused_does_not_count(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.commit(1, answered=False)
        history.end("a")
        history.written("a")
        history.commit(1)
        assert history.check().commits_past_frontier == 0

    def test_a_write_that_was_aborted_is_none(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        nobody_reads_it = [OUT, 0, 7]
        history.tell("written", id="a", attempt=1, place=nobody_reads_it, sent=history.now)
        history.commit(1)
        history.written("a")
        assert history.check("transactional").commits_past_frontier == 1

    def test_of_the_retry_topic(self, history: History) -> None:
        history.order("a", "d-1", fail=1, after=1.5)
        history.truth.retries[RETRY, 0, 0] = "a", 2
        history.tell("written", id="a", attempt=1, place=[RETRY, 0, 0], sent=history.now)
        history.tell("commit", number=77, offsets=[[RETRY, 0, 1]])
        history.tell("committed", number=77)
        history.written("a", 2)
        assert history.check().commits_past_frontier == 1

    def test_that_go_back(self, history: History) -> None:
        for name in ("a", "b"):
            history.order(name)
            history.handled(name)
        history.commit(2)
        history.commit(1)
        assert found_by(history.check()) == {"commits_went_back"}

    def test_that_are_under_way_together_may_be_answered_in_any_order(self, history: History) -> None:
        for name in ("a", "b"):
            history.order(name)
            history.handled(name)
        for number, offset in ((1, 1), (2, 2)):
            history.tell("commit", number=number, offsets=[[SOURCE, 0, offset]])
        for number in (2, 1):
            history.tell("committed", number=number)
        history.truth.committed[SOURCE, 0] = 2
        assert history.check().passed
        history.truth.committed[SOURCE, 0] = 1
        assert found_by(history.check()) == {"commits_went_back", "unclean"}

    @pytest.mark.parametrize(("asked_after", "problems"), [(True, {"commits_went_back"}), (False, set())])
    def test_that_whoever_resumes_does_not_find(
        self, history: History, asked_after: bool, problems: set[str]
    ) -> None:
        history.order("a")
        history.handled("a")
        if not asked_after:
            history.tell("resuming", "member-2", partitions=[[SOURCE, 0]])
        history.commit(1)
        if asked_after:
            history.tell("resuming", "member-2", partitions=[[SOURCE, 0]])
        history.tell("resumed", "member-2", offsets=[[SOURCE, 0, -1001]])
        assert found_by(history.check()) == problems


class TestDelays:
    @pytest.mark.parametrize(("delay", "early"), [(0.05, 0), (0.3, 1)])
    def test_between_two_attempts(self, history: History, delay: float, early: int) -> None:
        history.order("a", fail=1)
        history.begin("a")
        history.end("a", "fail", delay=delay)
        history.begin("a", 2)
        assert history.check().early == early


class TestRepeats:
    @pytest.mark.parametrize("took_effect", [False, True])
    def test_a_commit_tells_nothing_of_what_was_written_in_a_transaction_that_failed(
        self, took_effect: bool, history: History
    ) -> None:
        history.order("a")
        history.assigned()
        history.begin("a")
        history.end("a")
        history.written("a", transaction=7)
        if not took_effect:
            history.truth.results.clear()  # who reads what is committed never sees it
        history.tell("commit", number=70, offsets=[[SOURCE, 0, 0]])
        if took_effect:
            history.tell("committed", number=70, transaction=7)
        history.now += 10.0
        history.tell("commit", number=71, offsets=[[SOURCE, 0, 0]])
        history.tell("committed", number=71, transaction=8)
        history.tell("losing", partitions=[[SOURCE, 0]])
        history.tell("lost", partitions=[[SOURCE, 0]])
        history.now += 10.0
        history.assigned()
        history.begin("a")
        history.end("a")
        if not took_effect:
            history.written("a", transaction=9)
        history.tell("commit", number=72, offsets=[[SOURCE, 0, 1]])
        history.tell("committed", number=72, transaction=9)
        history.truth.committed[SOURCE, 0] = 1
        verdict = history.check("transactional")
        assert found_by(verdict) == ({"beyond_allowed"} if took_effect else set()), verdict.problems
        assert verdict.repeated_attempts == 1

    def test_an_order_that_stands_in_its_topic_twice_has_two_results(self, history: History) -> None:
        for _ in range(2):
            history.order("a")
        first, second = history.truth.orders
        for place in (first, second):
            history.tell("start", id="a", key="k-1", attempt=1, place=list(place))
            history.tell("end", id="a", attempt=1, place=list(place), how="ok")
            history.written("a")
        history.commit(2)
        verdict = history.check("transactional")
        assert verdict.passed, verdict.problems
        assert (verdict.duplicates, verdict.repeated_attempts) == (0, 0)
        history.written("a")
        assert found_by(history.check("transactional")) == {"beyond_allowed"}

    def again(self, history: History, handoff: str = "acknowledged") -> Verdict:
        """Another member handles the order once more, and that is committed."""
        history.assigned("member-2")
        history.handled("a", "member-2")
        history.commit(1, "member-2")
        return history.check(handoff)

    def test_after_a_kill_before_the_commit(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.tell("died", failpoint="settled-uncommitted")
        verdict = self.again(history)
        assert verdict.passed, verdict.problems
        assert (verdict.duplicates, verdict.duplicates_allowed, verdict.repeated_attempts) == (1, 1, 1)

    def test_never_twice_in_what_transactions_wrote(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.tell("died", failpoint="offsets-sent")
        assert found_by(self.again(history, "transactional")) == {"beyond_allowed"}

    def test_not_after_a_clean_revocation(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.revoked()
        assert found_by(self.again(history)) == {"beyond_allowed"}

    def test_not_after_a_revocation_that_waited_for_nothing(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.revoked(seconds=DRAIN)
        assert found_by(self.again(history)) >= {"beyond_allowed"}

    def test_after_a_revocation_whose_commit_was_refused(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.commit(1, answered=False)
        history.revoked()
        assert self.again(history).passed

    def test_not_after_a_commit_that_told_of_it(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.now += 2.0
        history.commit(1)
        history.tell("died", failpoint="polled")
        verdict = self.again(history)
        assert "beyond_allowed" in found_by(verdict)

    def test_after_commits_that_could_not_tell_of_it_because_its_write_was_not_answered(
        self, history: History
    ) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.now += 3.0
        history.commit(0)
        history.written("a")
        history.tell("lost", partitions=[[SOURCE, 0]])
        assert self.again(history).passed

    def test_after_commits_while_the_answer_never_came(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.now += 3.0
        history.commit(0)
        history.tell("died", failpoint="polled")
        history.tell("began")
        assert self.again(history).passed

    def test_not_after_a_commit_long_after_the_answer(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.now += 3.0
        history.written("a")
        history.now += 2.0
        history.commit(1)
        history.tell("lost", partitions=[[SOURCE, 0]])
        assert found_by(self.again(history)) >= {"beyond_allowed"}

    def test_what_another_thread_began_between_the_last_words_and_the_death(self, history: History) -> None:
        history.order("a")
        history.tell("died", failpoint="commit-answered")
        history.begin("a")
        history.tell("began")
        assert self.again(history).passed

    def test_not_what_a_new_process_began_without_owning_it(self, history: History) -> None:
        history.order("a")
        history.tell("died", failpoint="commit-answered")
        history.tell("began")
        history.begin("a")
        assert found_by(self.again(history)) >= {"beyond_allowed"}

    @pytest.mark.parametrize(("seconds", "passes"), [(0.1, True), (1.0, False)])
    def test_what_a_thread_had_just_taken_when_its_partition_was_lost_and_nothing_later(
        self, history: History, seconds: float, passes: bool
    ) -> None:
        history.order("a")
        history.tell("losing", partitions=[[SOURCE, 0]])
        history.tell("lost", partitions=[[SOURCE, 0]])
        history.now += seconds
        history.begin("a")
        assert self.again(history).passed == passes

    @pytest.mark.parametrize("heard", [False, True])
    @pytest.mark.parametrize(("more", "passes"), [(0, True), (1, False)])
    def test_no_more_than_can_run_at_a_time_begins_after_a_loss_however_late_the_engine_hears_of_it(
        self, history: History, heard: bool, more: int, passes: bool
    ) -> None:
        history.tell("losing", partitions=[[SOURCE, 0]])
        if heard:
            history.tell("lost", partitions=[[SOURCE, 0]])
        names = [f"o{n}" for n in range(CONCURRENCY + more)]
        for name in names:
            history.order(name)
            history.now -= 0.1
            history.begin(name, key=f"d-{name}")
            history.now -= 0.1
        if not heard:
            history.tell("lost", partitions=[[SOURCE, 0]])
        history.assigned("member-2")
        for name in names:
            history.handled(name, "member-2", key=f"d-{name}")
        history.commit(len(names), "member-2")
        verdict = history.check()
        assert verdict.passed == passes, verdict.problems
        assert verdict.beyond_allowed == more

    def test_a_process_that_begins_anew_was_killed(self, history: History) -> None:
        history.order("a")
        history.handled("a")
        history.tell("began")
        assert self.again(history).passed

    def test_a_write_without_a_good_answer_may_be_there_twice(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        history.tell("unwritten", id="a", attempt=1, topic=OUT, error="timed out", sent=history.now)
        history.written("a")
        history.written("a")
        history.commit(1)
        history.revoked()
        assert history.check().passed

    @pytest.mark.parametrize(
        ("who", "since", "until", "allowed"),
        [
            ("member-1", 0.45, 0.55, True),  # while it was on its way
            ("member-1", 0.05, 0.15, False),  # before
            ("member-1", 0.95, 1.05, False),  # after
            ("member-2", 0.45, 0.55, False),  # somebody else's client
        ],
    )
    def test_a_client_that_takes_a_new_epoch_may_write_again_what_was_on_its_way(
        self, history: History, who: str, since: float, until: float, allowed: bool
    ) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        sent, history.now = history.now, history.now + 0.3
        history.tell("producer-epoch", who, since=since, until=until, times=1)
        history.written("a", sent=sent)
        history.truth.results[OUT, 0, 7] = "a", "ok"
        history.commit(1)
        history.revoked()
        assert found_by(history.check()) == (set() if allowed else {"beyond_allowed"})

    def test_a_new_epoch_explains_no_second_handling(self, history: History) -> None:
        history.order("a")
        sent = history.now
        for _ in range(2):
            history.begin("a")
            history.end("a")
            history.written("a", sent=sent)
        history.tell("producer-epoch", since=sent, until=history.now, times=1)
        history.commit(1)
        history.revoked()
        verdict = history.check()
        assert (verdict.duplicates, verdict.duplicates_allowed, verdict.beyond_allowed) == (1, 1, 1)
        assert "begun 2 times" in verdict.problems[0]

    def test_a_retry_that_a_new_epoch_wrote_twice_is_handled_twice(self, history: History) -> None:
        history.order("a")
        history.begin("a")
        history.end("a", "fail", delay=0.0)
        sent = history.now
        history.tell("written", id="a", attempt=1, place=[RETRY, 0, 0], sent=sent)
        history.tell("producer-epoch", since=sent, until=history.now, times=1)
        for _ in range(2):
            history.begin("a", 2)
            history.end("a", attempt=2)
            history.written("a", 2)
        history.commit(1)
        history.revoked()
        assert found_by(history.check()) == set()

    def test_a_write_that_times_out_is_not_excused_by_the_epoch_that_it_brings_about(
        self, history: History
    ) -> None:
        history.order("a")
        history.begin("a")
        history.end("a")
        sent = history.now
        history.tell("unwritten", id="a", attempt=1, topic=OUT, error="timed out", sent=sent)
        history.tell("producer-epoch", since=sent, until=history.now, times=1)
        for _ in range(3):
            history.written("a")
        history.commit(1)
        history.revoked()
        assert found_by(history.check()) == {"beyond_allowed"}

    @pytest.mark.parametrize(("end", "attempt"), [("ok", MAX_ATTEMPTS + 1), ("reject", 2)])
    def test_attempts_that_no_policy_makes(self, history: History, end: Any, attempt: int) -> None:
        history.order("a", end=end)
        history.begin("a", attempt)
        assert history.check().unscheduled == 1


def test_what_is_not_committed_after_a_clean_stop_is_named(history: History) -> None:
    history.order("a")
    history.handled("a")
    history.revoked()
    assert found_by(history.check()) == {"unclean"}


def test_a_client_s_new_epochs_are_read_from_its_statistics() -> None:
    def told(at: int, producer: int, epoch: int) -> list[dict[str, Any]]:
        return epochs.taken({"ts": at, "eos": {"producer_id": producer, "producer_epoch": epoch}})

    epochs = Epochs()
    assert told(1_000_000, -1, -1) == []  # it has none yet
    assert told(1_250_000, 7, 0) == []  # its first
    assert told(1_500_000, 7, 0) == []
    assert told(1_750_000, 7, 2) == [{"since": 1.5, "until": 1.75, "times": 2}]
    assert told(2_000_000, -1, -1) == []  # asking for another
    assert told(2_250_000, 8, 0) == [{"since": 2.0, "until": 2.25, "times": 1}]
