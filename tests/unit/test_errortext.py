"""An exception as text."""

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from raising import raised
from relance.dead_letters import errortext
from relance.dead_letters.errortext import trace
from relance.errors import MaxRetriesExceededError, TransientError


class Nested:
    class OddError(Exception):
        pass


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class ExitingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def deep(depth: int) -> None:
    if depth == 0:
        raise ValueError("the bottom")
    if depth % 2:
        deep(depth - 1)
    else:
        deeper(depth - 1)


def deeper(depth: int) -> None:
    deep(depth) if depth % 3 else deeper_still(depth)


def deeper_still(depth: int) -> None:
    deep(depth)


def test_a_class_is_named_as_a_traceback_names_it():
    assert errortext.class_path(ValueError()) == "ValueError"
    assert errortext.class_path(TransientError()) == "relance.errors.TransientError"
    assert errortext.class_path(Nested.OddError()) == f"{__name__}.Nested.OddError"


def test_a_summary_is_class_colon_text():
    assert errortext.summary(ValueError("Invalid amount"), 1) == "ValueError: Invalid amount"


def test_an_error_without_text_is_summed_up_by_its_class_alone():
    assert errortext.summary(TimeoutError(), 1) == "TimeoutError"


@pytest.mark.parametrize(
    ("attempts", "tries"), [(1, "1 attempt failed"), (2, "2 attempts failed"), (4, "4 attempts failed")]
)
def test_exhausted_attempts_say_how_many_and_what_the_last_one_said(attempts: int, tries: str):
    last = TransientError("simulated")
    error = raised(MaxRetriesExceededError(attempts, last), last)
    expected = f"MaxRetriesExceededError: {tries}, last: TransientError: simulated"
    assert errortext.summary(error, attempts) == expected


def test_the_last_error_is_found_where_it_is_not_chained():
    assert errortext.summary(MaxRetriesExceededError(4, ValueError("x")), 4).endswith("last: ValueError: x")
    assert errortext.summary(MaxRetriesExceededError(4, "ValueError: x"), 4).endswith("last: ValueError: x")
    assert errortext.summary(MaxRetriesExceededError(4), 4) == (
        "MaxRetriesExceededError: gave up after 4 attempts"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TransientError("down"), "TransientError: down"),
        (TransientError(), "TransientError"),
        (MuteError(), "MuteError: <no text: its __str__ raised RuntimeError>"),
        (ExitingError(), "ExitingError: <no text: its __str__ raised SystemExit>"),
    ],
)
def test_a_failure_is_class_colon_text_whatever_its_str_does(error: Exception, text: str) -> None:
    assert errortext.failure(error) == text


def test_a_summary_of_an_endless_message_is_bounded():
    summary = errortext.summary(ValueError("x" * 10_000_000), 1)
    assert len(summary) == errortext.MAX_SUMMARY
    assert summary.endswith("…")


def test_an_error_that_cannot_be_told_is_told_by_its_class():
    error = raised(MuteError())
    assert errortext.summary(error, 1) == "MuteError: <no text: its __str__ raised RuntimeError>"
    assert "MuteError" in errortext.trace(error)


def test_a_trace_that_cannot_be_formatted_says_why(monkeypatch: pytest.MonkeyPatch):
    def too_deep(error: BaseException) -> list[str]:
        raise RecursionError

    monkeypatch.setattr(errortext.traceback, "format_exception", too_deep)
    trace = errortext.trace(ValueError("x"))
    assert trace == "ValueError: x\n<no stack trace: formatting it raised RecursionError>\n"


def test_groups_nested_without_end_are_told():
    error: Exception = ValueError("leaf")
    for _ in range(5_000):
        error = ExceptionGroup("nested", [error])
    assert "ExceptionGroup: nested" in errortext.trace(error)


def test_causes_chained_without_end_are_told():
    error = ValueError("first")
    for _ in range(5_000):
        following = ValueError("later")
        following.__cause__ = error
        error = following
    assert errortext.trace(error).endswith("ValueError: later\n")


