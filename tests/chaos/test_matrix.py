"""Each fault of the rig once, on three brokers, with three members and records that flow.

The injections are real: signals to processes, a TCP proxy between clients and brokers (which cuts, falls
silent, delays, or loses an answer that the broker has given), SIGKILL for brokers.
"""

from __future__ import annotations

import pytest
from runs import Said, Started

from chaos.events import Event, read_all
from chaos.nemesis import FAULTS


class Found:
    """One run, read from the files that it leaves."""

    def __init__(self, said: Said) -> None:
        self.said = said
        self.events: list[Event] = read_all(said.folder / "events")

    def fault(self, name: str) -> Event:
        [found] = [e for e in self.events if e["event"] == "fault" and e["fault"] == name]
        return found

    def after(self, name: str) -> list[Event]:
        """What happened from the fault on."""
        began = self.fault(name)["began"]
        return [event for event in self.events if event["t"] >= began]


@pytest.fixture(scope="module")
def found(started: Started) -> Found:
    return Found(started["matrix", ""].result())


def test_no_promise_is_broken(found: Found) -> None:
    assert (found.said.status, found.said.told.get("passed")) == (0, True), found.said.text
    assert found.said.told["duplicates"] == 0
    assert found.said.told["handoff"] == "transactional"


@pytest.mark.parametrize("name", FAULTS)
def test_it_happened_and_records_are_handled_after(name: str, found: Found) -> None:
    assert not found.fault(name)["whom"].startswith("nobody"), found.said.text
    handled = [event for event in found.after(name) if event["event"] == "end" and event["how"] == "ok"]
    assert len(handled) > 100
