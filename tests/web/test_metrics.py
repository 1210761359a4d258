"""metrics of builder-web: what it shows of itself, in a program that runs."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
from farm import free_port
from program import running
from prometheus_client.parser import text_string_to_metric_families as parse


def test_requests_are_counted(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path / "data", f"--metrics={port}") as program, httpx.Client(trust_env=False) as client:
        pages = f"http://127.0.0.1:{port}"
        before = client.get(f"{pages}/metrics").text
        assert client.get(program.url).status_code == 200
        assert client.get(f"{program.url}/nothing-of-that-name").status_code == 404
        assert client.get(f"{pages}/healthz").text == "ok\n"
        assert client.get(f"{pages}/readyz").text == "ok\n"
        assert "builder_web_info" in before
        text = before
        while 'status="404"' not in text:  # it is made once a second
            text = client.get(f"{pages}/metrics").text
    found = {sample.name: sample.value for family in parse(text) for sample in family.samples}
    assert found["builder_web_sent_bytes_total"] > 1000
    assert found["builder_web_request_seconds_count"] >= 2
    assert found["builder_web_builds_total"] == 0
    assert found["builder_web_disk_free_bytes"] > 0
    assert set(re.findall(r'status="(\d+)"', text)) == {"200", "404"}
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
