"""Two real threads and their cores; only the clock is the test's."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from relance.cores import SharedCore
from world import FakeClock

ALL = os.sched_getaffinity(0) if sys.platform == "linux" else set()
pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="Linux binds threads to cores; with one core all are")


class Handling:
    """A thread that is inside `joined` until the test ends."""

    def __init__(self, core: SharedCore) -> None:
        self._core = core
        self._joined, self._end = threading.Event(), threading.Event()
        self.left_with: set[int] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._joined.wait(10.0)
        self.id = self._thread.native_id or 0

    def _run(self) -> None:
        with self._core.joined():
            self._joined.set()
            self._end.wait(10.0)
        self.left_with = os.sched_getaffinity(0)

    @property
    def cores(self) -> set[int]:
        return os.sched_getaffinity(self.id)

    def end(self) -> None:
        self._end.set()
        self._thread.join(10.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def core(clock: FakeClock) -> SharedCore:
    return SharedCore(clock.monotonic)


@pytest.fixture
def handling(core: SharedCore) -> Iterator[Handling]:
    found = Handling(core)
    yield found
    found.end()
    os.sched_setaffinity(0, ALL)


def mine() -> set[int]:
    return os.sched_getaffinity(0)


def test_while_there_is_much_to_do_both_are_on_one_core_and_then_where_they_were(
    core: SharedCore, clock: FakeClock, handling: Handling
) -> None:
    core.look(much=False)
    assert (mine(), handling.cores) == (ALL, ALL)
    core.look(much=True)
    assert len(mine()) == 1
    assert handling.cores == mine()
    clock.advance(0.04)
    core.look(much=False)
    assert len(mine()) == 1, "one short batch is no end of a backlog"
    clock.advance(0.04)
    core.look(much=False)
    assert (mine(), handling.cores) == (ALL, ALL)


def test_now_and_again_they_may_move_to_another_core(
    core: SharedCore, clock: FakeClock, handling: Handling
) -> None:
    core.look(much=True)
    for advance, bound in ((0.9, True), (0.2, False), (0.001, False), (0.01, True), (0.5, True)):
        clock.advance(advance)
        core.look(much=True)
        assert (len(mine()) == 1, len(handling.cores) == 1) == (bound, bound), advance


def test_whoever_handles_no_more_gets_its_cores_back(core: SharedCore, handling: Handling) -> None:
    core.look(much=True)
    handling.end()
    assert (mine(), handling.left_with) == (ALL, ALL)
    core.look(much=True)
    assert mine() == ALL


def test_whoever_polls_no_more_lets_both_go(core: SharedCore, handling: Handling) -> None:
    core.look(much=True)
    core.leave()
    assert (mine(), handling.cores) == (ALL, ALL)


def test_a_bond_that_fails_half_way_is_no_bond(
    core: SharedCore,
    handling: Handling,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bind = os.sched_setaffinity

    def only_the_handler(thread: int, cores: set[int]) -> None:
        if thread != handling.id and len(cores) == 1:
            raise PermissionError(1, "Operation not permitted")
        bind(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", only_the_handler)
    core.look(much=True)
    assert (mine(), handling.cores) == (ALL, ALL)
    assert "Operation not permitted" in caplog.text


@pytest.mark.parametrize("stat", [b"", b"1 (\xff) S no number"])
def test_a_proc_of_another_kind_is_told_and_stops_nobody(
    core: SharedCore,
    handling: Handling,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stat: bytes,
) -> None:
    monkeypatch.setattr("relance.cores.Path.read_bytes", lambda path: stat)
    core.look(much=True)
    assert (mine(), handling.cores) == (ALL, ALL)
    assert "share_core" in caplog.text


def test_where_the_system_forbids_it_that_is_told_once_and_nothing_is_tried_again(
    core: SharedCore,
    clock: FakeClock,
    handling: Handling,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = []

    def forbid(thread: int, cores: set[int]) -> None:
        tries.append(thread)
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as sandbox:
        sandbox.setattr(os, "sched_setaffinity", forbid)
        core.look(much=True)
        tried = len(tries)
        for _ in range(3):
            clock.advance(2.0)
            core.look(much=True)
    assert tried > 0
    assert len(tries) == tried
    assert [m.split(":")[0] for m in caplog.messages] == ["share_core"]


def test_elsewhere_than_on_linux_it_does_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    core = SharedCore()
    with core.joined():
        core.look(much=True)
    assert "only on Linux" in caplog.text
