"""Runs the checks and the test suites, says how long each took, and counts what ran.

Promise: the exit status is 0 only if every suite that should run did, ran at least one test, and failed none.
A suite that can't run (no Kafka, no browser) fails; it is never quietly left out.
Where all are asked for, those that mostly wait run two at a time, and say what they said when they end.
Another Python may be missing on a developer's machine, where that is said; where CI=true it fails.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = ("unit", "property", "kafka", "stack", "chaos")  # a clone without one of these is broken
# Where a skip in CI would hide that nothing was tested:
NEEDS_THE_WORLD = ("kafka", "stack", "chaos", "browser")
PYTHONS = ("3.11", "3.12", "3.13")  # the unit tests run on each of them
REST = "the others"
# Seconds, each for all suites that share it; and whose budget a suite's time is taken from.
BUDGETS = {"unit": 480.0, "kafka": 900.0, "chaos": 900.0, REST: 900.0}
SHARES = {"unit": "unit", "property": "unit", "kafka": "kafka", "chaos": "chaos"}
AT_ONCE = 2
ALONE = ("chaos",)  # it takes both cores by itself
LONG = ("kafka", "stack")  # the first to begin, so that the others run beside them


@dataclass
class Outcome:
    """What one step did, for the table at the end. `xfailed`: failed, as was expected; that is no pass."""

    name: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    xfailed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.problems


@dataclass(frozen=True)
class Job:
    """A suite to run, by which Python; empty is this one."""

    suite: str
    python: str = ""
    version: str = ""

    @property
    def label(self) -> str:
        return f"{self.suite} on {self.version}" if self.version else self.suite


def main(argv: list[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # our lines and the suites' stay in order in a log file
    parser = argparse.ArgumentParser(
        prog="./scripts/test.sh", description="Run the checks and the test suites."
    )
    parser.add_argument(
        "--find-python", metavar="VERSION", help="only say where that Python is, status 1 if nowhere"
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"of: {', '.join(['lint', *known_suites()])}"
    )
    options = parser.parse_args(argv)
    if options.find_python:
        found = find_python(options.find_python)
        if found is None:
            print(f"Python {options.find_python} isn't on this machine", file=sys.stderr)
            return 1
        print(found)
        return 0
    unknown = [name for name in options.suites if name not in ("lint", *known_suites())]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are: lint, {', '.join(known_suites())}")
    started = time.monotonic()
    try:
        outcomes = list(run_chosen(options.suites) if options.suites else run_all())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return report(outcomes, time.monotonic() - started)


def run_chosen(names: list[str]) -> Iterator[Outcome]:
    """One after the other, so that one sees them run."""
    budgets = Budgets()
    for name in names:
        yield lint() if name == "lint" else run_suite(Job(name), budgets)


def run_all() -> Iterator[Outcome]:
    """Lint, then what can run side by side, then what can't."""
    yield lint()
    budgets, jobs, here = Budgets(), [], known_suites()
    for name in (*LONG, *(name for name in here if name not in (*LONG, *ALONE))):
        jobs.append(Job(name))
        if name == "unit":
            more, without = unit_on_other_pythons()
            jobs.extend(more)
            yield from without
    yield from side_by_side(jobs, budgets)
    for name in here:
        if name in ALONE:
            yield run_suite(Job(name), budgets)


def side_by_side(jobs: list[Job], budgets: Budgets) -> Iterator[Outcome]:
    """In the order in which they end; what each printed is shown whole then."""
    with tempfile.TemporaryDirectory(prefix="relance-test-") as scratch, ThreadPoolExecutor(AT_ONCE) as pool:

        def run(job: Job) -> tuple[Job, Outcome]:
            print(f"{job.label}: began", flush=True)
            with (Path(scratch) / job.label).open("w", encoding="utf-8") as file:
                try:
                    return job, run_suite(job, budgets, file)
                except Exception as error:  # noqa: BLE001  told in the table, beside what the others did
                    return job, Outcome(job.label, 0.0, problems=[f"could not be run: {error!r}"])

        def show(job: Job) -> None:
            output = Path(scratch) / job.label
            if output.exists():
                print(output.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
                output.unlink()

        running = [pool.submit(run, job) for job in jobs]
        try:
            for future in as_completed(running):
                job, outcome = future.result()
                show(job)
                yield outcome
        except BaseException:  # interrupted, and so are they
            pool.shutdown(wait=True, cancel_futures=True)
            for job in jobs:
                show(job)
            raise


def known_suites() -> list[str]:
    """The required suites, then any other folder of tests/ that has tests: a later one just joins."""
    found = sorted(path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("test_*.py")))
    return [*REQUIRED, *(name for name in found if name not in REQUIRED)]


