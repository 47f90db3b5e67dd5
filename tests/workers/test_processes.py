"""The workers in child processes: real children, against a real runtime."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import broken_handler
import process_handlers
from relance.dead_letters.envelope import decode
from relance.decoding import handler_shape
from relance.encoding import encode
from relance.engine.lanes import Lane, Run
from relance.errors import RelanceError, SettingsError
from relance.policies.retry import RetryPolicy
from relance.record import TopicPartition, record_of
from relance.workers.answer import Returned
from relance.workers.processes import ProcessCall, ProcessesWorker
from waiting import wait_until
from world import ORDERS, Member, Message, record

OTHER = TopicPartition("orders", 1)


class Bench:
    """A member with the machine's clock, and children that are started on a thread."""

    def __init__(
        self,
        handler: Any = process_handlers.handle,
        concurrency: int = 1,
        timeout: float | None = None,
        **plan: Any,
    ) -> None:
        plan.setdefault("retry", RetryPolicy.fixed(0.01, max_attempts=3))
        plan.setdefault("ordering", "key")
        self.member = Member.in_real_time(timeout=timeout, **plan)
        self.runtime = self.member.runtime
        self.worker = ProcessesWorker(self.runtime, handler, handler_shape(handler), concurrency, timeout)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Bench:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.drain(0.0)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def give(self, *values: dict[str, Any], start: int = 0, tp: TopicPartition = ORDERS) -> None:
        """One record for each; `key` among them, else each has its own."""
        found = []
        for offset, value in enumerate(values, start):
            key = str(value.pop("key", offset)).encode()
            found.append(record(offset, key, encode(value), tp))
        self.runtime.received("source", tp, found)

    def base(self, tp: TopicPartition = ORDERS) -> int:
        with self.runtime._lock:
            assignment = self.runtime.engine.assignments[tp]
            for run in assignment.running:
                self.runtime.engine.report(run)
            return int(assignment.frontier.base)

    def wait_for(self, base: int, timeout: float = 20.0) -> None:
        wait_until(
            lambda: self.base() == base or self.error,
            timeout,
            lambda: f"{self.base()} of {base}: {self.runtime.look()}",
        )
        assert self.error is None
        assert self.base() == base

    def letters(self) -> list[Any]:
        return [decode(write.outgoing.value) for write in list(self.member.writes)]


