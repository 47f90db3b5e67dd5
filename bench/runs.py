"""One run of one peer: its topics, its program, its answer, and whether the answer is a result.

Promise: a program that hangs is ended, and so is everything it started; a run is a result only if each record
was handled exactly once, by count and by checksum, and each poisoned one has exactly one acknowledged letter.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.peers import Peer
from bench.records import count_bad, is_bad
from bench.topics import Feeder, Progress, Topics
from bench.works import Work

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do."""

    work: Work
    peer: Peer
    n: int
    options: Mapping[str, Any]
    program_work: str = ""
    """What the program calls the work, where that differs."""
    limit: float = 300.0
    """Seconds, after which the program is ended."""

    @property
    def name(self) -> str:
        return self.program_work or self.work.name


def run(asked: Asked, command: list[str], topics: Topics, progress: Progress = lambda _share: None) -> Result:
    """Run it; the result has `problem` where it is none."""
    work, peer = asked.work, asked.peer
    poison = work.bad_fraction if work.name == "poison" else 0.0
    tag = f"bench-{asked.name}-{peer.name}-{uuid.uuid4().hex[:8]}"
    fed = work.rate > 0
    own = [topics.make(f"{tag}.DLT", 6 if peer.home == "java" else 3)]
    if asked.name == "delays":
        own.append(topics.make(f"{tag}.retry", 3))
    if fed:
        topic = topics.make(tag, work.partitions)
    else:
        topic = topics.filled(asked.n, work.keys, poison, progress, work.partitions)
    if fed:
        own.append(topic)
        if peer.home == "java":
            own += [f"{topic}-dlt", f"{topic}-retry"]
    job = {
        "work": asked.name,
        "peer": peer.name,
        "bootstrap": topics.bootstrap,
        "topic": topic,
        "group": tag,
        "n": asked.n,
        "keys": work.keys,
        "bad_fraction": work.bad_fraction,
        "bad": count_bad(asked.n, work.bad_fraction),
        "dead_letter_topic": f"{tag}.DLT",
        "retry_topic": f"{tag}.retry",
        "options": dict(asked.options),
    }
    words = [*command, *(_java_options(asked, job) if peer.home == "java" else [json.dumps(job)])]
    try:
        answer = _run_program(words, asked, topics, topic, progress)
        if "problem" not in answer:
            answer = _common(answer) if peer.home == "java" else answer
            answer["problem"] = problem_of(answer, asked.n, job["bad"] if poison else 0)
            if poison and not answer["problem"]:
                answer["problem"] = letters_problem(topics.letters(f"{tag}.DLT"), asked.n, poison)
            answer["committed"] = topics.committed(tag, topic)
        return answer
    finally:
        topics.delete(*own)


# -- the program -----------------------------------------------------------------------------------------


def _run_program(words: list[str], asked: Asked, topics: Topics, topic: str, progress: Progress) -> Result:
    with tempfile.TemporaryFile("w+") as errors, _program(words, errors) as program:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert program.stdout is not None
        threading.Thread(target=_read, args=(program.stdout, lines), daemon=True).start()
        feeder: Feeder | None = None
        began = time.monotonic()
        last: Result = {}
        try:
            while True:
                passed = time.monotonic() - began
                if passed > asked.limit:
                    told = f" (fed {feeder.fed})" if feeder else ""
                    return {"problem": f"not done after {asked.limit:.0f} s{told}: {_tail(errors)}"}
                if feeder is not None and feeder.failure is not None:
                    return {"problem": f"the feeder failed: {feeder.failure!r}"}
                progress(feeder.fed / asked.n if feeder else min(0.99, passed / asked.limit))
                try:
                    line = lines.get(timeout=0.2)
                except queue.Empty:
                    continue
                if line is None:
                    break
                found = _answer(line)
                if found is None:
                    continue
                if found.get("ready"):
                    if asked.work.rate and feeder is None:
                        feeder = Feeder(topics.bootstrap, topic, asked.n, asked.work.keys, asked.work.rate)
                        feeder.start()
                else:
                    last = found
            status = program.wait(30)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            if feeder is not None:
                feeder.stop()
        if not last:
            return {"problem": f"ended with status {status} and no result: {_tail(errors)}"}
        return last


