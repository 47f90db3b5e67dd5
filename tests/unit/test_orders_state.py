import asyncio
from typing import Any

import pytest
from orders_fakes import FakeTable

from orders.state import GONE_AFTER, Counters, SharedCounters, SimulationFlag
from relance import SendError


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Instance:
    """One instance's view of the shared topic; all of one test share the log."""

    def __init__(self, log: list[Any], name: str, clock: Clock, role: str = "api", group: str = "g") -> None:
        self.table = FakeTable(log)
        self.flag = SimulationFlag(self.table, group, name)  # type: ignore[arg-type]
        self.counted = Counters()
        self.partitions = [0]
        self.shared = SharedCounters(
            self.table,  # type: ignore[arg-type]
            group=group,
            instance=name,
            role=role,
            flag=self.flag,
            counted=lambda: self.counted,
            partitions=lambda: self.partitions,
            clock=clock,
        )
        self.shared.restore()

    def publish(self, *, stopped: bool = False) -> None:
        asyncio.run(self.shared.publish(self.shared.own(stopped=stopped)))


# -- the flag ---------------------------------------------------------------------------------------


def test_the_flag_is_off_until_somebody_writes_it() -> None:
    flag = SimulationFlag(FakeTable(), "g", "a")  # type: ignore[arg-type]
    assert not flag.enabled
    assert flag.stamp() is None


def test_orders_are_stamped_with_the_offset_of_ones_own_write() -> None:
    log: list[Any] = [("noise", {})] * 3
    flag = SimulationFlag(FakeTable(log), "g", "a")  # type: ignore[arg-type]
    asyncio.run(flag.set(True))
    log.append(("noise", {}))
    assert flag.enabled
    assert flag.stamp() == 3


def test_a_write_whose_offset_nobody_says_is_made_once_more() -> None:
    log: list[Any] = []
    table = FakeTable(log)
    table.unsaid = 2
    flag = SimulationFlag(table, "g", "a")  # type: ignore[arg-type]
    name = asyncio.run(flag.set(True))
    assert (flag.stamp(), flag.write, len(log)) == (2, name, 3)


def test_orders_are_stamped_with_no_less_than_the_offset_of_anothers_write() -> None:
    log: list[Any] = []
    mine = SimulationFlag(FakeTable(log), "g", "a")  # type: ignore[arg-type]
    other = SimulationFlag(FakeTable(log), "g", "b")  # type: ignore[arg-type]
    asyncio.run(mine.set(False))
    asyncio.run(other.set(True))
    log.append(("noise", {}))
    stamp = mine.stamp()
    assert stamp is not None
    assert 1 <= stamp < len(log)
    log.append(("noise", {}))
    assert mine.stamp() == stamp, "a stamp must not move with every record of the topic"


def test_ones_own_write_is_stamped_before_it_is_read_back() -> None:
    table = FakeTable([("noise", {})] * 3)
    table.behind = 1
    flag = SimulationFlag(table, "g", "a")  # type: ignore[arg-type]
    asyncio.run(flag.set(True))
    assert flag.stamp() == 3
    table.behind = None
    assert flag.stamp() == 3


def test_a_topic_made_anew_leaves_no_stamp_behind() -> None:
    table = FakeTable()
    flag = SimulationFlag(table, "g", "a")  # type: ignore[arg-type]
    asyncio.run(flag.set(True))
    assert flag.stamp() == 0
    table.log.clear()
    assert flag.stamp() is None


def test_a_consumer_waits_for_the_stamp_before_it_looks() -> None:
    log: list[Any] = []
    asyncio.run(SimulationFlag(FakeTable(log), "g", "a").set(True))  # type: ignore[arg-type]
    table = FakeTable(log)
    consumer = SimulationFlag(table, "g", "b")  # type: ignore[arg-type]
    assert asyncio.run(consumer.enabled_at(0))
    assert table.waited == [0]


def test_an_order_without_a_stamp_waits_for_nothing() -> None:
    table = FakeTable()
    assert not asyncio.run(SimulationFlag(table, "g", "a").enabled_at(None))  # type: ignore[arg-type]
    assert table.waited == []


def test_a_stamp_that_cannot_be_reached_is_waited_for_once() -> None:
    table = FakeTable()
    flag = SimulationFlag(table, "g", "a")  # type: ignore[arg-type]
    for _ in range(3):
        assert not asyncio.run(flag.enabled_at(10**18))
    assert table.waited == [10**18]


