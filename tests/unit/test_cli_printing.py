"""What comes out of Kafka on a terminal: readable, and obeyed by nothing."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from relance.cli.cluster import print_json, print_table
from relance.cli.run import Plain

HOSTILE = "a\x1b[2J\x9b31m\u202e\u2028b"


def test_json_holds_no_control_character_and_is_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": HOSTILE, "é": "漢😀"})
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert "漢😀" in out
    assert json.loads(out) == {"name": HOSTILE, "é": "漢😀"}


def test_a_table_takes_its_cells_literally(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("Name", False)], [("[red]x[/red]",), ("[link=http://evil.example]y[/link]",)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "[link=http://evil.example]y[/link]" in out
    assert "\x1b" not in out


def a_line(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("shop", logging.WARNING, "x.py", 1, message, values, None)


def test_a_log_line_of_an_application_stays_one_line() -> None:
    line = Plain("%(levelname)s %(name)s: %(message)s").format(a_line("order %s", "7\n[DLT] forged\x1b[2J"))
    assert line == "WARNING shop: order 7␊[DLT] forged␛[2J"


def test_a_stack_trace_keeps_its_lines_and_nothing_in_it_moves_the_terminal() -> None:
    made = a_line("it failed")
    try:
        raise ValueError("bad \x1b[2J")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = Plain("%(message)s").format(made)
    assert len(text.splitlines()) > 3
    assert text.endswith("ValueError: bad ␛[2J")