def notes(folder: Path) -> list[list[str]]:
    """[at, process, partition, offset, attempt] of each call."""
    path = folder / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def children() -> list[int]:
    """Of this process, zombies among them."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


# -- handling --------------------------------------------------------------------------------------


def test_records_are_handled_in_other_processes_each_once_and_in_their_key_s_order(tmp_path: Path) -> None:
    with Bench(concurrency=2) as bench:
        bench.give(*({"key": i % 3, "notes": str(tmp_path)} for i in range(60)))
        bench.wait_for(60)
        wait_until(bench.member.at_rest)
    calls = notes(tmp_path)
    assert Counter(int(call[3]) for call in calls) == Counter(range(60))
    for key in range(3):
        mine = [int(call[3]) for call in calls if int(call[3]) % 3 == key]
        assert mine == sorted(mine)
    processes = {int(call[1]) for call in calls}
    assert os.getpid() not in processes
    assert bench.runtime.counters.handled == 60
    assert not any(alive(pid) for pid in processes)


def test_a_child_sees_headers_time_and_topic_as_they_were_written(tmp_path: Path) -> None:
    message = Message(0, b"k", encode({"notes": str(tmp_path)}), [("a", b"1"), ("a", None)], ms=123)
    with Bench(process_handlers.tells_headers) as bench:
        bench.runtime.received("source", ORDERS, [message.as_record(ORDERS)])
        bench.wait_for(1)
    assert (tmp_path / "notes").read_text().endswith("[('a', b'1'), ('a', None)] 123 orders\n")


def test_headers_that_cannot_be_read_are_an_error_in_a_child_too_not_none_at_all(tmp_path: Path) -> None:
    class Unreadable:
        def headers(self) -> Any:
            raise SystemError("NULL in a list")

        def timestamp(self) -> tuple[int, int]:
            return 1, 2

    value = encode({"notes": str(tmp_path)})
    with Bench(process_handlers.tells_headers) as bench:
        bench.runtime.received("source", ORDERS, [record_of("orders", 0, 0, b"k", value, Unreadable())])
        wait_until(lambda: bench.letters(), 20)
        assert "not UTF-8" in bench.letters()[0].error_message


def test_what_does_not_decode_is_dead_lettered_and_no_handler_sees_it() -> None:
    with Bench() as bench:
        bench.member.ack_from_elsewhere()
        bench.runtime.received("source", ORDERS, [record(0, value=b"\xff"), record(1)])
        bench.wait_for(2)
    assert bench.runtime.counters.dead_lettered == 1
    assert bench.runtime.counters.retried == 0


def test_huge_values_there_and_huge_records_back_arrive() -> None:
    size = 20_000_000
    with Bench() as bench:
        bench.give({"send": "big", "pad": "x" * size}, {"send": "big", "copies": 3, "pad": "y" * 2_000_000})
        wait_until(lambda: len(bench.member.writes) == 2, 30)
        sizes = sorted(len(o.value or b"") for w in bench.member.writes for o in w.all_outgoing)
        assert sizes[-1] > size
        assert len(sizes) == 4
        for _ in range(2):
            bench.member.ack()
        bench.wait_for(2)


def test_what_a_record_sends_in_a_child_is_written_before_it_counts_and_dropped_if_it_fails() -> None:
    with Bench() as bench:
        bench.give(
            {"send": "out"},
            {"send": "out", "raise": "transient", "times": 2},
            {"send": "out", "raise": "reject"},
        )
        wait_until(lambda: len(bench.member.writes) == 2 and bench.runtime.counters.retried == 2, 20)
        wait_until(lambda: bench.runtime.look().settling == 2)
        assert bench.base() == 0
        assert sorted(w.outgoing.topic for w in bench.member.writes) == ["orders.DLT", "out"]
        [sent] = [w.outgoing for w in bench.member.writes if w.outgoing.topic == "out"]
        assert (sent.key, sent.headers) == (b"0", [("h", b"v")])
        bench.member.ack_from_elsewhere()
        for _ in range(2):
            bench.member.ack()
        bench.wait_for(3)
        wait_until(bench.member.at_rest)
    assert bench.runtime.counters.handled == 2


def test_what_is_sent_in_a_child_after_the_handler_has_returned_is_refused(tmp_path: Path) -> None:
    with Bench(process_handlers.sends_late) as bench:
        bench.give({"notes": str(tmp_path), "key": "a"}, {"notes": str(tmp_path), "key": "a"})
        bench.wait_for(2)
        [told] = notes(tmp_path)
    assert "after the record's handler has ended" in " ".join(told)
    assert bench.member.writes == []


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tries", "message"),
    [
        ("transient", 3, "TransientError: again"),
        ("reject", 1, "Reject: asked to"),
        ("odd", 3, "OddError: ('code', 7)"),
        ("local", 3, "HereOnlyError: nobody else knows my class"),
        ("hostile", 1, "its __str__ raised ValueError"),
        ("caused", 1, "ValueError: bad"),
        ("group", 1, "ExceptionGroup: many"),
        ("cancelled", 1, "cancelled, and not by relance"),
        ("exit", 3, "exit status 5"),
    ],
)
def test_an_exception_of_a_child_is_judged_as_it_would_be_at_home(
    name: str, tries: int, message: str
) -> None:
    with Bench() as bench:
        bench.give({"raise": name}, {})
        wait_until(lambda: bench.letters(), 20, lambda: f"{bench.error!r} {bench.runtime.look()}")
        [letter] = bench.letters()
        assert letter.retry_count == tries - 1
        assert message in letter.error_message
        if name not in ("exit", "hostile"):
            assert "process_handlers.py" in letter.stack_trace
        if name == "caused":
            assert "KeyError" in letter.stack_trace
        bench.member.ack()
        bench.wait_for(2)


# -- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "exit", "segfault", "with a thread", "with a heir"])
def test_a_death_uses_up_one_attempt_of_the_record_it_was_at_and_of_no_other(
    tmp_path: Path, how: str
) -> None:
    value = {"key": "one", "notes": str(tmp_path)}
    with Bench() as bench:
        # One lane, so that all of them are with the child at once.
        good = [{**value} for _ in range(20)]
        bench.give(*good[:10], {**value, "die": how, "times": 1}, *good[10:])
        bench.wait_for(21, 30.0)
        wait_until(bench.member.at_rest)
    calls = [(int(offset), int(attempt)) for _, _, _, offset, attempt in notes(tmp_path)]
    assert calls == [*((i, 1) for i in range(11)), (10, 2), *((i, 1) for i in range(11, 21))]
    assert bench.runtime.counters.failed == 1
    assert bench.member.writes == []


def test_a_record_that_kills_every_child_is_dead_lettered_after_its_attempts_and_its_key_goes_on(
    tmp_path: Path,
) -> None:
    with Bench(concurrency=2) as bench:
        bench.give(
            {"key": "k", "die": "kill"},
            {"key": "k", "notes": str(tmp_path)},
            {"notes": str(tmp_path), "work": 0.3},
        )
        wait_until(lambda: bench.letters(), 30)
        [letter] = bench.letters()
        assert (letter.original_offset, letter.retry_count) == (0, 2)
        assert "SIGKILL" in letter.error_message
        bench.member.ack()
        bench.wait_for(3)
    assert sorted(int(call[3]) for call in notes(tmp_path)) == [1, 2]


def test_a_child_that_dies_with_nothing_to_do_costs_no_record_an_attempt(tmp_path: Path) -> None:
    with Bench(retry=RetryPolicy(max_attempts=1)) as bench:  # the next failure would be a dead letter
        for offset in range(3):
            bench.give({"notes": str(tmp_path)}, start=offset)
            bench.wait_for(offset + 1)
            child = int(notes(tmp_path)[-1][1])
            os.kill(child, signal.SIGKILL)
            wait_until(lambda child=child: not alive(child))
        bench.give({"notes": str(tmp_path)}, start=3)
        bench.wait_for(4)
    assert bench.runtime.counters.failed == 0
    assert len({call[1] for call in notes(tmp_path)}) == 4


def test_ten_deaths_leave_no_pipe_and_no_zombie() -> None:
    with Bench(process_handlers.plain, retry=RetryPolicy.fixed(0.0, max_attempts=11)) as bench:
        bench.give({})
        bench.wait_for(1)
        before, of_others = len(list(Path("/proc/self/fd").iterdir())), set(children())
        bench.give({"die": "exit"}, start=1)
        wait_until(lambda: bench.letters(), 60, lambda: f"{bench.runtime.counters}")
        bench.member.ack()
        bench.give({}, start=2)
        bench.wait_for(3)
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
        mine = [pid for pid in children() if pid not in of_others]
        assert [pid for pid in mine if not alive(pid)] == []
        assert len(mine) <= 1
    assert bench.runtime.counters.failed == 11


# -- starting --------------------------------------------------------------------------------------


def test_a_handler_that_no_child_could_import_is_refused() -> None:
    def local(value: int) -> None:
        pass

    for handler in (local, lambda value: None):
        with pytest.raises(SettingsError, match="top of a module"):
            Bench(handler)


def test_a_child_that_cannot_start_ends_the_worker_and_no_record_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKEN_HANDLER", "raise")
    with Bench(broken_handler.handle, 2, retry=RetryPolicy(max_attempts=1)) as bench:
        bench.runtime.received("source", ORDERS, [record(i, str(i).encode(), b"1") for i in range(5)])
        bench.thread.join(20)
        assert isinstance(bench.error, RelanceError)
        assert "ended with exit status 1 before the first record" in str(bench.error)
        wait_until(lambda: bench.runtime.look().in_flight == 0)
        assert bench.base() == 0
    assert bench.member.writes == []
    assert "the licence file is missing" in capfd.readouterr().err


def test_a_child_that_hangs_as_it_starts_is_ended_with_its_partition_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BROKEN_HANDLER", "hang")
    monkeypatch.setenv("BROKEN_HANDLER_HERE", str(tmp_path / "here"))
    with Bench(broken_handler.handle, drain_timeout=0.05) as bench:
        bench.member.assign(OTHER)
        bench.runtime.received("source", ORDERS, [record(0, value=b"1")])
        wait_until((tmp_path / "here").exists, 20)
        monkeypatch.delenv("BROKEN_HANDLER")
        bench.member.revoke(ORDERS)
        bench.runtime.received("source", OTHER, [record(0, value=b"1", tp=OTHER)])
        wait_until(lambda: bench.base(OTHER) == 1, 20, lambda: repr(bench.error))
    assert bench.error is None
    assert bench.member.broker.commits[ORDERS][0] == 0


# -- deadlines and stops -----------------------------------------------------------------------------


def test_a_handler_past_its_deadline_is_ended_with_its_process_and_the_attempt_counts(tmp_path: Path) -> None:
    with Bench(timeout=0.3) as bench:
        bench.give(
            {"key": "k", "work": 30, "times": 1, "notes": str(tmp_path)},
            {"key": "k", "notes": str(tmp_path)},
        )
        bench.wait_for(2)
    calls = notes(tmp_path)
    assert [(call[3], call[4]) for call in calls] == [("0", "1"), ("0", "2"), ("1", "1")]
    assert bench.runtime.counters.failed == 1
    assert not any(alive(int(call[1])) for call in calls)


def test_a_child_that_is_frozen_is_past_its_deadline_too(tmp_path: Path) -> None:
    with Bench(timeout=0.5) as bench:
        bench.give({"notes": str(tmp_path)})
        bench.wait_for(1)
        os.kill(int(notes(tmp_path)[0][1]), signal.SIGSTOP)
        bench.give({"notes": str(tmp_path)}, start=1)
        bench.wait_for(2)


def test_what_runs_at_the_drain_deadline_is_ended_and_not_committed_and_others_are_not_harmed(
    tmp_path: Path,
) -> None:
    with Bench(concurrency=2, drain_timeout=0.1, retry=RetryPolicy(max_attempts=1)) as bench:
        bench.member.assign(OTHER)
        bench.give({"work": 60, "notes": str(tmp_path)}, {})
        bench.give({"work": 0.5, "notes": str(tmp_path)}, {}, tp=OTHER)
        wait_until(lambda: len(notes(tmp_path)) == 2, 20)
        bench.member.revoke(ORDERS)
        bench.member.assign(ORDERS)
        bench.give({})
        wait_until(lambda: bench.base(OTHER) == 2, 20)
        wait_until(lambda: bench.base() == 1, 20)
    assert bench.member.broker.commits[ORDERS][0] == 0
    assert bench.member.writes == []
    assert bench.runtime.counters.failed == 0
    assert bench.error is None


def test_a_revocation_waits_for_the_record_at_hand_and_not_for_all_that_its_child_was_sent(
    tmp_path: Path,
) -> None:
    with Bench(ordering="partition", drain_timeout=10.0) as bench:
        # Quick ones first: the run grows, and the slow ones travel together.
        bench.give(*({} for _ in range(200)), *({"work": 0.2, "notes": str(tmp_path)} for _ in range(100)))
        wait_until(lambda: notes(tmp_path), 20)
        bench.member.revoke(ORDERS)
        assert bench.member.broker.commits[ORDERS][0] <= 200 + len(notes(tmp_path))
        assert len(notes(tmp_path)) < 15
    assert bench.runtime.counters.handled == bench.member.broker.commits[ORDERS][0]


def test_a_stop_ends_children_that_hang_at_its_deadline_and_the_idle_ones_by_themselves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Bench(concurrency=2) as bench:
        bench.give({"work": 60, "notes": str(tmp_path)}, {"notes": str(tmp_path)})
        wait_until(lambda: len(notes(tmp_path)) == 2, 20)
    assert bench.error is None
    assert not any(alive(int(call[1])) for call in notes(tmp_path))
    with Bench(process_handlers.prints) as bench:
        bench.give({"n": 17})
        bench.wait_for(1)
    assert "a line of the child's 17" in capfd.readouterr().out  # killed, it would have kept it


# -- whole programs ----------------------------------------------------------------------------------

PROGRAM = """
import sys, threading, time
sys.path[:0] = {paths!r}
import process_handlers
from test_processes import Bench
if __name__ == "__main__":
    bench = Bench(concurrency=2)
    bench.thread.start()
    bench.give(*({{"work": 60, "notes": {notes!r}, "key": i}} for i in range(2)))
    print("given", flush=True)
    {end}
