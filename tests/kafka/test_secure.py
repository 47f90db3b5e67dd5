"""TLS, logging in, and what is allowed: on brokers of their own, with keys made for the test."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from tests.browser.console_process import RELANCE, console

from relance import App, Settings
from relance.broker import LocalBroker, sasl_plain
from relance.errors import BrokerUnavailableError
from relance.kafka.admin import Admin
from relance.kafka.config import common_config
from waiting import wait_until

PASSWORDS = {"admin": "admin-secret-1f", "reader": "reader-secret-2e"}


def keytool(*words: str, cwd: Path) -> None:
    subprocess.run(["keytool", *words], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the broker's key (`keys.p12`) and its certificate (`ca.pem`)."""
    folder = tmp_path_factory.mktemp("keys")
    keytool(
        *("-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-keysize", "2048", "-validity", "2"),
        *("-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "bc:c"),
        *("-keystore", "keys.p12", "-storetype", "PKCS12", "-storepass", "changeit"),
        cwd=folder,
    )
    keytool(
        *("-exportcert", "-rfc", "-alias", "broker", "-file", "ca.pem"),
        *("-keystore", "keys.p12", "-storepass", "changeit"),
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="module")
def secure(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker that takes clients by TLS with a password only, and allows them what an ACL says."""
    plain = sasl_plain(PASSWORDS, acls=True)
    config = plain | {
        "listener.security.protocol.map": plain["listener.security.protocol.map"].replace(
            "SASL_PLAINTEXT", "SASL_SSL"
        ),
        "ssl.keystore.location": str(keys / "keys.p12"),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.password": "changeit",
    }
    broker = LocalBroker(tmp_path_factory.mktemp("secure"), port=0, config=config, say=print)
    try:
        broker.start()
        yield broker
    finally:
        broker.purge()


def client(keys: Path, user: str, **more: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": user,
        "sasl.password": PASSWORDS[user],
        "ssl.ca.location": str(keys / "ca.pem"),
        **more,
    }


@pytest.fixture(scope="module")
def topics(secure: LocalBroker, keys: Path) -> tuple[str, str, str]:
    """A source, a dead-letter topic that `reader` may write, and one that it may not."""
    names = ("secure-orders", "secure-orders.DLT", "secure-orders.forbidden")
    admin = AdminClient({"bootstrap.servers": secure.bootstrap, **client(keys, "admin")})
    for made in admin.create_topics([NewTopic(name, 1) for name in names], operation_timeout=10.0).values():
        made.result(15.0)

    def allow(kind: ResourceType, name: str, *operations: AclOperation) -> list[AclBinding]:
        return [
            AclBinding(
                kind,
                name,
                ResourcePatternType.PREFIXED if kind is ResourceType.GROUP else ResourcePatternType.LITERAL,
                "User:reader",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]

    source, letters, forbidden = names
    rules = [
        *allow(ResourceType.TOPIC, source, AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE),
        *allow(ResourceType.TOPIC, letters, AclOperation.WRITE, AclOperation.READ, AclOperation.DESCRIBE),
        *allow(ResourceType.TOPIC, forbidden, AclOperation.DESCRIBE),
        *allow(ResourceType.GROUP, "g-", AclOperation.READ, AclOperation.DESCRIBE),
    ]
    for done in admin.create_acls(rules).values():
        done.result(15.0)
    return names


def application(secure: LocalBroker, keys: Path, group: str, **more: str) -> App:
    settings = Settings(
        bootstrap_servers=secure.bootstrap,
        session_timeout=6.0,
        heartbeat_interval=0.5,
        commit_interval=0.2,
        start_timeout=5.0,
    )
    return App(group, settings=settings, client=client(keys, "reader", **more))


async def until(condition: object, timeout: float = 20.0) -> None:
    await asyncio.to_thread(wait_until, condition, timeout)


def test_records_are_handled_and_dead_lettered_over_tls_with_a_password(
    secure: LocalBroker, keys: Path, topics: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source, letters, _ = topics
    app = application(secure, keys, "g-good", debug="security,broker,protocol,conf")
    handled: list[int] = []

    @app.consumer(source, dead_letter_topic=letters)
    async def handle(value: int) -> None:
        if value < 0:
            raise ValueError("negative")
        handled.append(value)

    async def main() -> None:
        async with app.running():
            for value in (1, -1, 2):
                await app.send(source, value)
            await until(lambda: handled == [1, 2])
            await until(lambda: app.dead_letters(letters).count() == 1)
            assert app.health().status == "UP"
            assert "secret" not in f"{app.health()} {app.stats()} {app.settings!r}"

    asyncio.run(main())
    assert "secret" not in caplog.text


def test_a_dead_letter_topic_that_is_forbidden_stops_the_partition_and_health_says_why(
    secure: LocalBroker, keys: Path, topics: tuple[str, str, str]
) -> None:
    source, _, forbidden = topics
    app = application(secure, keys, "g-forbidden")
    handled: list[int] = []

    @app.consumer(source, dead_letter_topic=forbidden, start="latest")
    async def handle(value: int) -> None:
        if value < 0:
            raise ValueError("negative")
        handled.append(value)

    async def main() -> None:
        async with app.running():
            await until(lambda: bool(app.assignment()))
            for value in (-7, 8):
                await app.send(source, value)
            await until(lambda: app.health().status == "DOWN")
            [reason] = app.health().reasons
            assert forbidden in reason
            assert "TOPIC_AUTHORIZATION_FAILED" in reason

    asyncio.run(main())
    asked = Admin(secure.bootstrap, client(keys, "admin"))
    stored = [found.offset for tp, found in asked.committed("g-forbidden").items() if tp.topic == source]
    end = asked.watermarks(source)[0].end
    assert all(offset <= end - 2 for offset in stored)  # never past the record that cannot be given up


def test_what_a_topic_takes_is_found_out_where_nobody_may_ask(
    secure: LocalBroker, keys: Path, topics: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without DescribeConfigs: batches of letters that the topic refuses, each of them small enough."""
    source, letters, _ = topics
    admin = AdminClient({"bootstrap.servers": secure.bootstrap, **client(keys, "admin")})
    entry = ConfigEntry("max.message.bytes", "5000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, letters, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10.0)
    app = application(secure, keys, "g-found-out")

    @app.consumer(source, dead_letter_topic=letters, start="latest", concurrency=50, ordering="none")
    async def handle(value: int) -> None:
        raise ValueError("x" * 300)

    async def main() -> int:
        looking = app.dead_letters(letters)
        async with app.running():
            await until(lambda: bool(app.assignment()))
            before = await asyncio.to_thread(looking.count)
            for delivery in [app.send(source, value) for value in range(200)]:
                await delivery
            await until(lambda: looking.count() >= before + 200)
            assert app.health().status == "UP"
            return await asyncio.to_thread(looking.count) - before

    assert asyncio.run(main()) == 200
    told = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "relance.dlt"]
    assert [r.getMessage() for r in told] == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sasl.password": "nonsense-3d"}, "Invalid username or password"),
        ({"security.protocol": "SASL_PLAINTEXT"}, "connection closed by peer"),
        ({"ssl.ca.location": ""}, "ssl.ca.location"),
    ],
    ids=["password", "no TLS", "unknown certificate"],
)
def test_who_cannot_get_in_is_told_so_and_no_secret_is_shown(
    secure: LocalBroker,
    keys: Path,
    topics: tuple[str, str, str],
    wrong: dict[str, str],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    given = client(keys, "reader") | wrong
    if not given["ssl.ca.location"]:
        del given["ssl.ca.location"]
    settings = Settings(bootstrap_servers=secure.bootstrap, start_timeout=3.0)
    app = App("g-wrong", settings=settings, client=given)

    @app.consumer(topics[0])
    async def handle(value: int) -> None:
        """Nothing comes this far."""

    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == 1
    [last] = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert secure.bootstrap in last
    assert why in last
    assert "security.protocol" in last
    assert not any(password in caplog.text for password in (*PASSWORDS.values(), "nonsense-3d"))


# -- the environment, the command line, the web console ---------------------------------------------------


@pytest.fixture
def signed_in(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The way in by environment alone, the password in a file; returns that file."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORDS["reader"] + "\n")
    monkeypatch.setenv("RELANCE_CLIENT_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("RELANCE_CLIENT_SASL_MECHANISMS", "PLAIN")
    monkeypatch.setenv("RELANCE_CLIENT_SASL_USERNAME", "reader")
    monkeypatch.setenv("RELANCE_CLIENT_SASL_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("RELANCE_CLIENT_SSL_CA_PEM", (keys / "ca.pem").read_text())
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    return secret


def test_the_environment_signs_in_the_command_line_and_the_console_and_neither_shows_a_secret(
    secure: LocalBroker, topics: tuple[str, str, str], signed_in: Path
) -> None:
    command = [str(RELANCE), "topics", "list", "--bootstrap", secure.bootstrap]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert topics[0] in listed.stdout, listed.stderr
    seen = [listed.stdout, listed.stderr]
    with console(secure.bootstrap) as web, httpx.Client(base_url=web.url, timeout=20) as client:
        assert client.get("/health").json()["status"] == "UP"
        assert topics[0] in client.get("/topics").text
        for path in ("/", "/topics", f"/topics/{topics[0]}", "/groups", "/nothing", "/api/topics", "/health"):
            answer = client.get(path)
            seen += [answer.text, str(answer.headers)]
        web.process.terminate()
        seen += web.process.communicate(timeout=10)
    signed_in.write_text("nonsense-3d")
    settings = Settings.load(bootstrap_servers=secure.bootstrap)
    with pytest.raises(BrokerUnavailableError, match="Invalid username or password") as refused:
        Admin(secure.bootstrap, common_config(settings), timeout=1.5).topics()
    seen += [str(refused.value), repr(refused.value)]
    assert not [text for text in seen if any(word in text for word in (*PASSWORDS.values(), "nonsense-3d"))]
    assert not [text for text in seen if "BEGIN CERTIFICATE" in text]
