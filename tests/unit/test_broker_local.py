"""Starting and stopping around all that can be in the way, with a Java that only pretends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from broker_fakes import command, kafka, listening

from relance.broker import BrokerFailedError, LocalBroker, java, layout, local
from relance.broker.layout import Layout
from relance.broker.processes import alive
from relance.errors import RelanceError, SettingsError
from relance.ports import free_ports
from waiting import wait_until

# A Java that has a version, formats in no time, and as Kafka does what $KAFKA says.
JAVA = """
case "$*" in
-version) echo 'openjdk version "17.0.1"' >&2; exit 0 ;;
*StorageTool*) eval "$FORMAT" ;;
*) eval "$KAFKA" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`machine(kafka=…, format=…)`: a machine whose Java does that."""
    command(tmp_path / "tools", "java", JAVA)
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("RELANCE_KAFKA_HOME", str(tmp_path / "kafka"))
    (tmp_path / "kafka/libs").mkdir(parents=True)
    (tmp_path / "kafka/libs/kafka_2.13-4.3.1.jar").touch()

    def behave(kafka: str = "exec sleep 60", format: str = "true") -> None:
        monkeypatch.setenv("KAFKA", kafka)
        monkeypatch.setenv("FORMAT", format)

    behave()
    return behave


def leftovers(dir: Path) -> list[Path]:
    return sorted(path for path in dir.rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"nodes": 0}, "nodes"),
        ({"nodes": 10}, "nodes"),
        ({"port": -1}, "port"),
        ({"port": 65535, "nodes": 3}, "port"),
        ({"heap_mb": 16}, "heap_mb"),
        ({"config": {"listeners": "PLAINTEXT://:1"}}, "listeners"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(tmp_path, arguments, key):
    with pytest.raises(SettingsError, match=f"^{key}: "):
        LocalBroker(tmp_path, **arguments)


def test_a_kafka_that_answers_already_is_used_and_left_alone(tmp_path):
    with listening(kafka) as port:
        broker = LocalBroker(tmp_path / "run", port=port)
        status = broker.start()
        assert (status.foreign, status.running, status.bootstrap) == (True, True, f"localhost:{port}")
        assert broker.stop().foreign
        assert broker.status().running
    assert not (tmp_path / "run").exists()


def test_a_port_that_another_program_holds_is_named_with_its_holder(tmp_path, machine):
    with (
        listening(lambda _request: b"HTTP/1.1 400 Bad Request\r\n\r\n") as port,
        pytest.raises(
            RelanceError, match=rf"port {port} is held by pid \d+ \(.*python.*another port with --port"
        ),
    ):
        LocalBroker(tmp_path / "run", port=port).start()
    assert leftovers(tmp_path / "run") == []


def test_a_port_held_at_the_other_loopback_address_is_named_too(tmp_path, machine, monkeypatch):
    # As on a machine with IPv6, where something listens at [::1] only.
    monkeypatch.setattr(local, "port_is_free", lambda port, address="": port == 0 or address != "::1")
    with pytest.raises(RelanceError, match=r"port 9 is held by "):
        LocalBroker(tmp_path / "run", port=9).start()


def test_a_format_that_fails_says_why_and_leaves_nothing(tmp_path, machine):
    machine(format="echo 'Exception in thread main: bad setting x'; echo '  at Somewhere.java'; exit 1")
    with pytest.raises(
        BrokerFailedError, match=r"could not format .*: Exception in thread main: bad setting x"
    ):
        LocalBroker(tmp_path / "run", port=0).start()
    assert leftovers(tmp_path / "run") == []


def test_a_format_that_was_cut_short_is_done_again(tmp_path, machine):
    broker = LocalBroker(tmp_path / "run", port=0)
    machine(format="mkdir data; touch data/half; exit 1")
    with pytest.raises(BrokerFailedError):
        broker.start()
    machine(kafka="exit 3", format="[ ! -e data/half ] || echo ERROR half; mkdir -p data")
    with pytest.raises(BrokerFailedError, match="ended while starting"):
        broker.start()
    assert not (tmp_path / "run/kafka/node-1/data/half").exists()


def test_a_kafka_that_ends_says_its_last_words_of_this_start(tmp_path, machine):
    broker = LocalBroker(tmp_path / "run", port=0)
    machine(kafka="echo 'ERROR the first time'; exit 1")
    with pytest.raises(BrokerFailedError, match="ERROR the first time"):
        broker.start()
    machine(kafka="echo 'INFO all well'; exit 1")
    with pytest.raises(
        BrokerFailedError, match=r"\(node 1\) ended while starting: INFO all well \(log: .*\)"
    ):
        broker.start()
    assert leftovers(tmp_path / "run") == []


def test_where_any_port_would_do_others_are_chosen_for_one_that_was_taken_meanwhile(
    tmp_path, machine, monkeypatch
):
    monkeypatch.setattr(java.nodes, "serves", lambda _node, _count: True)
    said: list[str] = []
    with listening(kafka) as held:
        drawn = [held]
        monkeypatch.setattr(layout, "free_ports", lambda count: [drawn.pop()] if drawn else free_ports(count))
        with LocalBroker(tmp_path / "run", port=0, say=said.append) as broker:
            [node] = broker.status().nodes
            assert node.up
            assert node.port != held
    assert any(line.startswith(f"choosing other ports: port {held} is held by pid") for line in said)


def test_a_kafka_that_never_serves_is_stopped_at_the_deadline(tmp_path, machine):
    machine(kafka=f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(BrokerFailedError, match="did not serve clients in time"):
        LocalBroker(tmp_path / "run", port=0).start(timeout=0.2)
    assert leftovers(tmp_path / "run") == []


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_nothing_running(tmp_path, machine, monkeypatch, interrupt):
    started = []

    def comes(node, _count):
        started.append(Layout(tmp_path / "run").pid(node.id))
        raise interrupt

    monkeypatch.setattr(java.nodes, "serves", comes)
    with pytest.raises(interrupt):
        LocalBroker(tmp_path / "run", port=0, nodes=3).start()
    assert started[0] is not None
    assert not alive(started[0])
    assert leftovers(tmp_path / "run") == []


def test_one_that_does_not_stop_is_killed_with_a_word(tmp_path, machine, monkeypatch):
    # Ignoring SIGTERM is inherited through exec.
    machine(kafka="trap '' TERM; echo deaf; exec sleep 60")
    log = tmp_path / "run/logs/broker.log"
    monkeypatch.setattr(java.nodes, "serves", lambda _node, _count: "deaf" in log.read_text())
    said: list[str] = []
    broker = LocalBroker(tmp_path / "run", port=0, say=said.append)
    broker.start()
    pid = broker.status().nodes[0].pid
    broker.stop(timeout=0.1)
    assert said[-1] == f"node 1 (pid {pid}) did not stop in 0.1 s, so it was killed"
    assert broker.status().nodes[0].pid is None


def test_the_shape_of_a_cluster_that_runs_is_not_changed_behind_its_back(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(java.nodes, "serves", lambda _node, _count: True)
    run = tmp_path / "run"
    with LocalBroker(run, port=0, config={"a": "b"}) as broker:
        pid = broker.status().nodes[0].pid
        assert LocalBroker(run, port=0).start().nodes[0].pid == pid
        assert LocalBroker(run, port=0, config={"a": "b"}).start().nodes[0].pid == pid
        with pytest.raises(SettingsError, match=r"^nodes: .*was made with 1, not 3"):
            LocalBroker(run, port=0, nodes=3).start()
        with pytest.raises(SettingsError, match=r"^config: .*runs with other settings"):
            LocalBroker(run, port=0, config={}).start()
        with pytest.raises(SettingsError, match=r"^bootstrap: .*runs at localhost"):
            LocalBroker(run, port=1).start()
    assert not broker.status().running


def test_a_stop_waits_for_a_start_that_is_under_way(tmp_path, machine, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def serves(_node, _count):
        begun.set()
        return may_end.wait(10)

    monkeypatch.setattr(java.nodes, "serves", serves)
    run = tmp_path / "run"
    starting = threading.Thread(target=LocalBroker(run, port=0).start)
    starting.start()
    assert begun.wait(10)
    said: list[str] = []
    stopping = threading.Thread(target=LocalBroker(run, port=0, say=said.append).stop)
    stopping.start()
    wait_until(lambda: said, 10, "the stop to say that it waits")
    assert said == ["waiting for another start or stop of this broker"]
    may_end.set()
    starting.join(10)
    stopping.join(10)
    assert Layout(run).pid(1) is None


def test_a_long_log_is_put_aside_at_a_start(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(java.nodes, "serves", lambda _node, _count: True)
    monkeypatch.setattr(java.nodes, "_LARGEST_LOG", 10)
    log = tmp_path / "run/logs/broker.log"
    log.parent.mkdir(parents=True)
    log.write_text("what was said before")
    with LocalBroker(tmp_path / "run", port=0):
        assert log.with_name("broker.log.1").read_text() == "what was said before"
        assert log.stat().st_size == 0


def test_killing_is_only_for_what_runs(tmp_path):
    with pytest.raises(BrokerFailedError, match="there is no broker in"):
        LocalBroker(tmp_path, port=0).kill()


def test_a_crash_is_a_crash_and_a_start_repairs_it(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(java.nodes, "serves", lambda _node, _count: True)
    handler = signal.getsignal(signal.SIGINT)
    with LocalBroker(tmp_path / "run", port=0, nodes=2) as broker:
        before = [node.pid for node in broker.status().nodes]
        broker.kill(2)
        assert [node.up for node in broker.status().nodes] == [True, False]
        after = [node.pid for node in broker.start().nodes]
        assert after[0] == before[0]
        assert after[1] not in before
        broker.purge()
        assert not broker.status().nodes
    assert signal.getsignal(signal.SIGINT) is handler