"""


def program(tmp_path: Path, end: str, **more: Any) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    text = PROGRAM.format(paths=[str(here), str(here.parent)], notes=str(tmp_path), end=end)
    path = tmp_path / "program.py"
    path.write_text(text)
    return subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE, text=True, **more)


def test_the_children_of_a_parent_that_is_killed_end_although_their_handlers_hang(tmp_path: Path) -> None:
    with program(tmp_path, "time.sleep(60)") as parent:
        wait_until(lambda: len(notes(tmp_path)) == 2, 30)
        children = [int(call[1]) for call in notes(tmp_path)]
        parent.kill()
        wait_until(lambda: not any(alive(child) for child in children), 5)


def test_a_program_that_ends_without_stopping_its_worker_does_not_wait_for_the_children(
    tmp_path: Path,
) -> None:
    end = f"\n    while not __import__('os').path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    with program(tmp_path, end) as parent:
        wait_until(lambda: len(notes(tmp_path)) == 2, 30)
        children = [int(call[1]) for call in notes(tmp_path)]
        (tmp_path / "go").touch()
        assert parent.wait(10) == 0
        wait_until(lambda: not any(alive(child) for child in children), 5)


def test_a_signal_for_the_whole_group_leaves_the_children_to_the_parent_also_while_they_start(
    tmp_path: Path,
) -> None:
    end = (
        "\n    import signal"
        "\n    for number in signal.SIGTERM, signal.SIGINT: signal.signal(number, lambda *_: None)"
        "\n    print('ready', flush=True)"
        "\n    bench.thread.join(20)"
        "\n    sys.exit(repr(bench.error))"
    )
    with program(tmp_path, end, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline() != "ready\n":
            pass
        for _ in range(40):  # from the first moment until both are at work
            os.killpg(parent.pid, signal.SIGTERM)
            os.killpg(parent.pid, signal.SIGINT)
            if len(notes(tmp_path)) == 2:
                break
            threading.Event().wait(0.05)
        wait_until(lambda: len(notes(tmp_path)) == 2 or parent.poll() is not None, 20)
        assert parent.poll() is None
        os.killpg(parent.pid, signal.SIGTERM)
        assert all(alive(int(call[1])) for call in notes(tmp_path))
        assert {call[4] for call in notes(tmp_path)} == {"1"}
        parent.kill()


def test_a_handler_that_returns_a_coroutine_ends_the_work_and_its_record_stays_unfinished() -> None:
    with Bench(process_handlers.forgets_to_await) as bench:
        bench.give({"a": 1})
        wait_until(lambda: bench.member.failures)
        assert bench.base() == 0
    [error] = bench.member.failures
    assert "functools.wraps" in str(error)


def test_a_value_that_handlers_return_in_any_child_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with Bench(process_handlers.answers, concurrency=2) as bench:
        bench.give(*({"key": i} for i in range(20)))
        bench.wait_for(20)
    [told] = [text for text in caplog.messages if "and nobody gets it" in text]
    assert "process_handlers.answers returned a value (dict)" in told


def test_only_the_child_that_is_at_work_on_a_run_is_ended_with_it() -> None:
    """A run that is given up may have been handed on to another child since."""
    member = Member.in_real_time()
    shape = handler_shape(process_handlers.handle)
    call = ProcessCall(member.runtime, process_handlers.handle, shape, None, Returned(shape.name))
    killed: list[str] = []
    call._child = SimpleNamespace(kill=lambda: killed.append("child"))  # type: ignore[assignment]
    mine, other = (Run(Lane(member.engine.assignments[ORDERS], None, keyed=False), []) for _ in range(2))
    call._run = mine
    call.abandon(other)
    assert (killed, call._abandoned) == ([], False)
    call.abandon(mine)
    assert (killed, call._abandoned) == (["child"], True)
