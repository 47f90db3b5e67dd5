"""The commands of the module's document, in order, so that a test can run exactly what a reader would type.

Promise: nothing is added and nothing left out, except the Docker forms. One fenced `bash` block is one
script, for `bash -e -o pipefail` in the project's folder.

    python labs/commands.py [LANGUAGE]        prints them
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LANGUAGES = ("en", "fr")
SECTIONS = (
    "start",
    "topics",
    "lab-1",
    "lab-2",
    "lab-3",
    "lab-4",
    "lab-5",
    "checkpoint",
    "troubleshooting",
    "cleanup",
    "further",
)

_SECTION = re.compile(r"^<!-- section: (\S+) -->$")


def document(language: str = "en") -> Path:
    """The module's document in that language."""
    return Path(__file__).with_name(f"module-04.{language}.md")


def commands(language: str = "en", *, docker: bool = False) -> dict[str, list[str]]:
    """Each section's scripts, in order; with `docker`, the Docker forms instead of ours.

    The addresses are those of the document (localhost:18082, 18083, 18085, 8080, 9092): a stack that lives
    elsewhere replaces them in the text. `./scripts/...` follows the stack's environment by itself.
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    section: str | None = None
    block: list[str] | None = None
    for line in document(language).read_text(encoding="utf-8").splitlines():
        if block is not None:
            if line != "```":
                block.append(line)
                continue
            script, block = "\n".join(block), None
            if section is None:
                raise ValueError(f"a command stands before the first section: {script}")
            if script.startswith("docker ") == docker:
                found[section].append(script)
        elif line == "```bash":
            block = []
        elif match := _SECTION.match(line):
            section = match[1]
    return found


def main(arguments: list[str]) -> int:
    """Print all scripts of a language, the first one unless told otherwise."""
    language = arguments[0] if arguments else LANGUAGES[0]
    if language not in LANGUAGES:
        print(f"there is no {language!r}; the languages are: {', '.join(LANGUAGES)}", file=sys.stderr)
        return 2
    for section, scripts in commands(language).items():
        for script in scripts:
            print(f"# {section}\n{script}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
