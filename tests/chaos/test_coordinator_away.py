"""A process that asks about groups lives through the time in which their coordinator is away.

librdkafka 2.16 by itself does not: it uses what it has freed when a coordinator comes back for which a
question has timed out (`Asker.ask_coordinators`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster import Cluster
from chaos.proxy import Rule
from waiting import wait_until

OURS = """
import sys, time
from relance.errors import RelanceError
from relance.kafka.admin import Admin
admin = Admin(sys.argv[1], {"client.id": "asker"}, timeout=1.0)
while True:
    try:
        admin.members(["g"]), admin.committed("g")
        print("answered", flush=True)
    except RelanceError as error:
        print("unanswered", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("away"), nodes=1)
    try:
        found.start()
        yield found
    finally:
        found.purge()


class Asker:
    """A process that asks all the time; its words go to a file."""

    def __init__(self, code: str, cluster: Cluster, folder: Path) -> None:
        self._said = folder / "said"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, cluster.bootstrap], stdout=said, stderr=said
            )

    def words(self) -> list[str]:
        return self._said.read_text().split()

    def wait_for(self, word: str, more: int = 1) -> None:
        """Until it has said `word` so often again, or has ended."""
        before = self.words().count(word)
        wait_until(
            lambda: self.words().count(word) >= before + more or self.process.poll() is not None,
            20.0,
            lambda: self._said.read_text()[-500:],
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def times_away(asker: Asker, cluster: Cluster, times: int) -> None:
    for number in range(times):
        asker.wait_for("answered")
        rule = Rule("asker", refuse=number % 2 == 0, silent=number % 2 == 1)
        cluster.proxy.add(rule)
        asker.wait_for("unanswered", 2)
        cluster.proxy.remove(rule)
    asker.wait_for("answered", 2)


def test_a_process_that_asks_about_groups_outlives_their_coordinator(
    cluster: Cluster, tmp_path: Path
) -> None:
    asker = Asker(OURS, cluster, tmp_path)
    try:
        times_away(asker, cluster, 8)
        assert asker.process.poll() is None, asker.words()[-20:]
    finally:
        asker.end()
