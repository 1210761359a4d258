"""Certificates on both sides in three commands from an empty directory: what the README says, run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from farm import DEADLINE, environment
from operators import ROOT

PROGRAMS = Path(sys.executable).parent


@pytest.mark.skipif(not shutil.which("builder-server", path=str(PROGRAMS)), reason="the programs are not installed")
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    section = page.partition("\n## On a network\n")[2].partition("\n## ")[0]
    servers, holders = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    make_ca, make_holder, serve = servers.replace("\\\n", "").strip().splitlines()
    export, ask = holders.strip().splitlines()
    # any port will do
    env = environment(BUILDER_SERVER_PORT="0", PATH=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")

    def run(script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    for command in (make_ca, make_holder):
        done = run(command)
        assert (done.returncode, done.stderr) == (0, "")
    said = [line.strip() for line in done.stdout.splitlines() if "export" in line]
    assert said == [export.replace("certificates/holders/", "").replace("certificates/", "")]
    with subprocess.Popen(["sh", "-c", f"exec {serve}"], cwd=tmp_path, env=env, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            port = server.stdout.readline().decode().strip().rpartition(":")[2]
            ask = ask.replace("localhost", f"localhost:{port}")
            done = run(f"{export}; {ask}")
            assert (done.returncode, done.stderr) == (0, "")
            done = run(ask)
            assert done.returncode == 5
            assert "give --tls-ca, --tls-cert and --tls-key" in done.stderr
        finally:
            server.kill()