@pytest.mark.parametrize("value", [{}, {"enabled": "yes", "write": "w"}, {"enabled": True}])
def test_a_flag_that_no_service_wrote_switches_nothing_on(value: dict[str, Any]) -> None:
    flag = SimulationFlag(FakeTable([("g/simulate-transient-error", value)]), "g", "a")  # type: ignore[arg-type]
    assert not flag.enabled
    assert flag.stamp() is None


# -- the counters -----------------------------------------------------------------------------------


def test_the_sum_is_of_all_instances_and_ones_own_share_is_live() -> None:
    log: list[Any] = []
    clock = Clock()
    api, consumer = Instance(log, "api", clock), Instance(log, "consumer", clock, "consumer")
    consumer.counted = Counters(success=4, errors=1, retries=1)
    consumer.publish()
    api.counted = Counters(success=1, dlt=2)
    shares = api.shared.shares()
    assert [share.instance for share in shares] == ["api", "consumer"]
    assert sum((share.counters for share in shares), Counters()) == Counters(5, 1, 1, 2)
    assert [share.role for share in shares] == ["api", "consumer"]


def test_a_restarted_instance_goes_on_from_what_it_published() -> None:
    log: list[Any] = []
    clock = Clock()
    first = Instance(log, "api", clock)
    first.counted = Counters(success=7)
    first.publish(stopped=True)
    second = Instance(log, "api", clock)
    second.counted = Counters(success=1)
    assert second.shared.own().counters.success == 8


def test_an_instance_that_stopped_counts_on_and_is_down_at_once() -> None:
    log: list[Any] = []
    clock = Clock()
    api, consumer = Instance(log, "api", clock), Instance(log, "consumer", clock)
    consumer.counted = Counters(success=3)
    consumer.publish(stopped=True)
    share = api.shared.shares()[1]
    assert (share.counters.success, share.is_up(clock()), share.partitions) == (3, False, [])


def test_a_killed_instance_is_down_once_the_group_would_say_so_too() -> None:
    log: list[Any] = []
    clock = Clock()
    api, consumer = Instance(log, "api", clock), Instance(log, "consumer", clock)
    consumer.publish()
    clock.now += GONE_AFTER - 0.1
    assert api.shared.shares()[1].is_up(clock())
    clock.now += 0.2
    assert not api.shared.shares()[1].is_up(clock())


def test_a_share_that_no_service_wrote_is_not_counted() -> None:
    log: list[Any] = [("g/stats/x", {"instance": "x"}), ("g/stats/y", {}), ("other", {"a": 1})]
    assert len(Instance(log, "api", Clock()).shared.shares()) == 1


def test_groups_on_one_cluster_share_neither_flag_nor_counters() -> None:
    log: list[Any] = []
    clock = Clock()
    other, instance = Instance(log, "other", clock, group="h"), Instance(log, "api", clock)
    other.publish()
    asyncio.run(other.flag.set(True))
    assert not instance.flag.enabled
    assert [share.instance for share in instance.shared.shares()] == ["api"]


def test_a_failed_publication_is_logged_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    instance = Instance([], "api", Clock())
    instance.table.refuse = SendError("no broker", maybe_written=False)
    for _ in range(3):
        instance.publish()
    assert len(caplog.records) == 1
    instance.table.refuse = None
    instance.publish()
    instance.table.refuse = SendError("no broker", maybe_written=False)
    instance.publish()
    assert len(caplog.records) == 2


def test_only_what_changed_is_published_and_a_sign_of_life_else() -> None:
    log: list[Any] = []
    clock = Clock()
    instance = Instance(log, "api", clock)

    async def scenario() -> list[int]:
        seen = []
        task = asyncio.create_task(instance.shared.keep_publishing())
        for change in (0, 1):
            instance.counted = Counters(success=change)
            async with asyncio.timeout(5):
                while len(log) <= len(seen):
                    await asyncio.sleep(0.005)
            seen.append(len(log))
        clock.now += 3.0
        async with asyncio.timeout(5):
            while len(log) <= len(seen):
                await asyncio.sleep(0.005)
        task.cancel()
        return [*seen, len(log)]

    assert asyncio.run(scenario()) == [1, 2, 3]


def test_a_twin_of_the_same_name_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    clock = Clock()
    one, other = Instance(log, "api", clock), Instance(log, "api", clock)
    one.publish()
    other.publish()
    for _ in range(2):
        one.shared._warn_of_a_twin()
    assert [record.message for record in caplog.records] == [
        "Another process publishes as instance 'api': give each its own INSTANCE_NAME"
    ]
