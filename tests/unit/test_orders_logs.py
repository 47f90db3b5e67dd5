import logging
import sys

import pytest

from orders import logs


def record(message: str, *values: object) -> logging.LogRecord:
    made = logging.LogRecord("orders.consumer", logging.INFO, "x.py", 1, message, values, None)
    made.created, made.msecs = 1769855400.0, 123.0
    return made


def test_a_line_has_time_level_logger_and_message() -> None:
    line = logs.PlainFormatter().format(record("Order handled: %s", "ORD-1"))
    assert line == "2026-01-31T10:30:00.123Z INFO orders.consumer Order handled: ORD-1"


def test_a_key_can_forge_no_line_and_no_colour() -> None:
    line = logs.PlainFormatter().format(record("Order %s", "a\n2026 ERROR \x1b[31mboo\u2028"))
    assert line.splitlines() == [line]
    assert r"a\x0a2026 ERROR \x1b[31mboo\x2028" in line


def test_a_traceback_keeps_its_lines() -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
    assert len(logs.PlainFormatter().format(made).splitlines()) > 2


def test_the_log_goes_to_stdout_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure()
    logs.configure()
    logging.getLogger("relance.retry").info("[RETRY] Retry 1/3")
    out, err = capsys.readouterr()
    assert (out.count("[RETRY] Retry 1/3"), err) == (1, "")
