"""What the documents say must be so: commands, options, links, code, tables; in both languages the same.

The commands themselves are run elsewhere: those of the labs (`labs/commands.py` hands them out), of README
and of CONTRIBUTING by tests/stack/test_documents.py, those of docs/command-line.md by
tests/kafka/test_command_line.py. Here they are held against the scripts, the API and compose.yaml, without
starting anything.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import pytest
import typer
import yaml

import relance
import relance.testing
from orders.api import create_api
from orders.service import OrdersService
from orders.settings import Settings as OrdersSettings
from relance.cli import main as cli
from relance.kafka_errors import KAFKA_ERRORS

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from stack import settings as stack_settings  # noqa: E402

DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "changes/README.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "labs").glob("*.md"),
    ]
)
LABS = {language: ROOT / "labs" / f"module-04.{language}.md" for language in ("en", "fr")}
COURSE = Path(__file__).with_name("course_phrases.txt")
PHRASE = 9  # words; fewer are anybody's
CURL_OPTIONS_WITH_A_VALUE = ("-X", "-H", "-d", "-w", "-o")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """The document without fenced code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


labs_commands = load(ROOT / "labs" / "commands.py")


# -- commands ------------------------------------------------------------------------------------------


FRONTS = {"relance": relance, "relance.testing": relance.testing}


