"""The scripts' command line: what is wrong is said by the script that was called, with status 2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from stack.commands import main


@pytest.mark.parametrize(
    ("words", "usage", "reason"),
    [
        (("up", "--bogus"), "usage: ./scripts/up.sh [-h] [--scale consumer=N]", "--bogus"),
        (("down", "--bogus"), "usage: ./scripts/down.sh [-h] [--purge]", "--bogus"),
        (("validate", "now"), "usage: ./scripts/validate.sh [-h]", "now"),
        (("logs", "order-api", "console"), "usage: ./scripts/logs.sh [-h] [--tail N] [-f]", "console"),
        (("logs", "--tail", "9" * 23), "usage: ./scripts/logs.sh", "--tail"),
        (("logs", "--tail", "-1"), "usage: ./scripts/logs.sh", "--tail"),
    ],
)
def test_a_wrong_option_is_told_with_the_usage_of_that_script(
    words: tuple[str, ...], usage: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(usage)
    assert reason in said.splitlines()[-1]
    assert "stack" not in said


@pytest.mark.parametrize("name", ["up", "down", "validate"])
def test_a_run_folder_that_cannot_be_made_is_a_wrong_setting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "below"):
        monkeypatch.setenv("RELANCE_RUN_DIR", str(place))
        assert main([name]) == 2
        assert capsys.readouterr().err.startswith("wrong setting: RELANCE_RUN_DIR: ")


def test_logs_in_a_folder_that_cannot_be_one_is_a_wrong_setting_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELANCE_RUN_DIR", str(tmp_path / "file"))
    assert main(["logs"]) == 2
    assert "RELANCE_RUN_DIR" in capsys.readouterr().err
