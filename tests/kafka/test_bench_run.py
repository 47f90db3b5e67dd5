"""The benchmark's command as docs/benchmarks.md shows it, on a broker of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_command_of_the_page_measures_relance_beside_the_hand_loop(tmp_path: Path) -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    (command,) = re.findall(r"^```bash\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [*command.split(), "--json", str(tmp_path / "found.json"), "--svg", str(tmp_path / "found.svg")],
        cwd=ROOT,
        env={**os.environ, "RELANCE_RUN_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["peer"]: one for one in json.loads((tmp_path / "found.json").read_text())}
    assert set(found) == {"relance", "bare"}
    for one in found.values():
        assert one["work"] == "fast"
        assert one["quick"] is True
        assert one["rounds"] == 3, one.get("problem")
        assert one["n"] > 0
        assert one["seconds"] > 0
        assert one["records_per_s"] > 0
        assert (one["duplicates"], one["key_disorder"]) == (0, 0)
        assert one["max_rss_mb"] > 0
        assert one["versions"]["librdkafka"]
        assert one["settings"]
    assert found["relance"]["ratios"]["bare"] == found["bare"]["relance_ratio"]
    assert "not to be quoted" in done.stdout
    assert (tmp_path / "found.svg").read_text().count('class="bar"') == 1
