"""Settings from code, environment and file, and the rules between them."""

import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from relance import settings as module
from relance.errors import SettingsError
from relance.settings import Settings, check_setting


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "relance.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_settings_that_may_be_meant() -> None:
    settings = Settings()
    assert settings == Settings.load(env={})
    assert (settings.drain_timeout, settings.send_timeout, settings.max_buffered_records) == (
        8.0,
        10.0,
        None,
    )
    assert settings.bootstrap_servers == "localhost:9092"


def test_every_field_but_the_raw_settings_has_its_rules() -> None:
    own = {f.name for f in fields(Settings)} - {"client", "servers_from"}
    assert own == module._SETTINGS.keys()


def test_code_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    path = toml(
        tmp_path, '[relance]\ngroup = "file"\nstart = "latest"\ndrain_timeout = 5\nsend_timeout = 4.5\n'
    )
    env = {"RELANCE_GROUP": "env", "RELANCE_START": "fail", "RELANCE_SEND_TIMEOUT": "3"}
    settings = Settings.load(path, env, group="code")
    assert settings.group == "code"
    assert settings.start == "fail"
    assert settings.drain_timeout == 5.0
    assert settings.send_timeout == 3.0


@pytest.mark.parametrize(
    ("code", "own", "shared", "in_file", "expected", "origin"),
    [
        ("code:1", "own:1", "shared:1", "file:1", "code:1", "Settings.load(bootstrap_servers=...)"),
        (None, "own:1", "shared:1", "file:1", "own:1", "RELANCE_BOOTSTRAP_SERVERS"),
        (None, "", "shared:1", "file:1", "shared:1", "KAFKA_BOOTSTRAP_SERVERS"),
        (None, None, "shared:1", None, "shared:1", "KAFKA_BOOTSTRAP_SERVERS"),
        (None, None, "", "file:1", "file:1", "relance.toml"),
        (None, None, None, None, "localhost:9092", "the default"),
    ],
)
def test_the_address_has_one_precedence_and_says_where_it_came_from(
    tmp_path: Path,
    code: str | None,
    own: str | None,
    shared: str | None,
    in_file: str | None,
    expected: str,
    origin: str,
) -> None:
    names = {"RELANCE_BOOTSTRAP_SERVERS": own, "KAFKA_BOOTSTRAP_SERVERS": shared}
    env = {name: value for name, value in names.items() if value is not None}
    path = toml(tmp_path, f'[relance]\nbootstrap_servers = "{in_file}"\n') if in_file else None
    settings = Settings.load(path, env, bootstrap_servers=code)
    assert settings.bootstrap_servers == expected
    assert settings.servers_from.endswith(origin)


def test_a_shared_variable_that_loses_is_not_looked_at() -> None:
    env = {"KAFKA_BOOTSTRAP_SERVERS": "PLAINTEXT://0.0.0.0", "RELANCE_BOOTSTRAP_SERVERS": "kafka:9092"}
    assert Settings.load(env=env).bootstrap_servers == "kafka:9092"
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
        Settings.load(env={"KAFKA_BOOTSTRAP_SERVERS": "nonsense"})


def test_a_password_in_the_address_is_refused_and_not_quoted() -> None:
    with pytest.raises(SettingsError, match="without a user") as refused:
        Settings(bootstrap_servers="shop:hunter2@kafka:9092")
    assert "hunter2" not in str(refused.value)


def test_an_override_of_none_is_none_given() -> None:
    assert Settings.load(env={"RELANCE_GROUP": "env"}, group=None, client=None).group == "env"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, '[relance]\ngroup = "file"\n')
    assert Settings.load(env={"RELANCE_CONFIG": str(path)}).group == "file"


def test_the_processs_own_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELANCE_GROUP", "mine")
    assert Settings.load().group == "mine"


