"""A real broker for the whole session; where it cannot start, the tests fail: they never skip."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from relance.broker import LocalBroker

# So that `from waiting import wait_until` works in every test below, however pytest was called.
sys.path.insert(0, str(Path(__file__).parents[1]))

from waiting import wait_until


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One node, shared by all tests: leave it running, and name your topics and groups by your own."""
    local = LocalBroker(tmp_path_factory.mktemp("broker"), port=0, say=print)

    def stop_the_session(number: int, _frame: object) -> None:
        # A runner that loses patience sends SIGTERM; without this, Kafka would outlive the session.
        raise KeyboardInterrupt(f"signal {number}")

    before = signal.signal(signal.SIGTERM, stop_the_session)
    try:
        local.start()
        yield local
    finally:
        local.purge()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def bootstrap(broker: LocalBroker) -> str:
    """The address for clients."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    """Kafka's admin client on the shared broker."""
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture(scope="session")
def make_topic(admin: AdminClient) -> Callable[..., str]:
    """`make_topic(prefix, partitions=1, **configs)` makes a topic of a name nobody else has, and returns it.

    Keywords are the topic's settings with `_` for `.` (`cleanup_policy="compact"`).
    """
    numbers = itertools.count(1)

    def known(name: str) -> int:
        found = admin.list_topics(timeout=10.0).topics.get(name)
        return 0 if found is None else len(found.partitions)

    def make(prefix: str, partitions: int = 1, **configs: object) -> str:
        name = f"{prefix}-{os.getpid()}-{next(numbers)}"
        settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
        topic = NewTopic(name, num_partitions=partitions, config=settings)
        admin.create_topics([topic], operation_timeout=10.0)[name].result(15.0)
        # The controller has made it; a busy broker may hear of it later.
        wait_until(lambda: known(name) == partitions)
        return name

    return make
