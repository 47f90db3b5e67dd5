"""Values that no text may show: in which forms they are found, and at what cost."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance.policies.masking import Mask
from relance.policies.secrets import BUDGET, HIDDEN, Secrets


def hidden(text: str, *values: str) -> str:
    return Secrets(values).hide(text)


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("4111111111111111", "bad card 4111111111111111!", "bad card ***!"),
        ("4111-1111-1111-1111", "bad card 4111111111111111", "bad card ***"),
        ("4111 1111 1111 1111", "4111111111111111", "***"),
        ("Jane Roe", "JANE ROE, jane roe", "***, ***"),
        ("Straße", "in STRAßE 5", "in *** 5"),
        ("O'Neil", r"no 'O\'Neil' here", "no '***' here"),
        ("a\nb\tcd", "'a\\nb\\tcd'", "'***'"),
        ("Jané", r'"Jan\u00e9"', '"***"'),
        ("Jané", r'"Jan\\u00e9"', '"***"'),
        ("Jané", "b'Jan\\xc3\\xa9'", "b'***'"),
        ("Jané", r"'Jan\xe9'", "'***'"),
        ("Jané", r"'Jan\\\\u00e9'", "'***'"),
        (" a  bc   ", "'a  bc'", "'***'"),
        ("c/d é", "/c/d%20%C3%A9", "/***"),
        ("Jané", "/who=Jan%C3%A9&x", "/who=***&x"),
        ("a b&c/d", "?q=a+b%26c%2Fd", "?q=***"),
        ("<x@y.de>", "&lt;x@y.de&gt;", "***"),
        ("Jan\u0065\u0301", unicodedata.normalize("NFC", "hi Jane\u0301"), "hi ***"),
        ("\ud800abcd", "a \\ud800abcd", "a ***"),
        (".*+?[x]", "not .*+?[x] but", "not *** but"),
        ("null", "null value, nullable", "*** value, ***able"),
        ("true", "it is True", "it is ***"),
        ("abc", "abc", "abc"),
        ("    ", "a      b", "a      b"),
        ("----", "a ---- b", "a *** b"),
        ("secret", "secre, ecret, cret", "***, ***, cret"),
        ("12345678901", "x12345678x 1234567", "x***x 1234567"),
        ("4111111111111111", "411111...1111, 4111… and 4", "***...***, ***… and 4"),
        ("4111111111111111", "41111 [...], '4111'...'1111'", "*** [...], '***'...'***'"),
        ("Jane Roe", "Jane R... and ...ne Roe", "***... and ...***"),
        (
            "4111111111111111",
            "411111\n… 99 characters left out …\n1111",
            "***\n… 99 characters left out …\n***",
        ),
        ("1990-05-17", "born datetime.date(1990, 5, 17)", "born datetime.date(***)"),
        ("c2VjcmV0LXRva2Vu", "b'secret-token'", "b'***'"),
        ("a  b\n c d", "'a b c d'", "'***'"),
    ],
)
def test_a_value_is_found_in_each_form_in_which_errors_quote_it(value: str, text: str, shown: str) -> None:
    assert hidden(text, value) == shown


def test_what_touches_is_hidden_once_and_all_else_stays() -> None:
    assert hidden("a secretsecret, other z", "secret", "other") == f"a {HIDDEN}, {HIDDEN} z"
    assert hidden("nothing of it", "secret") == "nothing of it"
    assert hidden("", "secret") == ""
    assert not Secrets(["", "abc", "\t\n  "])
    assert Secrets(["abcd"])


def test_beyond_the_budget_all_is_hidden() -> None:
    values = [f"{n:09d}" for n in range(BUDGET // 9)]
    assert hidden("000000017", *values) == HIDDEN
    assert hidden("a text", *values) == "a text"
    assert hidden("a text", *values, "x" * 100) == HIDDEN
    assert hidden("", *values, "x" * 100) == ""


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([f"value {n:09d}" for n in range(13_000)], "value 000000017 " * 60_000),
        (["ab" * (BUDGET // 2)], "ab" * 500_000),
        (["é'\\" * 20_000], "é'\\" * 300_000),
        (["1111"], "1" * 1_000_000),
        (["4111111111111111"], "4111..." * 150_000),
        ([f"{n:04d}" for n in range(10_000)], "0123456789" * 100_000),
    ],
    ids=["many values", "one long value", "escapes", "one digit", "ellipses", "all numbers"],
)
def test_the_cost_grows_with_the_text_and_the_values_not_with_their_product(
    values: list[str], text: str
) -> None:
    began = time.thread_time()
    secrets = Secrets(values)
    secrets.hide(text)  # a hundred times what a letter holds of an error
    assert time.thread_time() - began < 6.0


def masked(raw: bytes, text: str, **rules: list[str]) -> str:
    mask = Mask(**(rules or {"fields": ["card", "who"]}))
    return Secrets(mask.values(raw, [("Token", b"bearer-xyz"), ("other", b"visible")])).hide(text)


@pytest.mark.parametrize(
    ("raw", "text", "shown"),
    [
        (b'{"card":"41111","amount":12345}', "41111 for 12345", "*** for 12345"),
        (b'{"a":[{"Card":{"no":"41111","x":["98765"]}}]}', "41111, 98765", "***, ***"),
        (b'{"card":41111}', "'41111', 41111.0, 41,111", "'***', ***, ***"),
        (b'{"card":-41111.50}', "-41111.5 and 41111.50", "-*** and ***"),
        (b'{"card":4.1111e4}', "41111", "***"),
        (b'{"card":true,"who":null}', "True, true, None, null", "True, true, None, null"),
        (b'{"card":"card"}', "Object missing required field `card`", "Object missing required field `***`"),
        (b'{"who":{"jane@x.org":1,"name":"Jane"}}', "jane@x.org, name Jane", "***, name ***"),
        (b'{"card":"\\u0034\\u0031111"}', 'raw {"card":"\\u0034\\u0031111"}', 'raw {"card":"***"}'),
        (b'{"card":"41111"', "bad 41111", "bad ***"),
        (b'{"card":1,"card":"41111"}', "bad 41111", "bad ***"),
        (b"Jane;41111", "JANE paid 41111", "*** paid ***"),
        (b"Jan\xe9;41111", "Jan\xe9 paid 41111", "*** paid ***"),
        (b"", "nothing", "nothing"),
        (b'"41111"', "41111", "41111"),
        (b"[" * 9_000 + b'{"card":41111}', "bad 41111", "bad ***"),
        (b'{"card":' + b"1" * 5_000 + b"}", "1" * 12, "***"),
        (b'{"card":1e999}', "Infinity", "Infinity"),
        (b'{"card":' + b"1" * 1_000 + b',"note":"plain"}', "a plain note", "a plain note"),
    ],
)
def test_the_values_are_those_of_the_fields_in_whatever_shape(raw: bytes, text: str, shown: str) -> None:
    assert masked(raw, text) == shown


def test_a_header_s_value_is_one_too() -> None:
    assert masked(b"{}", "bearer-xyz, visible", headers=["TOKEN"]) == "***, visible"


@given(st.lists(st.text(max_size=40), max_size=5), st.text(max_size=200))
def test_hiding_never_raises_and_changes_nothing_else(values: list[str], text: str) -> None:
    found = hidden(text, *values)
    rest = found.split(HIDDEN)
    at = 0
    for part in rest:  # what is left stands in the text, in this order
        at = text.index(part, at) + len(part)


@given(st.text(min_size=4, max_size=40).filter(lambda s: not s.isspace()), st.text(max_size=20))
def test_the_value_itself_is_never_left(value: str, around: str) -> None:
    assert value not in hidden(f"{around}{value}{around}", value) or value in HIDDEN or value in around * 2
