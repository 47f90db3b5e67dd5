"""The jars are whole or not there, and one process at a time fetches them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from broker_fakes import command

from relance.broker import jars
from relance.broker.engine import MissingToolError
from relance.broker.jars import ensure_jars, find_java, jars_ready, kafka_home
from relance.errors import RelanceError

# A Maven that notes each run and puts one jar where it is told to.
MAVEN = """
echo run >> "$LOG"
for word in "$@"; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done
mkdir -p "$out"; touch "$out/kafka_2.13-4.3.1.jar"
echo "Downloaded from central: somewhere/kafka_2.13-4.3.1.jar (1.6 MB at 5 MB/s)"
"""
BROKEN = f"{MAVEN}\necho '[ERROR] Could not transfer artifact: Connection refused'\nexit 1"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the first on the PATH, and a log of Maven's runs."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "runs"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("RELANCE_KAFKA_HOME", raising=False)
    return folder


@pytest.fixture
def nothing_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().splitlines())


def test_they_are_fetched_once_and_progress_is_told(tmp_path, tools):
    command(tools, "mvn", MAVEN)
    said: list[str] = []
    libs = ensure_jars(tmp_path / "home", said.append)
    assert (libs / "kafka_2.13-4.3.1.jar").exists()
    assert said[0].startswith("downloading Kafka 4.3.1")
    assert said[1].endswith("with Maven: 1 file")
    assert ensure_jars(tmp_path / "home", said.append) == libs
    assert runs(tmp_path) == 1


def test_a_failed_download_says_why_and_is_not_taken_for_whole(tmp_path, tools):
    command(tools, "mvn", BROKEN)
    with pytest.raises(RelanceError, match="Could not transfer artifact: Connection refused"):
        ensure_jars(tmp_path / "home", lambda _: None)
    assert not jars_ready(tmp_path / "home")
    command(tools, "mvn", MAVEN)
    assert ensure_jars(tmp_path / "home", lambda _: None)


def test_a_download_that_was_cut_short_is_begun_again(tmp_path, tools):
    partial = tmp_path / "home/libs.partial"
    partial.mkdir(parents=True)
    (partial / "left-over.jar").touch()
    command(tools, "mvn", MAVEN)
    libs = ensure_jars(tmp_path / "home", lambda _: None)
    assert not (libs / "left-over.jar").exists()


def test_a_maven_that_brings_no_kafka_is_an_error(tmp_path, tools):
    command(tools, "mvn", "exit 0")
    with pytest.raises(RelanceError, match="put no Kafka"):
        ensure_jars(tmp_path / "home", lambda _: None)


def test_a_changed_pom_fetches_anew(tmp_path, tools, monkeypatch):
    command(tools, "mvn", MAVEN)
    ensure_jars(tmp_path / "home", lambda _: None)
    changed = tmp_path / "pom.xml"
    changed.write_text("<project/>")
    monkeypatch.setattr(jars, "POM", changed)
    assert not jars_ready(tmp_path / "home")
    ensure_jars(tmp_path / "home", lambda _: None)
    assert runs(tmp_path) == 2


def test_two_that_come_at_once_fetch_once(tmp_path, tools):
    command(tools, "mvn", f"{MAVEN}\nread line < '{tmp_path}/gate'")
    gate = tmp_path / "gate"
    gate.parent.mkdir(exist_ok=True)
    jars.os.mkfifo(gate)
    waits = threading.Event()
    said = lambda line: waits.set() if line.startswith("waiting") else None  # noqa: E731
    threads = [threading.Thread(target=ensure_jars, args=(tmp_path / "home", said)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waits.wait(10)
    gate.write_text("go\n")
    for thread in threads:
        thread.join(10)
    assert runs(tmp_path) == 1


def test_an_own_kafka_is_taken_where_the_variable_points_to_it(tmp_path, tools, monkeypatch):
    monkeypatch.setenv("RELANCE_KAFKA_HOME", str(tmp_path / "kafka"))
    (tmp_path / "kafka/libs").mkdir(parents=True)
    assert not jars_ready(kafka_home())
    (tmp_path / "kafka/libs/kafka_2.13-4.3.1.jar").touch()
    assert ensure_jars(kafka_home(), lambda _: None) == tmp_path / "kafka/libs"


def test_home_is_in_the_checkout_or_else_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("RELANCE_KAFKA_HOME", raising=False)
    root = Path(__file__).parents[2]
    assert kafka_home() == root / ".run/kafka/4.3.1"
    monkeypatch.setattr(jars, "__file__", str(tmp_path / "lib/site-packages/relance/broker/jars.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kafka_home() == tmp_path / "cache/relance/kafka/4.3.1"


@pytest.mark.usefixtures("nothing_on_the_path")
def test_without_maven_the_error_names_it(tmp_path):
    with pytest.raises(MissingToolError, match="Maven"):
        ensure_jars(tmp_path / "home", lambda _: None)


@pytest.mark.usefixtures("nothing_on_the_path")
def test_without_java_the_error_names_it():
    with pytest.raises(MissingToolError, match=r"Java 17 or later \(there is no java in the PATH\)"):
        find_java()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019' >&2", "is Java 11"),
        ("echo 'java version \"1.8.0_292\"' >&2", "is Java 8"),
        ("echo 'No Java runtime present' >&2; exit 1", "does not run"),
        ("true", "does not run"),
    ],
)
def test_a_java_that_is_too_old_or_no_java_is_refused(tools, said, problem):
    command(tools, "java", said)
    with pytest.raises(MissingToolError, match=problem):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "25", "21-ea"])
def test_a_java_of_17_or_later_is_taken(tools, version):
    java = command(tools, "java", f"echo 'openjdk version \"{version}\"' >&2")
    assert find_java() == java


def test_java_home_goes_before_the_path(tmp_path, tools, monkeypatch):
    command(tools, "java", "exit 1")
    java = command(tmp_path / "jdk/bin", "java", "echo 'openjdk version \"17\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert find_java() == java
