"""The way out where Java is missing: the commands that Docker is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_fakes import command, kafka, listening

from relance.broker import BrokerFailedError, LocalBroker, MissingToolError
from relance.broker.layout import Layout
from relance.errors import SettingsError

# A docker that notes its arguments, one call a line, and remembers whether its container exists and runs.
DOCKER = r"""
printf '%s|' "$@" >> "$STATE/calls"; echo >> "$STATE/calls"
case "$1 $2" in
"version "*) [ ! -e "$STATE/down" ] ;;
"image inspect") [ -e "$STATE/image" ] ;;
"pull "*) touch "$STATE/image" ;;
"container inspect")
  [ -e "$STATE/container" ] || exit 1
  if [ -e "$STATE/runs" ]; then echo true; else echo false; fi ;;
"run "*)
  if [ -e "$STATE/refuse" ]; then echo 'docker: Error: no space left on device' >&2; exit 125; fi
  touch "$STATE/container"; [ -e "$STATE/dies" ] || touch "$STATE/runs" ;;
"start "*) touch "$STATE/runs" ;;
"stop "*|"kill "*) [ -e "$STATE/runs" ] && rm "$STATE/runs" ;;
"rm "*) rm -f "$STATE/runs" "$STATE/container" ;;
"logs "*) echo 'INFO hello'; echo 'ERROR out of luck' ;;
esac
"""


class Engine:
    """The fake engine's state, and what it was asked."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def calls(self, verb: str) -> list[list[str]]:
        lines = (self.state / "calls").read_text().splitlines()
        return [line.split("|")[:-1] for line in lines if line.startswith(f"{verb}|")]

    def set(self, name: str) -> None:
        (self.state / name).touch()

    def has(self, name: str) -> bool:
        return (self.state / name).exists()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A machine with a Docker engine, and neither Java nor Maven."""
    tools = tmp_path / "tools"
    command(tools, "docker", DOCKER)
    for name in ("touch", "rm", "cat"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("RELANCE_KAFKA_HOME", str(tmp_path / "no-jars"))
    return Engine(tmp_path)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port where a Kafka answers as soon as the container runs: here, all the time."""
    with listening(kafka) as number:
        monkeypatch.setattr("relance.broker.local._check_port", lambda _port: None)
        yield number


def broker(tmp_path: Path, port: int, said: list[str] | None = None, **options: object) -> LocalBroker:
    local = LocalBroker(tmp_path / "run", port=port, say=(said if said is not None else []).append, **options)
    local._foreign = lambda: False  # the fake Kafka is there before its container is
    return local


def test_a_new_container_gets_the_teaching_settings_and_only_the_loopback(tmp_path, engine, port):
    said: list[str] = []
    status = broker(tmp_path, port, said, config={"log.retention.ms": "1\\2"}).start()
    assert status.running
    assert status.container.startswith("relance-kafka-")
    (run,) = engine.calls("run")
    assert f"--publish=127.0.0.1:{port}:{port}" in run
    assert "--env=KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0" in run
    assert "--env=KAFKA_HEAP_OPTS=-Xmx512m" in run
    assert "--env=KAFKA_LOG_RETENTION_MS=1\\\\2" in run
    assert run[-1] == "apache/kafka:4.3.1"
    assert any(line.startswith("there is no Java") for line in said)
    assert "downloading the image apache/kafka:4.3.1 (once)" in said


def test_a_second_start_changes_nothing_and_a_start_after_a_stop_keeps_the_container(tmp_path, engine, port):
    local = broker(tmp_path, port)
    local.start()
    local.start()
    assert len(engine.calls("run")) == 1
    local.stop(timeout=3)
    assert engine.calls("stop")[0][1:3] == ["--time", "3"]
    assert not local.status().nodes[0].up
    local.start()
    assert len(engine.calls("run")) == len(engine.calls("start")) == 1


def test_killing_and_purging(tmp_path, engine, port):
    local = broker(tmp_path, port)
    local.start()
    local.kill()
    assert not engine.has("runs")
    with pytest.raises(BrokerFailedError, match="does not run"):
        local.kill()
    local.start()
    local.purge()
    assert not engine.has("container")
    assert Layout(tmp_path / "run").read() is None


def test_a_container_keeps_its_settings_so_others_are_refused(tmp_path, engine, port):
    broker(tmp_path, port).start()
    broker(tmp_path, port).stop()
    with pytest.raises(SettingsError, match="a container keeps its port and settings"):
        broker(tmp_path, port, config={"a": "b"}).start()


def test_one_container_is_one_node(tmp_path, engine, port):
    with pytest.raises(SettingsError, match="Docker runs one node"):
        broker(tmp_path, port, nodes=3).start()
    assert Layout(tmp_path / "run").read() is None


def test_a_container_that_is_refused_says_why_and_is_removed(tmp_path, engine, port):
    engine.set("refuse")
    with pytest.raises(BrokerFailedError, match="no space left on device"):
        broker(tmp_path, port).start()
    assert engine.calls("rm")


def test_a_container_that_ends_at_once_says_its_last_words_and_is_removed(tmp_path, engine):
    engine.set("dies")
    with pytest.raises(BrokerFailedError, match="ERROR out of luck"):
        broker(tmp_path, 1).start()
    assert not engine.has("container")


def test_without_java_maven_and_docker_one_error_names_what_to_install(tmp_path, engine):
    engine.set("down")
    with pytest.raises(MissingToolError) as caught:
        broker(tmp_path, 1).start()
    message = str(caught.value)
    assert "Java 17 or later" in message
    assert "Maven" in message
    assert "Docker" in message
    assert "apt install openjdk-17-jre-headless maven" in message
    assert not (tmp_path / "run").exists()


def test_an_engine_that_went_away_is_named_with_the_way_out(tmp_path, engine, port):
    broker(tmp_path, port).start()
    broker(tmp_path, port).stop()
    engine.set("down")
    with pytest.raises(MissingToolError, match="relance broker stop --purge"):
        broker(tmp_path, port).start()


def test_no_docker_at_all_is_an_engine_that_does_not_answer(tmp_path, engine):
    (tmp_path / "tools/docker").unlink()
    with pytest.raises(MissingToolError, match="a Docker engine that answers"):
        broker(tmp_path, 1).start()


def test_settings_reach_the_image_by_its_own_spelling():
    from relance.broker.docker import _variable

    assert _variable("log.retention.ms") == "KAFKA_LOG_RETENTION_MS"
    # What the image's entry point makes of it: _ is a dot, __ an underscore, ___ a dash.
    back = _variable("a-b_c.d").removeprefix("KAFKA_").lower()
    assert back.replace("_", ".").replace("...", "-").replace("..", "_") == "a-b_c.d"