@contextlib.contextmanager
def _program(words: list[str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    # Settings of the user's own environment are no part of the measurement.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RELANCE_")}
    program = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _answer(line: str) -> Result | None:
    """A line of JSON that is an object; programs may print other things."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _tail(errors: IO[str]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    return " · ".join(lines[-2:])[-500:] or "it said nothing"


# -- Java ------------------------------------------------------------------------------------------------


def _java_options(asked: Asked, job: Mapping[str, Any]) -> list[str]:
    peer, work = asked.peer, asked.work
    names = {"fast": "fast", "fast-key": "fast", "poison": "poison", "io": "io", "latency": "transient"}
    options = {
        "--peer": peer.program,
        "--work": names[work.name],
        "--bootstrap": job["bootstrap"],
        "--topic": job["topic"],
        "--group": job["group"],
        "--dlt": job["dead_letter_topic"],
        "--n": str(job["n"]),
        "--keys": str(job["keys"]),
        "--fail-fraction": str(job["bad_fraction"] or 0.01),
        "--settings": "fair",
        "--timeout-s": str(int(asked.limit)),
    }
    if work.rate:
        options |= {"--fed": "true", "--warm-up": str(asked.options["warm_up"])}
        options |= {"--backoff-ms": str(asked.options["backoff_ms"])}
    return [*(word for pair in options.items() for word in pair), *peer.options[work.name]]


_FIGURES = {"good_p50_ms": "p50_ms", "good_p99_ms": "p99_ms", "good_max_ms": "max_ms", "dlt": "dead_lettered"}
_COUNTED = (
    "n",
    "max_rss_mb",
    "handled",
    "cpu_seconds",
    "duplicates",
    "key_disorder",
    "checksum",
    "flaky_samples",
)


def _common(told: Result) -> Result:
    """A Java program's line in the words of the others: what is not a figure is a setting."""
    if told.get("timed_out"):
        return {"problem": f"handled {told.get('handled')} of {told.get('n')} in time"}
    # Timed is the later half: in the first one a JVM is still warming up, which a service does once.
    timed = told["n"] - told["n"] // 2
    result: Result = {
        "timed_n": timed,
        "seconds": round(timed / told["second_half_records_per_s"], 4),
        "records_per_s": told["second_half_records_per_s"],
        "whole_seconds": told["handled_seconds"],
        "whole_records_per_s": round(told["n"] / told["handled_seconds"], 1),
        "unknown": 0,
        "settings": {},
    }
    ignored = {"peer", "work", "handled_seconds", "second_half_records_per_s", "timed_out", "thrown", *result}
    versions = {}
    for name, value in told.items():
        if name in ("version", "kafka_clients", "java"):
            versions[name] = value
        elif name in _FIGURES or name in _COUNTED or name.startswith("flaky_"):
            result[_FIGURES.get(name, name)] = value
        elif name not in ignored:
            result["settings"][name] = value
    # Its count of handled ones includes those whose letter is acknowledged.
    result["handled"] -= result.get("dead_lettered", 0)
    result["versions"] = versions
    return result


# -- is it a result? ---------------------------------------------------------------------------------------


def problem_of(answer: Mapping[str, Any], n: int, bad: int) -> str:
    """Why it is no result, or nothing: each good record exactly once, each bad one dead-lettered."""
    problems = []
    if answer.get("duplicates"):
        problems.append(f"{answer['duplicates']} handled twice")
    if answer.get("unknown"):
        problems.append(f"{answer['unknown']} unknown records")
    handled, letters = answer.get("handled", 0), answer.get("dead_lettered", 0)
    if handled != n - bad:
        problems.append(f"{handled} of {n - bad} handled")
    if letters != bad:
        problems.append(f"{letters} of {bad} dead-lettered")
    # With letters, letters_problem looks at which they are.
    if not bad and answer.get("checksum") != n * (n - 1) // 2:
        problems.append(f"the numbers of the handled ones sum up to {answer.get('checksum')}")
    return "; ".join(problems)


def letters_problem(letters: list[int], n: int, fraction: float) -> str:
    """Whether the dead letters are those of the bad records, once each."""
    expected = {number for number in range(n) if is_bad(number, fraction)}
    twice, found = len(letters) - len(set(letters)), set(letters)
    problems = []
    if twice:
        problems.append(f"{twice} dead letters twice")
    if found != expected:
        problems.append(
            f"{len(expected - found)} bad records without a letter, {len(found - expected)} good ones with"
        )
    return "; ".join(problems)


def tail_of(path: Path, lines: int = 3) -> str:
    """The last lines of a file."""
    return " · ".join(path.read_text().splitlines()[-lines:])