def in_ci() -> bool:
    """Whether nobody looks at a note, so that what is missing must fail."""
    return os.environ.get("CI") == "true"


class Budgets:
    """How much time each group of suites has taken of its own. Suites that share one are judged together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, float] = {}

    def left(self, suite: str) -> float:
        """Seconds; below zero where the suites before took more than all."""
        share = SHARES.get(suite, REST)
        return BUDGETS[share] - self._spent.get(share, 0.0)

    def limit(self, suite: str) -> float:
        """After how many seconds it is stopped: twice what is left, and never so few that none could run."""
        return max(2 * self.left(suite), BUDGETS[SHARES.get(suite, REST)] / 2)

    def spend(self, suite: str, seconds: float) -> str:
        """Take them; returns what to say if that was too much."""
        share = SHARES.get(suite, REST)
        with self._lock:
            self._spent[share] = self._spent.get(share, 0.0) + seconds
        if (over := -self.left(suite)) <= 0:
            return ""
        with_it = [name for name in known_suites() if SHARES.get(name, REST) == share]
        return (
            f"{' and '.join(with_it)} have {BUDGETS[share]:.0f} s together, {over:.0f} s less than they took"
        )


def heading(text: str, out: IO[str] | None = None) -> None:
    print(f"\n── {text} {'─' * max(3, 76 - len(text))}", flush=True, file=out)


# -- checks ------------------------------------------------------------------------------------------


def lint() -> Outcome:
    """Style, types, shell: each check runs, even if an earlier one failed, so that one run shows all."""
    heading("lint: ruff, mypy, shellcheck, SBOM, advisories")
    bin_dir = Path(sys.executable).parent
    checks: list[tuple[str, list[str]]] = [
        ("ruff check", [str(bin_dir / "ruff"), "check", "."]),
        ("ruff format", [str(bin_dir / "ruff"), "format", "--check", "."]),
        (
            "mypy",
            [str(bin_dir / "mypy"), "src", "chaos", "tests/typing", *(str(path) for path in typed_scripts())],
        ),
    ]
    shellcheck = shutil.which("shellcheck", path=f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}")
    if shellcheck:
        shell = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
        checks.append(("shellcheck", [shellcheck, *(str(path.relative_to(ROOT)) for path in shell)]))
    started = time.monotonic()
    outcome = Outcome("lint", 0.0)
    if not shellcheck:
        missing(outcome, "shellcheck isn't installed: the shell scripts were not checked")
    for name, command in checks:
        print(f"{name}: ", end="", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            outcome.problems.append(f"{name} found something")
        elif name == "shellcheck":
            print("All shell scripts are clean")
    supply_chain = [sys.executable, "scripts/supply_chain.py"]
    if subprocess.run(supply_chain, cwd=ROOT, check=False).returncode:
        outcome.problems.append("the supply chain has a problem")
    outcome.seconds = time.monotonic() - started
    return outcome


def missing(outcome: Outcome, what: str) -> None:
    """Said on a developer's machine, a failure in CI."""
    print(what)
    if in_ci():
        outcome.problems.append(what)


def typed_scripts() -> list[Path]:
    return [path for path in ((ROOT / "scripts" / "stack"), Path(__file__)) if path.exists()]


# -- tests -------------------------------------------------------------------------------------------


def run_suite(job: Job, budgets: Budgets, out: IO[str] | None = None) -> Outcome:
    """One pytest process for one folder, stopped at twice what is left of its budget: a hang is an answer.

    `out` is where all that is said goes, if not to where ours does.
    """
    name, label = job.suite, job.label
    heading(label, out)
    limit = budgets.limit(name)
    with tempfile.TemporaryDirectory(prefix="relance-test-") as scratch:
        xml = Path(scratch) / "report.xml"
        command = [
            job.python or sys.executable,
            "-m",
            "pytest",
            f"tests/{name}",
            f"--junitxml={xml}",
            "-o",
            "faulthandler_timeout=300",
        ]
        command += ["-p", "no:cacheprovider", "--durations=5", "--durations-min=2"]
        started = time.monotonic()
        if not any((ROOT / "tests" / name).rglob("test_*.py")):
            print(f"tests/{name} holds no tests", file=out)
            return Outcome(label, 0.0, problems=["has no tests"])
        code = run_bounded(command, limit, out)
        outcome = counted(label, xml)
        outcome.seconds = time.monotonic() - started
    if code is None:
        outcome.problems.append(f"was stopped after {limit:.0f} s: something hangs")
    elif code == 5 or not outcome.passed + outcome.failed + outcome.xfailed:
        outcome.problems.append("ran no test")
    elif code and not outcome.failed:
        outcome.problems.append(f"pytest ended with status {code}")
    if outcome.skipped and name in NEEDS_THE_WORLD and in_ci():
        outcome.problems.append(f"skipped {outcome.skipped}: in CI what it needs must be there")
    if note := budgets.spend(name, outcome.seconds):
        print(f"note: {note}", file=out)
    return outcome