def test_lone_surrogates_become_visible_escapes():
    assert errortext.summary(ValueError("a\udc80b"), 1) == "ValueError: a\\udc80b"
    assert "a\\udc80b" in errortext.trace(raised(ValueError("a\udc80b")))
    assert errortext.plain("é\ud800") == "é\\ud800"


def test_a_trace_holds_the_stack_and_the_causes():
    trace = errortext.trace(raised(ValueError("outer"), raised(KeyError("inner"))))
    assert "in raised" in trace
    assert trace.index("KeyError: 'inner'") < trace.index("ValueError: outer")


def test_a_trace_holds_a_last_error_that_is_not_chained():
    trace = errortext.trace(MaxRetriesExceededError(2, raised(KeyError("inner"))))
    assert trace.index("in raised") < trace.index("MaxRetriesExceededError")


def test_an_error_that_was_never_raised_has_a_trace_of_one_line():
    assert errortext.trace(ValueError("x")) == "ValueError: x\n"


def test_of_a_long_trace_head_and_tail_are_kept():
    with pytest.raises(ValueError, match="the bottom") as caught:
        deep(400)
    trace = errortext.trace(caught.value)
    assert len(trace) <= errortext.MAX_TRACE + 100
    assert trace.startswith("Traceback (most recent call last):")
    assert "characters left out" in trace
    assert trace.endswith("ValueError: the bottom\n")


def test_a_chain_that_bites_its_tail_is_told_once():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert errortext.trace(first).count("ValueError: first") == 1


# -- the quick way must be the same way -----------------------------------------------------------


def _failed(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def _noted() -> None:
    error = ValueError("with notes")
    error.add_note("a note")
    raise error


def _recursive(depth: int) -> None:
    if depth == 0:
        raise RuntimeError("deep")
    _recursive(depth - 1)


def _caused() -> None:
    try:
        {}["a"]
    except KeyError as error:
        raise ValueError("because") from error


def _in_context() -> None:
    try:
        {}["a"]
    except KeyError:
        raise ValueError("meanwhile")  # noqa: B904


def _suppressed() -> None:
    try:
        {}["a"]
    except KeyError:
        raise ValueError("alone") from None


def _of_source() -> None:
    exec(compile("def f(:", "x.py", "exec"))


def _group() -> None:
    raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])


def _raised(error: BaseException) -> None:
    raise error


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _InMain(Exception):
    def __str__(self) -> str:
        return "in the program's own module"


_InMain.__module__ = "__main__"


@pytest.mark.parametrize(
    "action",
    [lambda: int("x"), lambda: undefined_name, _noted, lambda: _recursive(2), lambda: _recursive(200),  # type: ignore[name-defined]  # noqa: F821
     _caused, _in_context, _suppressed, _of_source, _group, lambda: "x".uper(), lambda: __import__("no.such"),  # type: ignore[attr-defined]
     lambda: _raised(ValueError()), lambda: _raised(ValueError("")), lambda: _raised(ValueError("None")),
     lambda: _raised(KeyError("k")), lambda: _raised(OSError(2, "No such file")), lambda: _raised(_Mute()),
     lambda: _raised(ValueError("two\nlines")), lambda: _raised(_InMain())],
)  # fmt: skip
def test_a_trace_is_what_python_prints_the_first_time_and_every_other(action: Callable[[], object]) -> None:
    for _ in range(3):
        error = _failed(action)
        assert trace(error) == "".join(traceback.format_exception(error))


def test_the_same_code_in_another_file_keeps_its_own_name() -> None:
    for name in ("one.py", "two.py"):
        space: dict[str, Any] = {}
        exec(compile("def f():\n    raise ValueError(1)\n", name, "exec"), space)
        assert f'File "{name}", line 2, in f' in trace(_failed(space["f"]))


def test_code_that_is_made_anew_each_time_does_not_pile_up() -> None:
    for i in range(1100):
        space: dict[str, Any] = {}
        exec(compile("def f():\n    raise ValueError(1)\n", f"{i}.py", "exec"), space)
        assert f'File "{i}.py"' in trace(_failed(space["f"]))
    assert len(errortext._FRAMES) <= errortext._MAX_FRAMES
