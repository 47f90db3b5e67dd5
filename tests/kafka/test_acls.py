"""docs/acls.md, row by row, on a broker that allows what an ACL says and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from tests.browser.console_process import console

from relance import App, Record, RetryPolicy, Settings, TransientError
from relance.broker import LocalBroker, sasl_plain
from relance.errors import RelanceError
from relance.kafka.cluster import QuietLog
from waiting import wait_until

PASSWORDS = {"admin": "admin-secret", "user": "user-secret"}
PAGE = Path(__file__).parents[2] / "docs" / "acls.md"
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id, prefixed": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


class Row(NamedTuple):
    """A row of the page."""

    why: str
    kind: str
    name: str
    rights: tuple[str, ...]


def rows(begin: str, end: str) -> list[Row]:
    """Of the tables between two texts of the page."""
    found: list[Row] = []
    for line in PAGE.read_text().split(begin)[1].split(end)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
        if cells and cells[0] != "For":
            found.append(Row(cells[0] or found[-1].why, cells[1], cells[2], tuple(cells[3].split(", "))))
    return found


NEEDED = rows("## A consumer", "Not needed")
TOOLS = rows("## The command line and the console", "\n## ")


def client(user: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": user,
        "sasl.password": PASSWORDS[user],
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    local = LocalBroker(
        tmp_path_factory.mktemp("acls"), port=0, config=sasl_plain(PASSWORDS, acls=True), say=print
    )
    try:
        local.start()
        yield local
    finally:
        local.purge()


@pytest.fixture(scope="module")
def admin(broker: LocalBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap, **client("admin")}, logger=QuietLog())


@pytest.fixture
def allow(admin: AdminClient) -> Iterator[Callable[[Collection[Row], dict[str, str]], None]]:
    """`allow(rows, names)`: these and no others; `names` are the resources' names, by what the page says."""

    everything = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        "User:user",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )

    def give(given: Collection[Row], names: dict[str, str]) -> None:
        bindings = [
            AclBinding(
                KINDS[row.kind],
                names[row.name],
                ResourcePatternType.PREFIXED if "prefixed" in row.kind else ResourcePatternType.LITERAL,
                "User:user",
                "*",
                OPERATIONS[right],
                AclPermissionType.ALLOW,
            )
            for row in given
            for right in row.rights
        ]
        for done in admin.create_acls(bindings).values():
            done.result(10.0)
        wait_until(lambda: len(admin.describe_acls(everything).result(10.0)) == len(bindings))

    yield give
    for removed in admin.delete_acls([everything]).values():
        removed.result(10.0)
    wait_until(lambda: not admin.describe_acls(everything).result(10.0))


def make(admin: AdminClient, *names: str) -> None:
    for made in admin.create_topics([NewTopic(name, 1) for name in names], operation_timeout=10.0).values():
        made.result(15.0)


def consumer_names(base: str) -> dict[str, str]:
    return {
        "each source topic": f"{base}.orders",
        "`<group>`": f"{base}-group",
        "the retry topic": f"{base}.retry",
        "`<group>.retry`": f"{base}-group.retry",
        "the dead-letter topic": f"{base}.dlt",
        "each topic they send to": f"{base}.out",
    }


def an_app(bootstrap: str, names: dict[str, str], handoff: Any) -> tuple[App, list[int]]:
    """One that does all that the first table is about."""
    settings = Settings(
        bootstrap_servers=bootstrap, session_timeout=6.0, heartbeat_interval=0.5, start_timeout=4.0
    )
    app = App(names["`<group>`"], settings=settings, client=client("user"))
    handled: list[int] = []

    @app.consumer(
        names["each source topic"],
        retry=RetryPolicy.fixed(max_attempts=2, delay=0.1),
        retry_topic=names["the retry topic"],
        dead_letter_topic=names["the dead-letter topic"],
        max_in_memory_wait=0.0,
        handoff=handoff,
    )
    async def handle(value: int, record: Record) -> None:
        if value < 0:
            raise TransientError("negative")
        record.send(names["each topic they send to"], value)
        handled.append(value)

    return app, handled


def send(bootstrap: str, topic: str, *values: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, **client("admin")})
    for value in values:
        producer.produce(topic, str(value))
    assert producer.flush(10.0) == 0


