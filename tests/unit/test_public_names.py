"""What `relance` exports is a promise: exactly these names, each with a word about itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import relance

PUBLIC = [
    "App",
    "BatchError",
    "BrokerUnavailableError",
    "CircuitBreaker",
    "CircuitBreakerOpen",
    "CircuitBreakerStats",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Delivery",
    "Fatal",
    "HandlerTimeoutError",
    "Health",
    "InFlight",
    "KafkaErrorKind",
    "Mask",
    "MaxRetriesExceededError",
    "Record",
    "Reject",
    "RelanceError",
    "Retry",
    "RetryPolicy",
    "SendError",
    "Sent",
    "Settings",
    "SettingsError",
    "Stats",
    "Table",
    "TopicMissingError",
    "TopicPartition",
    "TransientError",
    "WorkerDiedError",
    "kafka_error",
]


def public_members(thing: object) -> dict[str, object]:
    return {name: value for name, value in vars(thing).items() if not name.startswith("_")}


def test_the_public_names_are_these_and_sorted() -> None:
    assert relance.__all__ == PUBLIC
    assert set(relance._HOME_OF) == set(PUBLIC)


def test_nothing_else_shows() -> None:
    assert dir(relance) == PUBLIC


def test_a_star_import_brings_just_these() -> None:
    found: dict[str, object] = {}
    exec("from relance import *", found)
    assert sorted(name for name in found if not name.startswith("__")) == PUBLIC


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        relance.Nothing  # noqa: B018


def test_importing_relance_imports_no_kafka_client() -> None:
    code = "import sys, relance; print('confluent_kafka' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


@pytest.mark.parametrize("name", PUBLIC)
def test_each_has_a_docstring_of_its_own(name: str) -> None:
    thing = getattr(relance, name)
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert text, f"{name} has no docstring"
    # What a dataclass or a named tuple writes itself says nothing.
    assert not text.startswith(f"{name}("), f"{name} has only a generated docstring"


@pytest.mark.parametrize("name", [n for n in PUBLIC if inspect.isclass(getattr(relance, n))])
def test_so_has_each_public_method_and_property(name: str) -> None:
    for member, value in public_members(getattr(relance, name)).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(function, property | types.FunctionType):
            assert function.__doc__, f"{name}.{member} has no docstring"


def test_the_architecture_page_names_all_that_is_public() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    missing = [name for name in PUBLIC if name not in page]
    assert missing == []


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(relance.__path__, "relance.", onerror=lambda name: None)
    return sorted(m.name for m in found if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", all_modules())
def test_each_module_says_what_it_is_for_and_exports_only_what_it_has(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), exported


@pytest.mark.parametrize("room", ["relance.engine.engine", "relance.policies.classify"])
def test_the_pure_rooms_know_nothing_of_kafka(room: str) -> None:
    kafka = ("confluent", "relance.kafka.")
    code = f"import sys, {room}; print([m for m in sys.modules if m.startswith({kafka})])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_test_kit_exports_exactly_these_names() -> None:
    import relance.testing

    assert relance.testing.__all__ == ["Call", "StoredRecord", "World"]
