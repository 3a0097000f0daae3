"""The short form of `scripts/chaos`: what was promised for deaths is kept on real pools."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_short_form(tmp_path: Path) -> None:
    report = tmp_path / "chaos.json"
    command = [sys.executable, str(ROOT / "scripts" / "chaos.py"), "--short", f"--json={report}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(report.read_text())
    assert document["scenes"]
    for scene in document["scenes"]:
        assert scene["skipped"] == ""
        assert any(check["kept"] is True for check in scene["checks"])