@pytest.mark.parametrize("handoff", ["acknowledged", "transactional"])
def test_with_what_the_page_lists_a_consumer_does_all_it_can(
    broker: LocalBroker, admin: AdminClient, allow: Any, handoff: str
) -> None:
    names = consumer_names(f"all-{handoff}")
    make(admin, *(name for what, name in names.items() if "topic" in what))
    allow([row for row in NEEDED if handoff in row.why or "handoff" not in row.why], names)
    send(broker.bootstrap, names["each source topic"], 1, -1, 2)
    app, handled = an_app(broker.bootstrap, names, handoff)

    async def main() -> None:
        async with app.running():
            await asyncio.to_thread(
                wait_until, lambda: handled == [1, 2] and app.stats().dead_lettered == 1, 20.0
            )
            assert app.health().status == "UP"

    asyncio.run(main())


@pytest.mark.parametrize("missing", NEEDED, ids=lambda row: f"{row.name} for {row.why}")
def test_without_one_of_them_the_error_names_the_acl(
    broker: LocalBroker, admin: AdminClient, allow: Any, missing: Row
) -> None:
    names = consumer_names(f"without-{NEEDED.index(missing)}")
    make(admin, *(name for what, name in names.items() if "topic" in what))
    allow([row for row in NEEDED if row != missing], names)
    send(broker.bootstrap, names["each source topic"], 1, -1)
    app, _ = an_app(broker.bootstrap, names, "transactional" if "handoff" in missing.why else "acknowledged")
    told: list[str] = []
    stopping_since = time.monotonic()

    async def main() -> None:
        nonlocal stopping_since
        try:
            async with app.running():
                await asyncio.to_thread(wait_until, lambda: app.health().reasons, 20.0)
                stopping_since = time.monotonic()
                told.extend(app.health().reasons)
        except RelanceError as error:
            told.append(str(error))

    asyncio.run(main())
    took = time.monotonic() - stopping_since
    assert took < 6.0, "nobody waits for what cannot be, as long as a drain may take"
    named = " ".join(told)
    assert names[missing.name] in named
    assert "ACL" in named
    # Before anything is read or written it is asked for, which both Read and Write allow.
    assert any(right in named for right in missing.rights)


def relance(broker: LocalBroker, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        f"RELANCE_CLIENT_{key.upper().replace('.', '_')}": value for key, value in client("user").items()
    }
    return subprocess.run(
        [sys.executable, "-m", "relance.cli.main", *words, "--bootstrap", broker.bootstrap],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


COMMANDS = {
    "list": ["topics", "list"],
    "describe": ["topics", "describe", "TOPIC"],
    "create": ["topics", "create", "TOPIC"],
    "delete": ["topics", "delete", "TOPIC", "--yes"],
    "produce": ["produce", "TOPIC", "--value", "1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_needs_what_the_page_says(
    broker: LocalBroker, admin: AdminClient, allow: Any, command: str
) -> None:
    topic = f"command-{command}"
    if command != "create":
        make(admin, topic)
    words = [topic if word == "TOPIC" else word for word in COMMANDS[command]]
    refused = relance(broker, *words)
    if command == "list":
        assert topic not in refused.stdout
    else:
        assert refused.returncode == 1
        assert "ACL" in refused.stderr
        assert topic in refused.stderr
    [row] = [
        row
        for row in TOOLS
        if row.why == f"`relance {' '.join(w for w in COMMANDS[command][:2] if w != 'TOPIC')}`"
    ]
    allow([row], {row.name: topic})
    done = relance(broker, *words)
    assert done.returncode == 0, done.stderr
    assert topic in done.stdout


def test_the_console_shows_what_the_page_says(
    broker: LocalBroker, admin: AdminClient, allow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(admin, "console-topic")
    send(broker.bootstrap, "console-topic", 4711)
    for key, value in client("user").items():
        monkeypatch.setenv(f"RELANCE_CLIENT_{key.upper().replace('.', '_')}", value)
    pages = [row for row in TOOLS if "pages" in row.why]
    allow(pages, {row.name: "console-group" if row.kind == "group" else "console-topic" for row in pages})
    with console(broker.bootstrap) as web, httpx.Client(base_url=web.url, timeout=20) as browser:
        assert "console-topic" in browser.get("/topics").text
        page = browser.get("/topics/console-topic").text
        assert "4711" in page, page
        assert browser.get("/groups").status_code == 200
        web.process.terminate()
        web.process.communicate(timeout=10)