@cache
def help_of(*command: str) -> str:
    asked = [sys.executable, *command, "--help"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def simple_commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, as words; pipes, lists and loops are taken apart."""
    joined = script.replace("\\\n", " ")
    joined = re.sub(r"\$\(\((.*?)\)\)", "1", joined)
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not word or word[0] not in ";|&":
                words.append(word)
                continue
            while words and (words[0] in ("do", "done") or re.fullmatch("[A-Z_]+=.*", words[0])):
                words = words[1:]
            if words and words[0] != "for":
                yield words
            words = []


def commands_of(path: Path) -> Iterator[list[str]]:
    for script in blocks(path, "bash"):
        yield from simple_commands(script)
    for span in re.findall(r"`(\./scripts/[^`]+|docker compose [^`]+|relance [a-z][^`]+)`", prose(path)):
        if "…" not in span:
            yield from simple_commands(span)


@cache
def openapi(role: str) -> dict[str, Any]:
    settings = OrdersSettings.load({"ORDERS_ROLE": role})
    return create_api(OrdersService(settings)).openapi()


@cache
def compose_services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def check_curl(words: list[str]) -> None:
    method, url, skip = "get", "", False
    for before, word in zip(["", *words], words, strict=False):
        if before == "-X":
            method = word.lower()
        skip = before in CURL_OPTIONS_WITH_A_VALUE
        if word.startswith("http") and not skip:
            url = word
    parts = urlsplit(url)
    stack = stack_settings.from_environment({})
    if parts.port == stack.console_port:
        return
    assert parts.port in (stack.api_port, stack.consumer_port(1), stack.consumer_port(2)), url
    paths = openapi("api" if parts.port == stack.api_port else "consumer")["paths"]
    assert parts.path in paths, f"no such path: {url}"
    assert method in paths[parts.path], f"{parts.path} does not take {method}"
    known = {parameter["name"] for parameter in paths[parts.path][method].get("parameters", [])}
    assert set(parse_qs(parts.query)) <= known, url


def check_script(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.is_file(), f"{words[0]} does not exist"
    assert script.stat().st_mode & 0o100, f"{words[0]} is not executable"
    name = script.stem
    if name == "kafka":
        assert len(words) == 1 or re.search(rf"^{re.escape(words[1])} ", script.read_text(), re.MULTILINE), (
            words
        )
        return
    options = [word for word in words[1:] if word.startswith("-")]
    if name in ("setup", "lock"):
        assert not words[1:], words
        return
    match name:
        case "test":
            text = help_of("scripts/run_tests.py")
        case "bench" | "chaos":
            text = help_of("-m", name)
        case _:
            text = help_of("scripts/stack", name)
    for option in options:
        assert re.search(rf"(?<!\S){re.escape(option)}\b", text), f"{words[0]} has no {option}:\n{text}"
    if "--scale" in words:
        stack_settings.parse_scale(words[words.index("--scale") + 1])


def check_relance(words: list[str]) -> None:
    target, _ = cli.COMMANDS[words[1]]
    module, _, attribute = target.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    if not isinstance(app, typer.Typer):
        command, app = app, typer.Typer()
        app.command()(command)
    found: Any = typer.main.get_command(app)
    if hasattr(found, "commands") and words[2:] and not words[2].startswith("-"):
        assert words[2] in found.commands, words
        found = found.commands[words[2]]
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert {word for word in words[2:] if word.startswith("--")} <= known, words


def check_compose(words: list[str]) -> None:
    assert words[1] == "compose", words
    services = compose_services()
    assert words[2] in ("up", "down", "ps", "logs", "exec", "port"), words
    rest = [word for word in words[3:] if not word.startswith("-")]
    if "--scale" in words:
        assert words[words.index("--scale") + 1].partition("=")[0] in services, words
    elif words[2] == "exec":
        assert rest[0] in services, words
    elif words[2] in ("logs", "port"):
        named = [word for word in rest if not word.isdigit()]
        assert set(named) <= set(services), words


@every_document
def test_every_command_named_exists_with_the_options_named(path: Path) -> None:
    for words in commands_of(path):
        match words[0]:
            case "curl":
                check_curl(words)
            case "docker":
                check_compose(words)
            case "grep" | "sleep" | "echo" | "wait" | "printf":
                pass
            case "relance":
                check_relance(words)
            case ".venv/bin/python":
                assert words[1] == "-c", words
            case ".venv/bin/towncrier":
                assert words[1:3] == ["build", "--draft"], words
            case command if command.startswith("./scripts/"):
                check_script(words)
            case command:
                pytest.fail(f"{name_of(path)} names a command that nobody checks: {command}")


@every_document
def test_a_one_liner_prints_what_the_document_says(path: Path) -> None:
    text = path.read_text()
    for code, printed in re.findall(
        r'^\.venv/bin/python -c "(.+)"\n```\n\n```text\n(.*?)```', text, re.M | re.S
    ):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == printed


def test_both_languages_have_the_same_commands_in_the_same_order() -> None:
    for docker in (False, True):
        english, french = (labs_commands.commands(language, docker=docker) for language in ("en", "fr"))
        assert english == french


def test_every_lab_has_commands_and_every_command_is_handed_out() -> None:
    ours, docker = labs_commands.commands("en"), labs_commands.commands("en", docker=True)
    assert list(ours) == list(labs_commands.SECTIONS)
    assert [section for section, scripts in ours.items() if not scripts] == []
    handed_out = sum(map(len, ours.values())) + sum(map(len, docker.values()))
    assert handed_out == len(blocks(LABS["en"], "bash"))


# -- code and data -------------------------------------------------------------------------------------


@pytest.fixture
def no_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relance.App, "run", lambda self: None)


@every_document
@pytest.mark.usefixtures("no_running")
def test_python_examples_use_public_names_and_run_up_to_the_broker(
    path: Path, relance_world: Callable[..., relance.testing.World]
) -> None:
    for number, code in enumerate(blocks(path, "python")):
        if path.name == "architecture.md" and "def __init__(" in code:
            continue  # a list of signatures, not code
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.startswith("relance")], code
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relance"):
                assert node.module in FRONTS, f"{node.module} is not a public front"
                assert {alias.name for alias in node.names} <= set(FRONTS[node.module].__all__)
        module = types.ModuleType(f"example_{number}")
        sys.modules[module.__name__] = module  # where decoders look a dataclass's annotations up
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, name_of(path), "exec"), module.__dict__)
            for name, example in list(vars(module).items()):
                if name.startswith("test_"):
                    example(relance_world)
        finally:
            del sys.modules[module.__name__]


def test_both_languages_have_the_same_code_apart_from_its_words() -> None:
    def bare(code: str) -> str:
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(
                node
            ):
                node.body[0] = ast.Pass()
        return ast.dump(tree)

    english, french = ([bare(code) for code in blocks(LABS[language], "python")] for language in ("en", "fr"))
    assert english == french


@every_document
def test_json_and_toml_examples_can_be_read(path: Path, tmp_path: Path) -> None:
    for text in blocks(path, "json"):
        json.loads(text)
    for text in blocks(path, "toml"):
        file = tmp_path / "relance.toml"
        file.write_text(text)
        relance.Settings.load(file, env={})


def test_every_public_name_is_in_the_documents() -> None:
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in DOCUMENTS)))
    assert set(relance.__all__) - words == set()


# -- tables --------------------------------------------------------------------------------------------


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = path.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return [[cell.strip().strip("|").strip() for cell in row] for row in table]


def unquoted(cell: str) -> str | None:
    """The value in `backticks`; None for a cell in words."""
    found = re.fullmatch(r"`([^`]*)`", cell)
    return found[1] if found else None


def documented(heading: str) -> dict[str, str | None]:
    """Environment variable to documented default."""
    table = rows(ROOT / "docs" / "settings.md", heading)
    found: dict[str, str | None] = {}
    for cells in table:
        variable = next(unquoted(cell) for cell in cells if re.fullmatch("`[A-Z_0-9]+`", cell))
        assert variable is not None
        at = next(index for index, cell in enumerate(cells) if unquoted(cell) == variable)
        found[variable] = unquoted(cells[at + 1])
    return found


def test_every_setting_of_the_library_has_its_row_and_its_default() -> None:
    table = documented("The library")
    fields = set(relance.Settings.__dataclass_fields__) - {"client", "servers_from"}
    assert set(table) == {f"RELANCE_{field.upper()}" for field in fields}
    defaults = {variable: value for variable, value in table.items() if value is not None}
    assert relance.Settings.load(env=defaults) == relance.Settings.load(env={})
    assert set(table) - set(defaults) == {"RELANCE_GROUP", "RELANCE_MAX_BUFFERED_RECORDS"}


def test_every_setting_of_the_orders_service_has_its_row_and_its_default() -> None:
    table = documented("The orders service")
    source = ast.parse((ROOT / "src" / "orders" / "settings.py").read_text())
    constants = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    read = {text for text in constants if isinstance(text, str) and re.fullmatch("[A-Z]+_[A-Z_]+", text)}
    assert set(table) == read
    defaults = {variable: value for variable, value in table.items() if value is not None}
    assert OrdersSettings.load(defaults) == OrdersSettings.load({})


def test_every_setting_of_the_stack_has_its_row_and_its_default() -> None:
    table = documented("The stack")
    source = (ROOT / "scripts" / "stack" / "settings.py").read_text()
    assert {*re.findall(r'"(RELANCE_[A-Z_]+)"', source), *stack_settings.NAMES} <= set(table)
    defaults = {variable: value for variable, value in table.items() if value is not None}
    assert stack_settings.from_environment(defaults) == stack_settings.from_environment({})


def test_every_module_of_the_library_s_ground_floor_has_its_place_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = [path.name for path in (ROOT / "src" / "relance").glob("[!_]*.py")]
    assert [name for name in modules if name not in text] == []


def error_table() -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in KAFKA_ERRORS.values():
        groups.setdefault((row.kind.value, row.action), []).append(f"`{row.name}` ({row.code})")
    lines = [f"| {kind} | {', '.join(names)} | {action} |" for (kind, action), names in groups.items()]
    return "\n".join(["| Kind | Codes | What to do |", "|---|---|---|", *lines])


def test_the_table_of_kafka_errors_is_the_code_s() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    table = re.search(
        r"<!-- kafka errors: begin.*?-->\n\n(.*?)\n\n<!-- kafka errors: end -->", text, re.DOTALL
    )
    assert table is not None
    assert table[1] == error_table(), f"docs/errors.md should hold:\n\n{error_table()}"


# -- links and pictures --------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
        found.add(text.strip().replace(" ", "-"))
    return found


@every_document
def test_links_between_documents_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match("https?://", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name_of(path)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(there), f"{name_of(path)}: no heading for {target}: {anchors(there)}"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.svg")), ids=name_of)
def test_pictures_say_what_they_show_and_follow_the_reader_s_colours(path: Path) -> None:
    text = path.read_text()
    tree = ElementTree.fromstring(text)
    svg = "{http://www.w3.org/2000/svg}"
    assert (tree.findtext(f"{svg}title") or "").strip()
    assert (tree.findtext(f"{svg}desc") or "").strip()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|<image|<foreignObject|href=|@import|url\((?!#)", text)


def test_both_languages_show_the_same_pictures_each_in_its_own() -> None:
    english, french = (
        re.findall(r"!\[.+?\]\(\.\./docs/(.+?)\.svg\)", LABS[x].read_text()) for x in ("en", "fr")
    )
    assert french == [f"{name}.fr" for name in english]
    for name in english:
        trees = [ElementTree.parse(ROOT / "docs" / f"{file}.svg").getroot() for file in (name, f"{name}.fr")]
        assert [tree.get("lang") for tree in trees] == ["en", "fr"]
        bare = []
        for tree in trees:
            del tree.attrib["lang"]
            for node in tree.iter():
                node.text = None if node.tag.endswith(("}text", "}title", "}desc")) else node.text
            bare.append(ElementTree.tostring(tree))
        assert bare[0] == bare[1], f"{name}: they differ in more than their words"


# -- words ---------------------------------------------------------------------------------------------


def test_the_french_has_its_spaces_and_apostrophes() -> None:
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)|<[^>]*>", "", prose(LABS["fr"]))
    wrong = re.findall(r".{0,30}(?:(?<=\S) [;:!?»](?=\s|$)|« |\w'\w).{0,10}", text, re.MULTILINE)
    assert wrong == []


@every_document
def test_no_machine_of_ours_is_named(path: Path) -> None:
    assert not re.search(r"/work/|/root/|/tmp/", path.read_text())


def bare_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def phrases(text: str) -> set[str]:
    """The digests of all runs of nine words."""
    words = text.split()
    runs = (" ".join(words[at : at + PHRASE]) for at in range(len(words) - PHRASE + 1))
    return {hashlib.sha256(run.encode()).hexdigest()[:10] for run in runs}


def phrases_of_course(text: str) -> set[str]:
    """What COURSE holds, made of the course's own document: runs within a sentence, without addresses."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return set().union(*(phrases(bare_words(part)) for part in re.split(r"[.!?:;|\n│]", text)))


def test_no_sentence_of_the_course_is_copied() -> None:
    course = set(COURSE.read_text().split())
    assert course
    for path in DOCUMENTS:
        ours = bare_words(path.read_text())
        assert phrases(ours) & course == set(), f"{name_of(path)} shares a run of nine words with the course"


def test_a_copied_sentence_would_be_found() -> None:
    sentence = "This sentence of more than nine words stands here for one of the course: it is found."
    assert phrases(bare_words(f"Before. {sentence} After.")) & phrases_of_course(sentence)


def test_the_news_fragments_make_a_changelog() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "No significant changes" not in done.stdout
