"""The rig for ninety seconds, by the command that people use."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from runs import Said, Started

FIELDS = {
    *("lost", "unseen", "duplicates", "duplicates_allowed", "order_violations", "commits_past_frontier"),
    *("early", "handled", "faults"),
}


@pytest.fixture
def said(started: Started) -> Said:
    found: Said = started["ninety seconds", ""].result()
    return found


def test_ninety_seconds_of_faults_break_no_promise(said: Said) -> None:
    assert said.status == 0, said.text
    assert said.told.keys() >= FIELDS
    zero = ("lost", "unseen", "order_violations", "commits_past_frontier", "early")
    assert {name: said.told[name] for name in zero} == dict.fromkeys(zero, 0)
    assert said.told["duplicates"] <= said.told["duplicates_allowed"]
    assert said.told["handled"] > 5000
    assert said.told["faults"] >= 4


def test_the_files_tell_the_same(said: Said) -> None:
    assert json.loads((said.folder / "report.json").read_text())["handled"] == said.told["handled"]
    picture = ElementTree.parse(said.folder / "timeline.svg").getroot()
    assert picture.tag.endswith("svg")
    assert len(picture.findall(".//{*}rect[@class='fault']")) == said.told["faults"]
