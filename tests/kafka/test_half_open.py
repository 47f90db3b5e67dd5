"""A broker that went without a word, as a container may: who looks again later finds it."""

from __future__ import annotations

from pathlib import Path

from tests.waiting import wait_until

from chaos.proxy import Proxy, Rule
from relance.broker import LocalBroker
from relance.kafka.admin import Admin
from relance.ports import free_ports


def test_the_first_look_after_a_silent_restart_is_answered(tmp_path: Path) -> None:
    ports = free_ports(1)
    proxy, gone = Proxy(ports), Rule(silent=True)
    broker = LocalBroker(tmp_path, port=0, told_ports=ports)
    try:
        status = broker.start()
        proxy.start([node.port for node in status.nodes])
        admin = Admin(proxy.bootstrap, timeout=10.0)
        assert admin.ping() == 1
        assert admin.describe_groups(["nobody"]) == {}  # by a client in another process
        proxy.add(gone)
        # Nobody asks meanwhile. What is kept open now would swallow the first question afterwards.
        wait_until(lambda: not proxy._links, 20, "the idle connections to be closed")
        proxy.remove(gone)
        assert admin.ping(2.0) == 1
        assert admin.describe_groups(["nobody"]) == {}
    finally:
        proxy.stop()
        broker.purge()
