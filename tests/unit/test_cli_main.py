"""The command line: quick help, one line for each error, honest exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types

import pytest
import typer
from broker_fakes import kafka, listening

from relance.cli import main as cli
from relance.errors import BrokerUnavailableError, SettingsError


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(words)` → (exit code, stdout, stderr); `run.command(function)` adds the command `try`."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    def command(target: object) -> None:
        module = types.ModuleType("a_command")
        module.target = target
        monkeypatch.setitem(sys.modules, "a_command", module)
        monkeypatch.setitem(cli.COMMANDS, "try", ("a_command:target", "Try it."))

    call.command = command
    return call


def raising(error: BaseException):
    def target() -> None:
        raise error

    return target


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help_lists_every_command_with_its_line(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    for name, (_, line) in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", out, re.MULTILINE)


def test_without_a_word_it_is_wrong_usage_and_shows_the_help(run):
    code, out, _ = run()
    assert code == 2
    assert "Commands:" in out


def test_the_version_is_the_packages(run):
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"relance \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_is_there_and_has_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"relance {name}" in out


def test_help_imports_no_command_and_nothing_heavy():
    code = (
        "import sys; from relance.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('confluent_kafka', 'typer', 'rich', 'starlette', 'fastapi', 'uvicorn', 'jinja2')\n"
        "ours = [m for m in sys.modules if m.startswith('relance.cli.') and m != 'relance.cli.main']\n"
        "print(ours + [m for m in heavy if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("brokr",), r"no command 'brokr'; did you mean 'broker'\?"),
        (("xyz",), r"no command 'xyz'; the commands are .*broker.*"),
        (("broker", "strat"), r"No such command 'strat'.*\(see relance broker --help\)"),
        (("broker", "start", "--nodes", "many"), r"Invalid value for '--nodes'.*"),
        (("broker", "start", "--nodse", "1"), r"No such option: --nodse.*"),
        (("broker", "start", "--config", "x"), r"--config: must be NAME=VALUE, not 'x'"),
        (("topics", "create", "t", "--config", "=x"), r"--config: must be NAME=VALUE, not '=x'"),
        (("run", "--log-level", "foo", "a:b"), r"--log-level: must be one of DEBUG, .*, not 'FOO'"),
        (("produce", "t", "--key", "k", "--key-separator", ":"), r"--key: goes without --key-separator.*"),
        (("produce", "t", "--raw", "--key-separator", ":"), r"--raw: goes without --key-separator.*"),
        (("produce", "t", "--raw", "--value", "v"), r"--raw: is for what is read from --file or stdin"),
        (
            ("produce", "t", "--value", "v", "-H", "\udcff=1"),
            r"--header: must be NAME=VALUE.*a name is UTF-8",
        ),
        (("run", ".x:app"), r"MODULE:APP: '\.x:app' lacks a part, as in shop\.orders:app"),
        (("run", "x"), r"MODULE:APP: 'x' lacks a part, as in x:app"),
        (("produce", "t", "--raw", "--tombstone"), r"--raw: is for what is read from --file or stdin"),
        (
            ("produce", "t", "--value", "v", "--key-separator", ":"),
            r"--key-separator: is for what is read from --file or stdin",
        ),
        (("broker", "start", "--bootstrap", "x"), r"--bootstrap: must be HOST:PORT, not 'x'"),
        (("broker", "start", "--bootstrap", "x:99999"), r"--bootstrap: must be HOST:PORT, not 'x:99999'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, line):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"relance: {line}\n", err)


def test_a_group_without_a_word_shows_its_help(run):
    code, *said = run("broker")
    assert code == 2
    assert re.search(r"start .*stop ", "".join(said), re.DOTALL)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            SettingsError("retry.max_attempts", "must be at least 1"),
            2,
            "retry.max_attempts: must be at least 1",
        ),
        (BrokerUnavailableError("nobody\nis there"), 1, "nobody is there"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "/x: No such file or directory"),
        (PermissionError(13, "Permission denied"), 1, "system: Permission denied"),
        (typer.BadParameter("that is none"), 2, "Invalid value: that is none (see relance try --help)"),
        (typer.Abort(), 1, "not confirmed"),
        (BrokerUnavailableError("\x1b[2Jit said \x9b31m\u202e"), 1, "␛[2Jit said ⟨U+009B⟩31m⟨U+202E⟩"),
        (ZeroDivisionError("oh"), 1, "unexpected ZeroDivisionError: oh (RELANCE_TRACEBACK=1 shows where)"),
    ],
)
def test_what_goes_wrong_is_one_line(run, monkeypatch, error, code, line):
    monkeypatch.delenv("RELANCE_TRACEBACK", raising=False)
    run.command(raising(error))
    assert run("try") == (code, "", f"relance: {line}\n")


# -- settings that cannot be meant, as each command meets them ---------------------------------------------

EVIL = "!!python/object/apply:pathlib.Path.touch [owned]"
FILES = {
    "an unknown key": ('[relance]\ngruop = "g"', "gruop"),
    "a number as a text": ('[relance]\nmax_buffered_records = "3"', "max_buffered_records"),
    "a negative time": ("[relance]\ndrain_timeout = -1", "drain_timeout"),
    "two that contradict": (
        "[relance]\nsession_timeout = 6\nheartbeat_interval = 5",
        "heartbeat_interval",
    ),
    "a setting off the list": (
        '[relance.client]\n"plugin.library.paths" = "evil.so"',
        "plugin.library.paths",
    ),
    "a secret": ('[relance.client]\n"sasl.password" = "hunter2"', "sasl.password"),
    "a value that the client refuses": ('[relance.client]\n"linger.ms" = "soon"', "linger.ms"),
    "YAML that builds objects": (f"{EVIL}\n", "settings.toml"),
    "YAML in the place of a number": (f'[relance]\ndrain_timeout = "{EVIL}"', "drain_timeout"),
    "a date where a text belongs": ("[relance]\ngroup = 1979-05-27", "group"),
    "brackets without end": ("[relance]\ngroup = " + "[" * 50_000, "settings.toml"),
    "no text at all": ("\0\ufffe", "settings.toml"),
    "terminal escapes": ('[relance]\n"\\u001b[2J" = 1', "␛[2J"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["topics list", "produce t --value v", "console --port 0"])
def test_a_wrong_settings_file_is_status_2_and_one_line_that_names_the_key(
    run, monkeypatch, tmp_path, command, name
):
    text, key = FILES[name]
    file = tmp_path / "settings.toml"
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELANCE_CONFIG", str(file))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    code, out, err = run(*command.split())
    assert (code, out) == (2, ""), err
    assert key in err
    assert len(err.splitlines()) == 1
    assert err.removesuffix("\n").isprintable()
    assert "hunter2" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RELANCE_GRUOP", "g"),
        ("RELANCE_DRAIN_TIMEOUT", "-1"),
        ("RELANCE_DRAIN_TIMEOUT", "9" * 5000),
        ("RELANCE_START", "\x1b[2J"),
        ("RELANCE_GROUP", "\udcff"),
        ("RELANCE_CLIENT_SSL_CA_LOCATION", "/etc/shadow"),
        ("RELANCE_CLIENT_LINGER_MS", "soon"),
        ("RELANCE_CLIENT_SASL_PASSWORD_FILE", "/no/such/file"),
        ("RELANCE_CONFIG", "/no/such/file"),
        ("KAFKA_BOOTSTRAP_SERVERS", "nonsense"),
    ],
)
def test_a_wrong_variable_is_status_2_and_one_line_that_names_it(run, monkeypatch, variable, value):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv(variable, value)
    code, out, err = run("topics", "list")
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    also = {
        "RELANCE_CONFIG": value,
        "RELANCE_CLIENT_LINGER_MS": "client.linger.ms",
    }
    assert also.get(variable, variable) in err
    assert len(err) < 500


APPS = {
    "a dead-letter topic that is the source": (
        'App("g").consumer("orders", dead_letter_topic="orders")',
        "dead_letter_topic",
    ),
    "a retry topic that is the dead letters'": (
        'App("g").consumer("orders", retry_topic="x", dead_letter_topic="x")',
        "dead_letter_topic",
    ),
    "attempts as a text": ('RetryPolicy.exponential(max_attempts="3")', "max_attempts"),
    "a negative delay": ("RetryPolicy.fixed(-1)", "delay"),
    "a longest delay below the first": (
        "RetryPolicy.exponential(initial_delay=10, max_delay=1)",
        "max_delay",
    ),
    "a promise switched off": (
        'App("g", client={"enable.auto.commit": True})',
        "client.enable.auto.commit",
    ),
    "an unknown option": ('App("g", settings=Settings.load(bufer=3))', "bufer"),
}


@pytest.mark.parametrize("name", APPS)
def test_an_application_with_a_wrong_setting_is_status_2_and_one_line(run, monkeypatch, tmp_path, name):
    line, key = APPS[name]
    (tmp_path / "wrong_app.py").write_text(f"from relance import App, RetryPolicy, Settings\n\n{line}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "wrong_app", raising=False)
    code, out, err = run("run", "wrong_app:app")
    assert (code, out) == (2, ""), err
    assert err.startswith(f"relance: {key}: ")
    assert len(err.splitlines()) == 1


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Writes the lines of the module `user_app`, to be imported from the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "user_app", raising=False)
    return (tmp_path / "user_app.py").write_text


BEGINNING = 'import asyncio\nfrom relance import App\napp = App("g")\n'


@pytest.mark.parametrize(
    "end",
    [
        "app.run()\n",
        '@app.consumer("t")\ndef h(x: str) -> None: ...\napp.run()\n',
        "async def main():\n    async with app.running(): ...\nasyncio.run(main())\n",
    ],
)
@pytest.mark.parametrize("words", [("run",), ("topics", "ensure")])
def test_a_module_whose_import_runs_its_app_is_told_of_the_guard(run, written, words, end):
    written(BEGINNING + end)
    code, out, err = run(*words, "user_app:app")
    assert (code, out) == (2, "")
    assert err == (
        "relance: MODULE:APP: the import of 'user_app' runs its App: put what starts it (app.run()) under"
        ' `if __name__ == "__main__":`\n'
    )


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ('app.consumer("t", dlt="x")', "TypeError: .*'dlt'"),
        ("nope", "NameError: name 'nope' is not defined"),
        ("import nope_at_all", "ModuleNotFoundError: No module named 'nope_at_all'"),
        ('asyncio.run("x")', "ValueError: a coroutine was expected.*"),
        ("def (", "SyntaxError: .*"),
    ],
)
def test_what_a_module_raises_at_its_import_is_one_line_with_its_place(run, written, tmp_path, end, said):
    written(f"{BEGINNING}{end}\n")
    code, out, err = run("run", "user_app:app")
    assert (code, out) == (2, "")
    place = re.escape(f"the import of 'user_app' failed at {tmp_path / 'user_app.py'}, line 4")
    assert re.fullmatch(rf"relance: MODULE:APP: {place}: {said}\n", err), err


def test_several_wrong_settings_have_a_separator_on_their_line(run):
    run.command(raising(SettingsError("a", "is wrong", ("b", "is wrong too"))))
    assert run("try") == (2, "", "relance: a: is wrong; b: is wrong too\n")


def test_the_traceback_comes_when_it_is_asked_for(run, monkeypatch):
    monkeypatch.setenv("RELANCE_TRACEBACK", "1")
    run.command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


def test_a_command_chooses_its_exit_code(run):
    run.command(raising(typer.Exit(3)))
    assert run("try")[0] == 3


def test_ctrl_c_is_exit_code_130_and_silent(run):
    run.command(raising(KeyboardInterrupt()))
    assert run("try") == (130, "", "")


def test_a_reader_that_went_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "relance.cli.main", "--help"], stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert process.communicate() == (None, b"")
    assert process.returncode == 0


def test_a_group_may_be_a_typer_application(run):
    app = typer.Typer()

    @app.command()
    def one(name: str) -> None:
        typer.echo(f"one {name}")

    @app.command()
    def two() -> None:
        typer.echo("two")

    run.command(app)
    assert run("try", "one", "x") == (0, "one x\n", "")


def test_whose_kafka_answers_at_the_port_is_said_and_own_refuses_one_that_is_not_ours(run, tmp_path):
    place = ("--dir", str(tmp_path / "run"))
    with listening(kafka) as port:
        code, out, err = run("broker", "start", "--port", str(port), *place)
        assert (code, out) == (0, f"localhost:{port}: a Kafka that was not started from here\n")
        assert re.search(rf"it belongs to pid {os.getpid()} .*used as it is.*--own refuses", err)
        code, out, err = run("broker", "start", "--port", str(port), "--own", *place)
        assert (code, out) == (1, "")
        assert re.search(rf"localhost:{port} answers a Kafka .*pid {os.getpid()}.*stop it", err)
        code, _, err = run("broker", "start", "--bootstrap", f"kafka.example:{port}", "--own")
        assert (code, "--own" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_ensure_keeps_the_client_settings_of_the_app_with_another_address(run, monkeypatch):
    """Not a connection in plain text to a cluster that takes TLS only."""
    from relance import App
    from relance.cli import topics

    module = types.ModuleType("a_shop")
    module.app = App("g", client={"security.protocol": "SASL_SSL", "sasl.username": "u"})
    monkeypatch.setitem(sys.modules, "a_shop", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    asked = []

    class Nothing:
        def topics(self):
            return []

    monkeypatch.setattr(topics, "admin_for", lambda settings: asked.append(settings) or Nothing())
    for words in ((), ("--bootstrap", "kafka:9093")):
        assert run("topics", "ensure", "a_shop:app", *words) == (0, "", "")
    assert [settings.bootstrap_servers for settings in asked] == ["localhost:9092", "kafka:9093"]
    assert {settings.client["security.protocol"] for settings in asked} == {"SASL_SSL"}
