"""What is exported is exactly what is promised: few names, each documented, none by accident."""

import inspect
import subprocess
import sys

import pytest

import relance


def test_what_is_exported_is_exactly_what_is_listed() -> None:
    assert relance.__all__ == sorted(relance.__all__, key=lambda name: (name.islower(), name))
    assert set(relance._HOME_OF) == set(relance.__all__)
    star: dict[str, object] = {}
    exec("from relance import *", star)
    assert {name for name in star if not name.startswith("__")} == set(relance.__all__)


@pytest.mark.parametrize("name", relance.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(relance, name)
    assert inspect.getdoc(value), name
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        relance.Nothing  # noqa: B018


def test_importing_relance_imports_no_kafka_client() -> None:
    code = "import sys, relance; print('confluent_kafka' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