def test_strings_of_the_environment_are_parsed_and_empty_ones_ignored() -> None:
    env = {"RELANCE_MAX_BUFFERED_RECORDS": "500", "RELANCE_LOG_LEVEL": "debug", "RELANCE_GROUP": ""}
    settings = Settings.load(env=env)
    assert (settings.max_buffered_records, settings.log_level, settings.group) == (500, "DEBUG", None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('max_buffered_records = "3"', "must be an integer from 1 to 100000000, not '3'"),
        ("max_buffered_records = 3.0", "must be an integer"),
        ("max_buffered_records = true", "must be an integer"),
        ('drain_timeout = "8"', "must be a number of seconds"),
        ("drain_timeout = -1", "must be a number of seconds from 0 to 3600, not -1"),
        ("drain_timeout = nan", "must be a number"),
        ("drain_timeout = inf", "must be a number"),
        ("group = 3", "must be a string"),
        ("group = 1979-05-27", "must be a string"),
        ("group = [1]", "must be a string"),
        ('group = ""', "must be a text that is not empty, as 'orders-consumer-group'"),
        ('bootstrap_servers = "kafka"', "must be host:port"),
        ('bootstrap_servers = "kafka://localhost:9092"', "must be host:port, without kafka://"),
        ('assignor = "sticky"', "librdkafka has no eager sticky assignor"),
        ('assignor = "uniform"', "must be one of cooperative-sticky, range, roundrobin"),
        ('start = "Earliest"', "must be one of earliest, latest, fail"),
        ("client = 3", "is no setting of relance"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_with_file_and_key(
    tmp_path: Path, line: str, problem: str
) -> None:
    path = toml(tmp_path, f"[relance]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(path, {})
    assert caught.value.key == f"{path}: {line.split(' = ')[0]}"
    assert problem in caught.value.problem


def test_a_loop_that_is_not_installed_is_refused_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings(event_loop="uvloop").event_loop == "uvloop"
    monkeypatch.setattr("relance.settings.find_spec", lambda name: None)
    with pytest.raises(
        SettingsError, match=r"event_loop: uvloop is not installed; pip install 'relance\[uvloop\]'"
    ):
        Settings(event_loop="uvloop")
    assert Settings().event_loop == "auto"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RELANCE_DRAIN_TIMEOUT", "8s"),
        ("RELANCE_DRAIN_TIMEOUT", "-1"),
        ("RELANCE_MAX_BUFFERED_RECORDS", "1.5"),
        ("RELANCE_START", "beginning"),
        ("RELANCE_BOOTSTRAP_SERVERS", "localhost:"),
    ],
)
def test_a_wrong_variable_is_named_as_the_user_wrote_it(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env={variable: text})
    assert caught.value.key == variable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drain_timeout", None),
        ("drain_timeout", "8"),
        ("drain_timeout", math.nan),
        ("max_buffered_bytes", True),
        ("group", b"g"),
        ("client", [1]),
        ("log_level", "LOUD"),
    ],
)
def test_a_wrong_value_in_code_is_refused_too(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert caught.value.key == name


def test_all_that_is_wrong_anywhere_is_told_at_once(tmp_path: Path) -> None:
    path = toml(tmp_path, '[relance]\ngruop = "x"\nstart = 3\n[relance.client]\nplugin.library.paths = "x"\n')
    env = {"RELANCE_DRAIN_TIMEOUT": "soon", "RELANCE_CLIENT_SSL_CA_LOCATION": "/x"}
    with pytest.raises(SettingsError) as caught:
        Settings.load(path, env, bufer=3)
    assert [key.removeprefix(f"{path}: ") for key, _ in caught.value.problems] == [
        "gruop",
        "start",
        "client.plugin.library.paths",
        "RELANCE_CLIENT_SSL_CA_LOCATION",
        "RELANCE_DRAIN_TIMEOUT",
        "bufer",
    ]


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gruop: is no setting of relance; did you mean group\?"):
        Settings.load(toml(tmp_path, '[relance]\ngruop = "x"\n'), {})
    with pytest.raises(SettingsError, match=r"RELANCE_DRAIN_TIMOUT: .* did you mean RELANCE_DRAIN_TIMEOUT\?"):
        Settings.load(env={"RELANCE_DRAIN_TIMOUT": "3"})
    with pytest.raises(SettingsError, match=r"zzz: is no setting of relance$"):
        Settings.load(env={}, zzz=1)


def test_variables_that_only_share_the_prefix_are_left_alone() -> None:
    env = {
        "RELANCE_PORT": "tcp://10.0.0.1:80",
        "RELANCE_SERVICE_HOST": "10.0.0.1",
        "RELANCE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "RELANCE_RUN_DIR": "/tmp",
        "RELANCE_KAFKA_HOME": "/opt/kafka",
        "RELANCE_PYTHON": "python3",
    }
    assert Settings.load(env=env) == Settings()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[relance", "is not TOML"),
        (b"[relance]\ngroup = '\xff'", "is not TOML"),
        (b"[relance]\na = 1\na = 2", "is not TOML"),
        (b"[relance]\na = " + b"[" * 100_000, "is not TOML"),
        (b"[relance]\nmax_buffered_records = " + b"9" * 5000, "is not TOML"),
        (b"", "has no [relance] table"),
        (b"relance = 3", "has no [relance] table"),
    ],
)
def test_a_file_that_is_no_settings_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        Settings.load(path, {})
    assert caught.value.key == str(path)
    assert problem in caught.value.problem
    assert len(str(caught.value)) < 500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: cannot be read: No such file"):
        Settings.load(tmp_path / "missing.toml", {})


# -- rules between settings ---------------------------------------------------------------------------


def test_a_drain_stays_below_a_third_of_the_poll_interval() -> None:
    with pytest.raises(SettingsError, match="drain_timeout: 100 must be below a third of max_poll_interval"):
        Settings(drain_timeout=100.0)
    assert Settings(drain_timeout=99.0).drain_timeout == 99.0


def test_two_heartbeats_may_be_lost() -> None:
    with pytest.raises(
        SettingsError, match="heartbeat_interval: 3 must be at most a third of session_timeout"
    ):
        Settings(session_timeout=6.0)
    assert Settings(session_timeout=6.0, heartbeat_interval=2.0).session_timeout == 6.0