def run_bounded(command: list[str], limit: float, out: IO[str] | None) -> int | None:
    """The exit status, or None if it was stopped: by SIGINT first, so that teardowns stop the brokers."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=None if out is None else subprocess.STDOUT,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None
    except KeyboardInterrupt:
        process.wait()  # it got the same Ctrl-C and is cleaning up
        raise


def counted(label: str, xml: Path) -> Outcome:
    outcome = Outcome(label, 0.0)
    if not xml.exists():
        outcome.failed = 1
        outcome.problems.append("pytest died before it could report")
        return outcome
    for case in ElementTree.parse(xml).iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif skip is not None and skip.get("type") == "pytest.skip":
            outcome.skipped += 1
        elif skip is not None:  # pytest.xfail; one that passes after all is a failure (xfail_strict)
            outcome.xfailed += 1
        else:
            outcome.passed += 1
    return outcome


def unit_on_other_pythons() -> tuple[list[Job], list[Outcome]]:
    """Sets them up. The runs, and what came out where there can be none."""
    jobs, without = [], []
    for version in PYTHONS:
        if sys.version.startswith(version + "."):
            continue  # the main run is on it
        interpreter = find_python(version)
        if interpreter is None:
            outcome = Outcome(f"unit on {version}", 0.0)
            missing(outcome, f"Python {version} isn't on this machine: the unit tests did NOT run on it")
            if outcome.problems:
                without.append(outcome)
            continue
        heading(f"setting up Python {version} ({interpreter})")
        venv = f".venv-{version}"
        started = time.monotonic()
        if subprocess.run(["scripts/setup.sh", venv, interpreter], cwd=ROOT, check=False).returncode:
            problem = f"can't install the locked packages on {version}"
            without.append(Outcome(f"unit on {version}", time.monotonic() - started, problems=[problem]))
            continue
        jobs.append(Job("unit", str(ROOT / venv / "bin" / "python"), version))
    return jobs, without


def find_python(version: str) -> str | None:
    """An interpreter of that version that really runs: a version manager's shim may answer nothing."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    homes = sorted(pyenv.glob(f"versions/{version}.*/bin/python3"), reverse=True)
    named = shutil.which(f"python{version}")
    for candidate in (sys.executable, named, *map(str, homes), fetched_python(version)):
        if candidate is None:
            continue
        code = f"import sys, ensurepip, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        if subprocess.run([candidate, "-c", code], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


def fetched_python(version: str) -> str | None:
    """The one that `uv python install` put on this machine, if it did: it stands in no PATH."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        return None
    asked = [str(uv), "python", "find", "--quiet", "--managed-python", "--no-python-downloads", version]
    found = subprocess.run(asked, cwd=ROOT, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None if found.returncode == 0 else None


def report(outcomes: list[Outcome], seconds: float) -> int:
    heading("summary")
    for outcome in outcomes:
        tests = f"{outcome.passed} passed, {outcome.failed} failed"
        if outcome.skipped:
            tests += f", {outcome.skipped} skipped"
        if outcome.xfailed:
            tests += f", {outcome.xfailed} xfailed"
        if outcome.name == "lint":
            tests = ""
        mark = "✓" if outcome.ok else "✗"
        details = "; ".join(filter(None, [tests, *outcome.problems]))
        print(f"{mark} {outcome.name:<14}{outcome.seconds:7.1f} s  {details}")
    bad = [outcome.name for outcome in outcomes if not outcome.ok]
    print(f"{'FAILED: ' + ', '.join(bad) if bad else 'all good'}, in {seconds:.0f} s")
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    rest = {kind: sum(getattr(o, kind) for o in outcomes) for kind in ("skipped", "xfailed")}
    also = "".join(f", {count} {kind}" for kind, count in rest.items() if count)
    print(f"{passed} passed, {failed} failed{also}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
