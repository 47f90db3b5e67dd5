"""`relance topics` and `relance produce` as processes on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.browser.console_process import RELANCE

from relance.kafka.admin import Admin
from relance.kafka.browse import Browser

MakeTopic = Callable[..., str]


class Command:
    """The `relance` command with its cluster set by the environment, as the stack's scripts do."""

    def __init__(self, bootstrap: str) -> None:
        self._env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "TERM": "dumb"}

    def __call__(
        self, *arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(RELANCE), *arguments],
            input=stdin,
            capture_output=True,
            env=self._env,
            timeout=60,
            check=False,
            cwd=cwd,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


@pytest.fixture
def relance(bootstrap: str) -> Command:
    return Command(bootstrap)


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """It failed with that status, in one line that holds the words."""
    assert done.returncode == status, done
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


# -- topics ----------------------------------------------------------------------------------------------


def test_a_topic_is_created_listed_described_and_deleted(relance: Command, make_topic: MakeTopic) -> None:
    topic = make_topic("cli-base") + ".made"
    made = relance("topics", "create", topic, "--partitions", "3", "--config", "cleanup.policy=compact")
    assert made.stdout == f"created {topic} with 3 partitions\n"
    listed = {t["name"]: t for t in json.loads(relance("topics", "list", "--json").stdout)}
    assert (listed[topic]["partitions"], listed[topic]["records"]) == (3, 0)
    assert topic in relance("topics", "list").stdout
    told = json.loads(relance("topics", "describe", topic, "--json").stdout)
    assert told["configs"] == {"cleanup.policy": "compact"}
    assert [p["partition"] for p in told["partitions"]] == [0, 1, 2]
    assert "cleanup.policy=compact" in relance("topics", "describe", topic).stdout
    assert relance("topics", "delete", topic, "--yes").stdout == f"deleted {topic}\n"
    assert topic not in relance("topics", "list").stdout


def test_a_topic_that_exists_is_an_error_unless_that_is_fine(relance: Command, make_topic: MakeTopic) -> None:
    topic = make_topic("cli-exists")
    refused(relance("topics", "create", topic), 1, topic, "exists already")
    assert relance("topics", "create", topic, "--if-not-exists").returncode == 0


def test_several_topics_are_created_and_deleted_at_once_and_what_cannot_be_is_told_together(
    relance: Command, make_topic: MakeTopic
) -> None:
    one = make_topic("cli-several")
    made = relance("topics", "create", f"{one}.a", one, f"{one}.b", "--partitions", "2")
    assert made.stdout == f"created {one}.a with 2 partitions\ncreated {one}.b with 2 partitions\n"
    refused(made, 1, f"'{one}' exists already")
    refused(relance("topics", "create", "../x", f"{one}.c"), 2, "no topic name")
    gone = relance("topics", "delete", f"{one}.a", "no-1", "no-2", f"{one}.b", "--yes")
    assert gone.stdout == f"deleted {one}.a\ndeleted {one}.b\n"
    refused(gone, 1, "topics 'no-1', 'no-2' do not exist")


NEEDS = """
from relance import App, RetryPolicy

app = App("shop", bootstrap_servers={bootstrap!r})
table = app.table("{topic}.state")

@app.consumer("{topic}", "{topic}.more", retry=RetryPolicy.fixed(), retry_topic="{topic}.retry",
              dead_letter_topic="{topic}.DLT")
def handle(value: bytes) -> None: ...
"""


def test_the_topics_of_an_app_are_made_once_and_what_differs_is_told(
    relance: Command, make_topic: MakeTopic, bootstrap: str, tmp_path: Path
) -> None:
    topic = make_topic("cli-ensure", 3)
    (tmp_path / "needs.py").write_text(NEEDS.format(bootstrap=bootstrap, topic=topic))

    def ensure(*options: str) -> list[str]:
        done = relance("topics", "ensure", "needs:app", *options, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.replace(topic, "T").splitlines()

    made = [
        "created T.more (source) with 1 partition",
        "created T.retry (retry) with 3 partitions",
        "created T.DLT (dead letter) with 3 partitions",
        "created T.state (table) with 1 partition",
    ]
    assert ensure("--dry-run") == [
        "T (source) is there",
        *(f"would {m.replace('ated', 'ate', 1)}" for m in made),
    ]
    assert ensure() == ["T (source) is there", *made]
    assert Admin(bootstrap).configs(f"{topic}.state")["cleanup.policy"] == "compact"
    assert ensure() == [f"T{end} is there" for end in (" (source)", ".more (source)", ".retry (retry)")] + [
        "T.DLT (dead letter) is there",
        "T.state (table) is there",
    ]
    assert ensure("--partitions", "6")[0] == "T (source) is there; it has 3 partitions, not 6"
    refused(relance("topics", "ensure", "nothing:app", cwd=tmp_path), 2, "there is no module 'nothing'")


def test_an_app_without_its_topics_names_them_all(
    relance: Command, make_topic: MakeTopic, bootstrap: str, tmp_path: Path
) -> None:
    topic = make_topic("cli-missing", 3)
    (tmp_path / "needs.py").write_text(NEEDS.format(bootstrap=bootstrap, topic=topic))
    done = relance("run", "needs:app", cwd=tmp_path)
    assert done.returncode == 1
    names = " ".join(f"{topic}.{end}" for end in ("more", "retry", "DLT"))
    assert f"relance topics create {names} --partitions 3 --bootstrap {bootstrap}" in done.stderr
    assert "scripts/" not in done.stderr


def test_nothing_is_deleted_without_a_yes(relance: Command, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("cli-kept")
    refused(relance("topics", "delete", topic), 2, "--yes", topic)
    assert Admin(bootstrap).watermarks(topic)


@pytest.mark.parametrize("words", [("delete", "no-such", "--yes"), ("describe", "no-such")])
def test_a_missing_topic_is_told_with_the_command_that_makes_it(
    relance: Command, words: tuple[str, ...]
) -> None:
    refused(relance("topics", *words), 1, "'no-such' does not exist", "relance topics create no-such")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("create", "../x"), "topic"),
        (("create", "t", "--partitions", "0"), "--partitions"),
        (("create", "t", "--config", "novalue"), "--config"),
        (("list", "--bootstrap", "nonsense"), "bootstrap"),
    ],
)
def test_a_wrong_word_is_named_with_status_2(relance: Command, words: tuple[str, ...], named: str) -> None:
    done = relance("topics", *words)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_away_is_one_line_with_its_address(relance: Command) -> None:
    refused(relance("topics", "list", "--bootstrap", "127.0.0.1:1"), 1, "127.0.0.1:1")


