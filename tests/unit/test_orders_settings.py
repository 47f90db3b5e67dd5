from pathlib import Path

import pytest

from orders.settings import Settings, WrongSettingError
from relance import RetryPolicy


def test_the_defaults_are_the_courses() -> None:
    settings = Settings.load({})
    assert (settings.role, settings.host, settings.port) == ("api", "127.0.0.1", 18082)
    assert (settings.topic, settings.dlt_topic, settings.retry_topic) == (
        "orders",
        "orders.DLT",
        "orders.retry",
    )
    assert (settings.group_id, settings.start) == ("orders-consumer-group", "earliest")
    assert settings.bootstrap_servers == "localhost:9092"
    assert settings.retry_policy() == RetryPolicy.exponential(
        max_attempts=4, initial_delay=1.0, max_delay=300.0, multiplier=2.0, jitter_factor=0.2
    )


def test_the_second_consumer_has_a_port_of_its_own() -> None:
    assert Settings.load({"ORDERS_ROLE": "consumer"}).port == 18083


def test_the_command_line_wins_over_the_environment() -> None:
    settings = Settings.load({"ORDERS_ROLE": "api", "SERVER_PORT": "1"}, {"ORDERS_ROLE": "consumer"})
    assert (settings.role, settings.port) == ("consumer", 1)


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.load({"KAFKA_TOPIC": "", "MAX_RETRIES": ""}).max_retries == 3


def test_an_empty_environment_is_not_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "7")
    assert Settings.load({}).max_retries == 3
    assert Settings.load().max_retries == 7


@pytest.mark.parametrize(
    ("strategy", "delays"),
    [
        ("immediate", [0, 0, 0]),
        ("fixed", [1.5, 1.5, 1.5]),
        ("exponential", [1.5, 3.0, 4.0]),
        ("exponential-jitter", [1.5, 3.0, 4.0]),
    ],
)
def test_each_strategy_makes_its_policy(strategy: str, delays: list[float]) -> None:
    settings = Settings.load(
        {"RETRY_STRATEGY": strategy, "RETRY_BACKOFF_MS": "1500", "RETRY_MAX_BACKOFF_MS": "4000"}
    )
    assert settings.retry_policy().delays() == delays


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_this_machine_alone_needs_no_word(host: str) -> None:
    assert Settings.load({"SERVER_HOST": host}).host == host


def test_an_address_that_others_reach_is_taken_when_somebody_answers_for_it() -> None:
    told = {"SERVER_HOST": "0.0.0.0", "SERVER_INSECURE_BIND": "true"}
    assert Settings.load(told).host == "0.0.0.0"


def test_no_retries_is_one_attempt() -> None:
    assert Settings.load({"MAX_RETRIES": "0"}).retry_policy().delays() == []


def test_kafkas_word_none_is_relances_fail() -> None:
    assert Settings.load({"KAFKA_AUTO_OFFSET_RESET": "none"}).start == "fail"


def test_instances_of_one_role_differ_by_their_port() -> None:
    names = {Settings.load({"SERVER_PORT": port}).instance for port in ("18082", "18085")}
    assert len(names) == 2


@pytest.mark.parametrize("strategy", ["immediate", "fixed"])
def test_a_strategy_without_a_longest_wait_does_not_ask_for_one(strategy: str) -> None:
    Settings.load({"RETRY_STRATEGY": strategy, "RETRY_BACKOFF_MS": "999999"}).retry_policy()


@pytest.mark.parametrize(
    ("variables", "expected", "origin"),
    [
        (
            {"RELANCE_BOOTSTRAP_SERVERS": "own:1", "KAFKA_BOOTSTRAP_SERVERS": "shared:1"},
            "own:1",
            "RELANCE_BOOTSTRAP_SERVERS",
        ),
        ({"KAFKA_BOOTSTRAP_SERVERS": "shared:1"}, "shared:1", "KAFKA_BOOTSTRAP_SERVERS"),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "file:1", "relance.toml"),
    ],
)
def test_the_cluster_is_found_as_every_app_finds_it(
    tmp_path: Path, variables: dict[str, str], expected: str, origin: str
) -> None:
    path = tmp_path / "relance.toml"
    path.write_text('[relance]\nbootstrap_servers = "file:1"\n')
    settings = Settings.load({**variables, "RELANCE_CONFIG": str(path)})
    assert settings.bootstrap_servers == expected
    assert settings.servers_from.endswith(origin)


def test_an_option_wins_over_both_variables_and_a_wrong_file_is_named() -> None:
    env = {"RELANCE_BOOTSTRAP_SERVERS": "own:1"}
    assert Settings.load(env, {"KAFKA_BOOTSTRAP_SERVERS": "option:1"}).bootstrap_servers == "option:1"
    with pytest.raises(WrongSettingError, match=r"^RELANCE_CONFIG="):
        Settings.load({"RELANCE_CONFIG": "/no/such/file"})


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("ORDERS_ROLE", "boss", "api, consumer"),
        ("SERVER_PORT", "65536", "0 to 65535"),
        ("SERVER_PORT", "-1", "0 to 65535"),
        ("SERVER_PORT", "80 82", "whole number"),
        ("SERVER_HOST", "no such host", "address"),
        ("SERVER_HOST", "0.0.0.0", "no login"),
        ("SERVER_HOST", "::", "no login"),
        ("SERVER_HOST", "192.0.2.1", "SERVER_INSECURE_BIND=true"),
        ("SERVER_INSECURE_BIND", "yes", "true, false"),
        ("RELANCE_BOOTSTRAP_SERVERS", "localhost", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:0", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092,", "host:port"),
        ("KAFKA_TOPIC", "../x", "topic name"),
        ("KAFKA_TOPIC", "..", "topic name"),
        ("KAFKA_TOPIC", "or\0ders", "topic name"),
        ("KAFKA_DLT_TOPIC", "orders", "must differ from KAFKA_TOPIC"),
        ("KAFKA_RETRY_TOPIC", "orders.DLT", "must differ from KAFKA_DLT_TOPIC"),
        ("KAFKA_GROUP_ID", "a b", "letters"),
        ("KAFKA_AUTO_OFFSET_RESET", "newest", "earliest, latest, none"),
        ("INSTANCE_NAME", "a/b", "letters"),
        ("MAX_RETRIES", "three", "whole number from 0 to 100"),
        ("MAX_RETRIES", "101", "whole number from 0 to 100"),
        ("MAX_RETRIES", "3.5", "whole number"),
        ("MAX_RETRIES", "9" * 5000, "whole number"),
        ("RETRY_BACKOFF_MS", "-1", "milliseconds"),
        ("RETRY_MAX_BACKOFF_MS", "999", "at least RETRY_BACKOFF_MS, which is 1000"),
        ("RETRY_MULTIPLIER", "nan", "from 1 to 100"),
        ("RETRY_MULTIPLIER", "0.5", "from 1 to 100"),
        ("RETRY_JITTER", "inf", "from 0 to 1"),
        ("RETRY_JITTER", "1.1", "from 0 to 1"),
        ("RETRY_STRATEGY", "random", "immediate, fixed, exponential, exponential-jitter"),
    ],
)
def test_a_wrong_setting_names_the_key_the_value_and_what_is_allowed(key: str, value: str, hint: str) -> None:
    with pytest.raises(WrongSettingError) as caught:
        Settings.load({key: value})
    text = str(caught.value)
    assert text.startswith(f"{key}=")
    assert repr(value)[:50] in text
    assert hint in text
    assert "\n" not in text