def test_the_session_is_not_longer_than_the_poll_interval() -> None:
    with pytest.raises(SettingsError, match="session_timeout: 60 must not be above max_poll_interval"):
        Settings(session_timeout=60.0, max_poll_interval=45.0)


# -- raw librdkafka settings --------------------------------------------------------------------------


def test_raw_settings_merge_by_the_same_order(tmp_path: Path) -> None:
    path = toml(tmp_path, '[relance.client]\nlinger.ms = 1\n"client.rack" = "a"\nsecurity.protocol = "SSL"\n')
    env = {"RELANCE_CLIENT_LINGER_MS": "2", "RELANCE_CLIENT_CLIENT_RACK": "b"}
    settings = Settings.load(path, env, client={"linger.ms": 3})
    assert settings.client == {"linger.ms": 3, "client.rack": "b", "security.protocol": "SSL"}


def test_code_may_set_what_a_file_may_not() -> None:
    assert (
        Settings(client={"ssl.ca.location": "/x", "test.mock.num.brokers": 3}).client["ssl.ca.location"]
        == "/x"
    )


def test_the_timeouts_have_one_place_by_whatever_name_code_sets_them() -> None:
    settings = Settings(client={"session.timeout.ms": 10_000, "heartbeat.interval.ms": "500", "linger.ms": 1})
    assert (settings.session_timeout, settings.heartbeat_interval) == (10.0, 0.5)
    assert settings.client == {"linger.ms": 1}
    with pytest.raises(SettingsError, match="heartbeat_interval: 5 must be at most a third"):
        Settings(client={"heartbeat.interval.ms": 5000})
    with pytest.raises(SettingsError, match=r"client\.session\.timeout\.ms: must be an integer"):
        Settings(client={"session.timeout.ms": "long"})


def test_a_file_says_the_timeouts_by_their_own_names(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"client\.session\.timeout\.ms: say session_timeout, in seconds"):
        Settings.load(toml(tmp_path, "[relance.client]\nsession.timeout.ms = 1\n"), {})


def test_a_promise_cannot_be_switched_off() -> None:
    with pytest.raises(SettingsError, match=r"client\.enable\.auto\.commit: is relance's own"):
        Settings(client={"enable.auto.commit": True})


def test_a_secret_in_a_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RELANCE_CLIENT_SASL_PASSWORD_FILE") as caught:
        Settings.load(toml(tmp_path, '[relance.client]\nsasl.password = "hunter2"\n'), {})
    assert "hunter2" not in str(caught.value)


def test_a_secret_comes_from_the_environment_or_from_a_file_it_names(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    for env in (
        {"RELANCE_CLIENT_SASL_PASSWORD": "hunter2"},
        {"RELANCE_CLIENT_SASL_PASSWORD_FILE": str(file)},
    ):
        settings = Settings.load(env=env)
        assert settings.client["sasl.password"] == "hunter2"
        assert "hunter2" not in repr(settings)


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2")
    env = {"RELANCE_CLIENT_SASL_PASSWORD": "a", "RELANCE_CLIENT_SASL_PASSWORD_FILE": str(file)}
    with pytest.raises(SettingsError, match="set one of them"):
        Settings.load(env=env)


def test_tables_in_tables_without_end_are_refused_like_any_unknown_name(tmp_path: Path) -> None:
    deep = ".".join(["a"] * 5000)
    with pytest.raises(SettingsError, match="may come from the settings file"):
        Settings.load(toml(tmp_path, f"[relance.client]\n{deep} = 1\n"), {})


# -- the object ---------------------------------------------------------------------------------------


def test_settings_are_frozen_comparable_hashable_and_can_be_pickled() -> None:
    settings = Settings(group="g", client={"linger.ms": 1})
    with pytest.raises(FrozenInstanceError):
        settings.group = "h"  # type: ignore[misc]
    assert settings == Settings(group="g", client={"linger.ms": 1})
    assert hash(settings) == hash(pickle.loads(pickle.dumps(settings)))
    assert replace(settings, group="h").client == {"linger.ms": 1}


@pytest.mark.parametrize("servers", ["a:9092", "a:1,b:65535", "[::1]:9092", "a:1, b:2", "SSL://a:9093"])
def test_servers_are_host_and_port(servers: str) -> None:
    assert Settings(bootstrap_servers=servers).bootstrap_servers == servers.replace(" ", "")


@pytest.mark.parametrize(
    "servers", ["", ":9092", "a", "a:0", "a:65536", "a:x", "a:9092,", "a b:1", "a:٣", "a\x00:1"]
)
def test_anything_else_is_not(servers: str) -> None:
    with pytest.raises(SettingsError, match="bootstrap_servers"):
        Settings(bootstrap_servers=servers)


def test_a_parameter_that_repeats_a_setting_is_checked_by_its_rules() -> None:
    assert check_setting("assignor", "range") == "range"
    with pytest.raises(SettingsError, match="no eager sticky"):
        check_setting("assignor", "sticky")
