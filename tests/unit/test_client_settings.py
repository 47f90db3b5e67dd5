"""Raw librdkafka settings: who may set what, and what is never shown."""

import pickle
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException

from relance.client_settings import (
    ALLOWED,
    SECRETS,
    ClientSettings,
    check_foreign,
    check_own,
    is_secret,
    read_reference,
)
from relance.errors import SettingsError


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("plugin.library.paths", "loads code"),
        ("sasl.kerberos.kinit.cmd", "runs a command"),
        ("ssl.ca.location", "makes the client read a file"),
        ("ssl.key.location", "makes the client read a file"),
        ("ssl.keystore.location", "makes the client read a file"),
        ("ssl.providers", "loads code"),
        ("ssl.engine.location", "makes the client read a file"),
        ("sasl.oauthbearer.token.endpoint.url", "reach out to an address"),
        ("https.ca.location", "makes the client read a file"),
        ("test.mock.num.brokers", "replaces the cluster"),
        ("enable.ssl.certificate.verification", "switches off a check"),
        ("ssl.endpoint.identification.algorithm", "switches off a check"),
        ("sasl.oauthbearer.config", "may come from"),
        ("enable.auto.commit", "relance commits by itself"),
        ("group.id", "say group"),
        ("error_cb", "callback"),
        ("opaque", "may come from"),
        ("", "may come from"),
    ],
)
def test_what_reaches_the_machine_is_not_taken_from_a_file_or_the_environment(key: str, why: str) -> None:
    for origin in ("environment", "settings file", "command line"):
        with pytest.raises(SettingsError, match=why):
            check_foreign(key, "x", origin=origin)


@pytest.mark.parametrize("key", sorted(SECRETS))
def test_a_secret_comes_from_the_environment_only_and_the_refusal_says_how(key: str) -> None:
    check_foreign(key, "hunter2", origin="environment")
    for origin in ("settings file", "command line"):
        with pytest.raises(SettingsError, match=r"RELANCE_CLIENT_[A-Z_]+_FILE") as caught:
            check_foreign(key, "hunter2", origin=origin)
        assert "hunter2" not in str(caught.value)


def test_the_allowed_ones_are_taken_from_anywhere() -> None:
    for key in ALLOWED - SECRETS:
        check_foreign(key, "1", origin="settings file")


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, b"x", object()])
def test_a_raw_value_is_a_string_a_number_or_a_bool(value: object) -> None:
    with pytest.raises(SettingsError, match="must be a string, a number, true or false"):
        check_foreign("linger.ms", value, origin="settings file")


def test_a_slip_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        SettingsError, match=r"client\.fetch\.queue\.backof\.ms: .*did you mean fetch\.queue\.backoff\.ms\?"
    ):
        check_foreign("fetch.queue.backof.ms", 1, origin="settings file")


@pytest.mark.parametrize(
    "key", ["bootstrap.servers", "enable.auto.offset.store", "transactional.id", "stats_cb"]
)
def test_even_code_may_not_set_what_a_promise_rests_on(key: str) -> None:
    with pytest.raises(SettingsError, match="is relance's own"):
        check_own(key)


def test_every_allowed_name_is_one_that_the_client_knows() -> None:
    unknown = []
    for key in sorted(ALLOWED):
        try:
            Consumer({"group.id": "g", key: "?"}).close()
        except KafkaException as error:  # most refuse the question mark, and that will do
            if "No such configuration property" in str(error):
                unknown.append(key)
    assert unknown == []


def test_settings_print_without_their_secrets() -> None:
    settings = ClientSettings(
        {"sasl.password": "hunter2", "ssl.keystore.password": "hunter2", "linger.ms": 5}
    )
    assert repr(settings) == "{'linger.ms': 5, 'sasl.password': '***', 'ssl.keystore.password': '***'}"
    assert "hunter2" not in f"{settings} {settings!r} {[settings]}"
    assert dict(settings)["sasl.password"] == "hunter2"


def test_settings_are_a_mapping_that_compares_and_pickles() -> None:
    settings = ClientSettings({"linger.ms": 5})
    assert settings == {"linger.ms": 5}
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert len(settings) == 1
    assert ClientSettings() == {}


@pytest.mark.parametrize("key", [*SECRETS, "ssl.keystore.password", "sasl.oauthbearer.config", "ssl.key.pem"])
def test_secrets_are_known_by_their_names(key: str) -> None:
    assert is_secret(key)
    assert not is_secret("sasl.username")


def test_a_secret_is_read_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" hunter2 \n")
    assert read_reference("V", str(file)) == " hunter2 "


def test_a_file_that_cannot_hold_a_secret_is_refused_without_quoting_it(tmp_path: Path) -> None:
    empty, binary, large = tmp_path / "e", tmp_path / "b", tmp_path / "l"
    empty.write_text("\n")
    binary.write_bytes(b"hunter2\xff")
    large.write_bytes(b"x" * 100_000)
    for path, problem in [
        (empty, "is empty"),
        (binary, "not UTF-8"),
        (large, "larger than"),
        (tmp_path, "there is no file"),
        (tmp_path / "missing", "there is no file"),
    ]:
        with pytest.raises(SettingsError, match=problem) as caught:
            read_reference("RELANCE_CLIENT_SASL_PASSWORD_FILE", str(path))
        assert caught.value.key == "RELANCE_CLIENT_SASL_PASSWORD_FILE"
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
