"""How long builder-web's pages take on a large data directory, one after the other and 20 at once.

The directory has 500 jobs and 100 000 builds, one of the jobs 10 000 of them, and a million artifacts with names of their
own; its rows are made here, its files are not.
"""

import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from figures import show

from builder.model import Exited, Instant
from builder_web.console_index import ConsoleIndexer
from builder_web.directory import DataDirectory
from builder_web.store import opening, uploads, users
from builder_web.store.records import NewBuild, Password, StoredArtifact

JOBS = int(os.environ.get("BENCH_JOBS", "500"))
BUILDS = int(os.environ.get("BENCH_BUILDS", "100000"))
FILES = int(os.environ.get("BENCH_FILES", "1000000"))
LARGEST = 10_000
RUNS = 30
NOW = time.time_ns() // 1_000_000


def builds() -> Iterator[NewBuild]:
    for number in range(BUILDS):
        job = 0 if number < LARGEST else number % JOBS
        digest = hashlib.sha256(b"%d %d" % (job, number // 7)).digest()
        started = Instant(NOW - (BUILDS - number) * 60_000)
        yield NewBuild(
            uuid=str(UUID(int=number)),
            job=f"job-{job}",
            platform=f"platform-{number % 2}",
            started=started,
            finished=Instant(started.ms + 60_000),
            result=Exited(code=0),
            console=ConsoleIndexer().finish(),
            artifacts=(StoredArtifact(path="bin/x", digest=digest, size=1000),) if number % 11 else (),
            main_binary="bin/x" if number % 11 else None,
            input_id=hashlib.sha256(b"%d" % job).digest(),
            tags={"section": f"Section {job % 5}", "synopsis": f"What job {job} is for"},
            solo5="{}",
        )


def fill(directory: DataDirectory) -> None:
    with opening.writing(directory.database, new=True) as connection:
        users.add(connection, "u", Password(hash=b"", salt=b"", n=2, r=1, p=1), restricted=False)
        for build in builds():
            uploads.record(connection, build, 1)
        connection.exec_driver_sql(
            f"WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {FILES}) "
            "INSERT INTO build_artifact (filepath, sha256, size, build) "
            "SELECT 'lib/package-' || (n * 7919 % 1000003) || '/module.cmxa', randomblob(32), 1, 1 FROM number"
        )


def ask(port: int, path: str) -> float:
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, (path, answer.status)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = DataDirectory(Path(folder))
        fill(directory)
        site = subprocess.Popen(
            [sys.executable, "-m", "builder_web", "--port", "0", "--datadir", folder, "-q"], stdout=subprocess.PIPE
        )
        assert site.stdout
        found = re.search(rb":(\d+)", site.stdout.readline())
        assert found
        port = int(found[1])
        try:
            for name, path, goal in (
                ("main page", "/", 30),
                ("all jobs", "/all-builds", 30),
                ("job page, 10 000 builds", "/job/job-0", 10),
                ("failed builds", "/failed-builds", 30),
                ("search for one of many files", "/search?q=package-77777/", 500),
                ("search for no file", "/search?q=nowhere", 500),
                ("search for what all have", "/search?q=module", 500),
                ("a build", "/job/job-1/build/00000000-0000-0000-0000-0000000061a9", 30),
            ):
                mark = "&" if "?" in path else "?"
                show(f"{name}, nothing has changed", [ask(port, path) for _ in range(RUNS)], "ms", goal=goal)
                show(f"{name}, made anew", [ask(port, f"{path}{mark}n={run}") for run in range(RUNS)], "ms", goal=goal)
            begin = time.perf_counter()
            threads = [threading.Thread(target=lambda: [ask(port, "/") for _ in range(20)]) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            show("main page, 20 readers", [400 / (time.perf_counter() - begin)], "requests/s", goal=100)
        finally:
            site.terminate()
            site.wait()


if __name__ == "__main__":
    main()
