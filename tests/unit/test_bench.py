"""The benchmark's own arithmetic: a lost, doubled or disordered record is no result; ratios are paired."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import command, homes, measure, page, plot, report, rounds
from bench.peers import PEERS, Peer
from bench.records import count_bad, is_bad, number_in, value
from bench.runs import letters_problem, problem_of
from bench.works import WORKS

sys.path.insert(0, str(Path(homes.HERE / "programs")))

from common import Job, Tally, percentile


def run(speed: float, **more: Any) -> rounds.Result:
    return {"n": 1000, "seconds": 1000 / speed, "records_per_s": speed, **more}


# -- a program's tally -------------------------------------------------------------------------------


def tally_of(*numbers: int, n: int = 6, keys: int = 3, dead: int = 0) -> dict[str, Any]:
    job = Job(work="fast", peer="p", bootstrap="b", topic="t", group="g", n=n, keys=keys)
    tally = Tally(job)
    for number in numbers:
        tally.done(number)
    tally.dead = dead
    tally.started, tally.ended = 10.0, 12.0
    return tally.summary()


def test_a_tally_counts_each_record_once_and_takes_the_time_between_first_and_last() -> None:
    found = tally_of(0, 1, 2, 3, 4, 5)
    assert (found["handled"], found["checksum"], found["duplicates"], found["key_disorder"]) == (6, 15, 0, 0)
    assert (found["seconds"], found["records_per_s"]) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ((0, 1, 2, 3, 4), "5 of 6 handled"),
        ((0, 1, 2, 3, 4, 5, 5), "1 handled twice"),
        ((0, 1, 2, 3, 4, 9), "1 unknown records"),
        ((0, 1, 2, 3, 4, 4), "1 handled twice; 5 of 6 handled"),
    ],
)
def test_a_lost_a_doubled_and_a_strange_record_make_a_run_no_result(
    numbers: tuple[int, ...], problem: str
) -> None:
    assert problem_of(tally_of(*numbers), 6, 0).startswith(problem)


def test_two_wrongs_that_cancel_out_in_the_count_are_found_by_the_sum() -> None:
    assert "sum up" in problem_of({"handled": 6, "checksum": 14}, 6, 0)


def test_disorder_within_a_key_is_counted_and_none_between_keys() -> None:
    assert tally_of(1, 0, 2, 4, 3, 5)["key_disorder"] == 0
    assert tally_of(3, 0, 1, 2, 4, 5)["key_disorder"] == 1


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([], 0.5) is None


# -- dead letters ------------------------------------------------------------------------------------


def test_each_bad_record_has_exactly_one_letter() -> None:
    bad = [number for number in range(1000) if is_bad(number, 0.01)]
    assert len(bad) == count_bad(1000, 0.01) > 0
    assert letters_problem(bad, 1000, 0.01) == ""
    assert letters_problem(bad[1:], 1000, 0.01) == "1 bad records without a letter, 0 good ones with"
    assert letters_problem([*bad, bad[0]], 1000, 0.01) == "1 dead letters twice"
    good = next(number for number in range(1000) if number not in bad)
    assert letters_problem([*bad, good], 1000, 0.01) == "0 bad records without a letter, 1 good ones with"


def test_a_letter_tells_its_record_s_number_in_an_envelope_and_without() -> None:
    raw = value(7, poisoned=True)
    assert number_in(raw) == 7
    assert number_in(json.dumps({"originalValue": raw.decode()}).encode()) == 7


# -- rounds ------------------------------------------------------------------------------------------


def test_peers_take_turns_so_that_each_is_first_and_last() -> None:
    assert [rounds.rotated("abc", n) for n in range(4)] == [
        list("abc"),
        list("bca"),
        list("cab"),
        list("abc"),
    ]


def test_a_ratio_is_the_median_of_ratios_within_a_round_and_not_of_two_medians() -> None:
    ours: list[rounds.Result | None] = [run(100), run(10), run(90)]
    theirs: list[rounds.Result | None] = [run(50), run(5), run(180)]
    entries = [rounds.entry("fast", "relance", ours), rounds.entry("fast", "bare", theirs)]  # type: ignore[arg-type]
    rounds.add_ratios(entries, {"relance": ours, "bare": theirs})
    assert entries[0]["ratios"] == {"bare": 2.0}
    assert entries[1]["relance_ratios"] == [2.0, 2.0, 0.5]


def test_a_round_with_a_problem_counts_for_nobody() -> None:
    assert rounds.paired_ratios([run(10), run(20)], [run(5, problem="lost one"), run(10)]) == [2.0]
    told = rounds.entry("fast", "p", [run(10), run(1000, problem="lost one")])
    assert (told["records_per_s"], told["rounds"], told["problem"]) == (10, 1, "lost one")


def test_an_entry_without_a_good_round_has_no_figure_and_says_why() -> None:
    told = rounds.entry("fast", "p", [run(10, problem="lost one")])
    assert (told["records_per_s"], told["problem"]) == (None, "lost one")


def test_enough_records_are_asked_for_that_the_timed_part_is_as_long_as_it_must() -> None:
    assert rounds.records_for(run(1000), 10.0) == 10_000
    assert rounds.records_for(run(1000, timed_n=500), 10.0) == 20_000
    assert rounds.records_for(run(1000), 10.0, least=2_000_000) == 2_000_000


def test_of_several_rounds_a_delay_is_the_median_and_the_longest_the_longest() -> None:
    each = [
        run(10) | {"p50_ms": p50, "p99_ms": p99, "max_ms": most}
        for p50, p99, most in ((1, 30, 50), (3, 10, 90), (2, 20, 40))
    ]
    told = rounds.entry("delays", "relance", each)
    assert (told["p50_ms"], told["p99_ms"], told["max_ms"]) == (2, 20, 90)


class NoTopics:
    """Where no topic is filled."""

    def __init__(self, bootstrap: str) -> None: ...

    def delete_filled(self) -> None: ...


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[measure.Asked]:
    """A bench without programs: each run is noted, and its p99 is the number of the runs so far."""
    asked: list[measure.Asked] = []

    def ran(wanted: measure.Asked, *_: object) -> rounds.Result:
        asked.append(wanted)
        return run(2000) | {"p50_ms": 1.0, "p99_ms": float(len(asked)), "key_disorder": 0}

    monkeypatch.setattr(measure, "Topics", NoTopics)
    monkeypatch.setattr(measure, "run", ran)
    monkeypatch.setattr(homes, "command_of", lambda peer, say: [peer.name])
    return asked


def a_bench(count: int | None = None, *, quick: bool = False) -> measure.Bench:
    return measure.Bench("nowhere:1", measure.Show(), rounds=count, quick=quick, against=None)


def test_isolation_is_the_median_of_ratios_within_a_round(asked_for: list[measure.Asked]) -> None:
    clean, failing = a_bench().measure(WORKS["isolation"])
    assert [asked.options["failing"] for asked in asked_for] == [
        *(False, True),
        *(True, False),
        *(False, True),
        *(True, False),
        *(False, True),
    ]
    assert failing["p99_ratios"] == [round(value, 3) for value in (2 / 1, 3 / 4, 6 / 5, 7 / 8, 10 / 9)]
    assert failing["p99_ratio"] == round(10 / 9, 3)
    assert (clean["case"], clean["rounds"], failing["case"], failing["rounds"]) == ("clean", 5, "failing", 5)


@pytest.mark.parametrize(
    ("name", "count", "quick", "expected"),
    [
        ("delays", None, False, 5),
        ("delays", None, True, 3),
        ("delays", 2, False, 2),
        ("memory", None, False, 1),
        ("memory", None, True, 1),
        ("memory", 2, False, 2),
    ],
)
def test_a_work_has_its_rounds_unless_somebody_says_how_many(
    name: str, count: int | None, quick: bool, expected: int, asked_for: list[measure.Asked]
) -> None:
    (ours,) = a_bench(count, quick=quick).measure(WORKS[name])
    assert ours["rounds"] == len(asked_for) == expected


def test_peers_of_a_paced_work_take_turns(asked_for: list[measure.Asked]) -> None:
    a_bench(2).measure(WORKS["latency"])
    names = [asked.peer.name for asked in asked_for]
    assert names == [*WORKS["latency"].peers, *WORKS["latency"].peers[1:], WORKS["latency"].peers[0]]


# -- what is told ------------------------------------------------------------------------------------


def test_a_target_is_reached_missed_or_not_measured() -> None:
    work = WORKS["fast"]
    entries = [{"work": "fast", "peer": "relance", "rounds": 5, "ratios": {"bare": 0.9, "aiokafka": 1.1}}]
    assert [verdict["reached"] for verdict in report.verdicts(work, entries)] == [True, False, None]
    told = "\n".join(report.told(verdict) for verdict in report.verdicts(work, entries))
    assert "✗ ≥ 1.3 × aiokafka: 1.1, not reached" in told
    assert "not measured" in told


def test_who_is_missing_and_what_is_no_result_stand_in_the_table() -> None:
    entries = [
        rounds.entry("fast", "relance", [run(100)]),
        rounds.missing("fast", "faust", "faust can't be installed: no wheel"),
        rounds.entry("fast", "bare", [run(1, problem="1 handled twice")]),
    ]
    told = report.table(WORKS["fast"], entries)
    assert "missing: faust can't be installed: no wheel" in told
    assert "no result: 1 handled twice" in told
    text = page.figures(entries)
    assert "missing: faust can't be installed: no wheel" in text
    assert text.count("\n| ") >= 4


def test_the_page_takes_no_quick_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps([rounds.entry("fast", "relance", [run(100)]) | {"quick": True}]))
    assert page.main([str(quick)]) == 2
    assert "quick run" in capsys.readouterr().err
    assert page.main([str(tmp_path / "none.json")]) == 2
    assert page.main([]) == 2


def test_the_page_s_marks_are_where_the_figures_go() -> None:
    before = (page.DOCS / "benchmarks.md").read_text()
    after = page.filled(before, "| a | b |")
    assert after.startswith(before[: before.index(page.START)])
    assert after.endswith(before[before.index(page.END) :])
    assert "| a | b |" in after
    with pytest.raises(ValueError, match="no "):
        page.filled("nothing", "x")


def test_the_plot_has_a_bar_for_each_ratio() -> None:
    drawn = plot.ratios(
        [
            {"work": "fast", "peer": "bare", "relance_ratio": 0.9},
            {"work": "fast", "peer": "faust <5k>", "relance_ratio": 90.0},
        ]
    )
    assert drawn.count('class="bar"') == 2
    assert "faust &lt;5k&gt;" in drawn


# -- arguments and homes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fats"], "no work fats; there are: fast"),
        (["fast", "--against", "bear"], "no peer bear; there are:"),
        (["fast", "--rounds", "0"], "'0' is no number of rounds: 1 or more"),
        (["fast", "--rounds", "-3"], "'-3' is no number of rounds: 1 or more"),
        (["fast", "--rounds", "five"], "'five' is no number of rounds: 1 or more"),
    ],
)
def test_a_wrong_word_ends_with_status_2_and_the_right_ones(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(words)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_each_peer_of_a_work_is_known_and_each_target_has_its_peer() -> None:
    for work in WORKS.values():
        assert work.peers[0] == "relance"
        assert set(work.peers) <= set(PEERS)
        assert {target.against for target in work.targets} <= {"", *work.peers}


def test_a_peer_that_cannot_be_had_is_named_with_the_reason() -> None:
    with pytest.raises(homes.MissingPeerError, match=r"no bench/requirements/nobody\.txt"):
        homes.command_of(Peer("nobody", "nobody.py", "nobody"), lambda line: None)
