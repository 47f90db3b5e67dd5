"""What chaos.sh says to arguments that make no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.command import main
from chaos.mutants import MUTANTS


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ours in pytest's process."""
    monkeypatch.setattr("chaos.command.signal.signal", lambda number, handler: None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "-1"], "argument --seconds: -1 is not a number from 5 to 86400"),
        (["--seconds", "abc"], "argument --seconds: abc is not a number from 5 to 86400"),
        (["--seconds", "nan"], "argument --seconds: nan is not a number from 5 to 86400"),
        (["--seed", "x"], "argument --seed: x is not a whole number from 0 to 2147483648"),
        (["--rate", "0"], "argument --rate: 0 is not a number from 1 to 100000"),
        (["--rate", "-5"], "argument --rate: -5 is not a number from 1 to 100000"),
        (["--quiet", "0"], "argument --quiet: 0 is not a number from 1 to 3600"),
        (["--nodes", "0"], "argument --nodes: 0 is not a whole number from 1 to 9"),
        (["--members", "21"], "argument --members: 21 is not a whole number from 1 to 20"),
        (["--runs", "1.5"], "argument --runs: 1.5 is not a whole number from 1 to 1000"),
        (["--faults", "nonsense"], "no fault nonsense; there are: kill, "),
        (["--mutant", "nonsense"], "no mutant nonsense; there are: commit-off-by-one, "),
        (["--handoff", "foo"], "argument --handoff: invalid choice: 'foo'"),
        (
            ["--keep", "/dev/null/x"],
            "/dev/null/x cannot be made: Not a directory: choose another with --keep",
        ),
    ],
)
def test_a_bad_argument_is_named_with_the_way_out(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_folder_with_other_things_is_not_emptied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(SystemExit) as ended:
        main(["--keep", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds other things than a run of ours" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "keep me"


def test_the_lists_name_each_fault_and_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-mutants"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(MUTANTS)
    assert main(["--list-faults"]) == 0
    assert "kill-coordinator" in capsys.readouterr().out
