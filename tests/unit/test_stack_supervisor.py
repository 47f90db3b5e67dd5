"""Processes that are started, found again and stopped; and those that only look like ours."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from stack.services import Service, order_api
from stack.settings import Settings, StackError, from_environment

from stack import supervisor
from waiting import wait_until

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = from_environment({"RELANCE_RUN_DIR": str(tmp_path / "run")})
    yield settings
    supervisor.stop(settings, supervisor.find_all(settings), patience=1.0)


@pytest.fixture
def sleeper() -> Service:
    return Service("order-api", "order API", 18082, (sys.executable, "-c", SLEEPER))


def wait_for_log(settings: Settings, words: str) -> str:
    def text() -> str:
        return supervisor.last_lines(settings, "order-api")

    wait_until(lambda: words in text(), 10, text)
    return text()


def test_a_started_service_is_found_again_by_its_file(settings: Settings, sleeper: Service) -> None:
    started = supervisor.start(settings, sleeper)
    assert supervisor.find(settings, "order-api") == started
    assert supervisor.find_all(settings) == [started]
    assert started.recipe == supervisor.recipe(sleeper)


def test_it_runs_in_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(
    settings: Settings, sleeper: Service
) -> None:
    assert os.getsid(supervisor.start(settings, sleeper).who.pid) != os.getsid(0)


def test_stopping_removes_process_and_file(settings: Settings, sleeper: Service) -> None:
    started = supervisor.start(settings, sleeper)
    assert supervisor.stop(settings, [started]) == []
    assert not started.alive
    assert supervisor.find_all(settings) == []
    assert list(settings.pids_dir.iterdir()) == []


def test_a_service_that_ended_by_itself_is_no_longer_found(settings: Settings, sleeper: Service) -> None:
    started = supervisor.start(settings, replace(sleeper, command=(sys.executable, "-c", "")))
    wait_until(lambda: not started.alive, 10, "its end")
    assert supervisor.find(settings, "order-api") is None
    assert list(settings.pids_dir.iterdir()) == []


def test_a_pid_that_was_used_again_is_not_ours_and_is_not_stopped(settings: Settings) -> None:
    settings.pids_dir.mkdir(parents=True)
    noted = {"pid": os.getpid(), "started": "before the flood", "port": 1, "recipe": ""}
    (settings.pids_dir / "console.json").write_text(json.dumps(noted))
    assert supervisor.find(settings, "console") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_damaged_file_is_named_and_nothing_is_guessed(settings: Settings, text: str) -> None:
    settings.pids_dir.mkdir(parents=True)
    (settings.pids_dir / "console.json").write_text(text)
    with pytest.raises(StackError, match=r"console\.json is damaged"):
        supervisor.find(settings, "console")
    (settings.pids_dir / "console.json").unlink()


def test_another_environment_is_another_recipe(sleeper: Service) -> None:
    assert supervisor.recipe(sleeper) != supervisor.recipe(replace(sleeper, env={"MAX_RETRIES": "0"}))


def test_the_log_grows_over_restarts_and_an_error_shows_only_the_last_start(
    settings: Settings, sleeper: Service
) -> None:
    first = supervisor.start(settings, replace(sleeper, command=(sys.executable, "-c", "print('first')")))
    log = supervisor.log_path(settings, "order-api")
    wait_until(lambda: log.exists() and log.read_text() == "first\n")  # not only its first half
    supervisor.stop(settings, [first])
    supervisor.start(settings, sleeper)
    text = wait_for_log(settings, "up")
    assert "first" not in text
    assert log.read_text().startswith("first\n")


def test_a_log_that_grew_too_large_is_put_aside_at_the_next_start(
    settings: Settings, sleeper: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "ROTATE_BYTES", 10)
    settings.logs_dir.mkdir(parents=True)
    log = supervisor.log_path(settings, "order-api")
    log.write_text("more than ten bytes\n")
    supervisor.start(settings, sleeper)
    wait_for_log(settings, "up")
    assert log.with_suffix(".log.1").read_text() == "more than ten bytes\n"
    assert log.read_text() == "up\n"


def test_the_stack_counts_as_it_was_started_whatever_is_said_now(settings: Settings) -> None:
    said = replace(settings, tuning=(("MAX_RETRIES", "5"),))
    service = replace(order_api(said), command=(sys.executable, "-c", SLEEPER))
    assert supervisor.recipe(service) != supervisor.recipe(replace(service, env=order_api(settings).env))
    supervisor.start(said, service)
    assert supervisor.as_started(settings).max_retries == 5
    assert supervisor.as_started(replace(settings, tuning=(("MAX_RETRIES", "7"),))).max_retries == 5


def test_a_service_is_told_nothing_of_the_tuning_that_its_recipe_does_not_know(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_RETRIES", "9")
    code = "import os, time; print('retries', os.environ.get('MAX_RETRIES'), flush=True); time.sleep(60)"
    supervisor.start(settings, replace(order_api(settings), command=(sys.executable, "-c", code)))
    wait_for_log(settings, "retries None")