# -- produce ---------------------------------------------------------------------------------------------


def test_a_record_is_sent_with_key_and_headers_and_its_place_is_told(
    relance: Command, make_topic: MakeTopic, bootstrap: str
) -> None:
    topic = make_topic("cli-send", 6)
    done = relance("produce", topic, "--key", "ORD-1", "--value", '{"a": 1}', "-H", "h=v=w", "-H", "nul")
    (record,) = Browser(bootstrap).latest(topic, 5)
    assert done.stdout == f"{topic}  partition {record.partition}  offset 0\n"
    assert (record.key, record.value) == (b"ORD-1", b'{"a": 1}')
    assert record.headers == (("h", b"v=w"), ("nul", None))


def test_a_key_lands_where_javas_producers_put_it(relance: Command, make_topic: MakeTopic) -> None:
    # Kafka's own Utils.murmur2("21".getBytes()) is -973932308, made positive and modulo 6: partition 4.
    topic = make_topic("cli-murmur", 6)
    sent = json.loads(relance("produce", topic, "--key", "21", "--value", "x", "--json").stdout)
    assert sent["partition"] == (-973932308 & 0x7FFFFFFF) % 6


def test_lines_become_records_in_order(relance: Command, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("cli-lines")
    done = relance("produce", topic, "--json", stdin=b"one\n\ntwo\r\n\xff\xfe\nlast")
    assert [json.loads(line)["offset"] for line in done.stdout.splitlines()] == [0, 1, 2, 3, 4]
    values = [r.value for r in reversed(Browser(bootstrap).latest(topic, 9))]
    assert values == [b"one", b"", b"two", b"\xff\xfe", b"last"]


def test_lines_may_hold_keys(relance: Command, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("cli-keys")
    relance("produce", topic, "--key-separator", ":", stdin=b"k1:v:1\nalone\n:nokey\n")
    found = [(r.key, r.value) for r in reversed(Browser(bootstrap).latest(topic, 9))]
    assert found == [(b"k1", b"v:1"), (None, b"alone"), (b"", b"nokey")]


def test_a_raw_file_is_one_record_byte_for_byte(
    relance: Command, make_topic: MakeTopic, bootstrap: str, tmp_path: Path
) -> None:
    topic = make_topic("cli-raw")
    file = tmp_path / "raw"
    file.write_bytes(bytes(range(256)) + b"\r\n\n")
    assert relance("produce", topic, "--file", str(file), "--raw").returncode == 0
    assert [r.value for r in Browser(bootstrap).latest(topic, 9)] == [file.read_bytes()]


def test_arguments_that_are_not_utf_8_arrive_as_they_were_given(
    relance: Command, make_topic: MakeTopic, bootstrap: str
) -> None:
    topic = make_topic("cli-bytes")
    assert relance("produce", topic, "--value", b"\xff\xfe", "--key", b"\x80").returncode == 0
    assert [(r.key, r.value) for r in Browser(bootstrap).latest(topic, 9)] == [(b"\x80", b"\xff\xfe")]


def test_a_tombstone_is_a_null_value(relance: Command, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("cli-null")
    relance("produce", topic, "--key", "k", "--tombstone")
    assert [(r.key, r.value) for r in Browser(bootstrap).latest(topic, 9)] == [(b"k", None)]


def test_many_lines_are_all_acknowledged(relance: Command, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("cli-many", 3)
    done = relance("produce", topic, stdin=b"".join(b"%d\n" % i for i in range(5000)))
    assert len(done.stdout.splitlines()) == 5000
    assert Browser(bootstrap).count(topic) == 5000


def test_what_the_broker_refuses_is_told_as_not_written(relance: Command, make_topic: MakeTopic) -> None:
    topic = make_topic("cli-refused", cleanup_policy="compact")
    done = relance("produce", topic, "--value", "a compacted topic wants a key")
    refused(done, 1, topic, "it was not written")


def test_a_missing_topic_is_told_at_once(relance: Command) -> None:
    refused(relance("produce", "no-such", "--value", "x"), 1, "relance topics create no-such")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--value", "x", "--tombstone"), "--value"),
        (("--value", "x", "--file", "y"), "--value"),
        (("--file", "/no/such/file"), "--file"),
        (("--key", "k", "--key-separator", ":"), "--key"),
        (("--key-separator", ""), "--key-separator"),
        (("--value", "x", "-H", "=v"), "--header"),
    ],
)
def test_words_that_contradict_each_other_are_named(
    relance: Command, make_topic: MakeTopic, words: tuple[str, ...], named: str
) -> None:
    refused(relance("produce", make_topic("cli-words"), *words), 2, named)


def test_empty_input_is_said(relance: Command, make_topic: MakeTopic) -> None:
    done = relance("produce", make_topic("cli-empty"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing was sent" in done.stderr
