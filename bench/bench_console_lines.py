"""What a console line costs in this process: cut out of what a worker sent, joined for it, read by
a client, turned round for a record.

python bench/bench_console_lines.py
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from figures import show  # noqa: E402  found through the path above

from builder import codec  # noqa: E402
from builder.framing import frame  # noqa: E402
from builder.messages import Output  # noqa: E402
from builder.outputs import Outputs  # noqa: E402

LINES = 2000  # some 64 KiB, as much as is received at once
RUNS = 15
TIMESTAMP = 12_345_678_901


def microseconds(action: Callable[[], object], *, lines: int = LINES) -> list[float]:
    """Return the microseconds of CPU a line, for each of some runs."""
    found = []
    for _ in range(RUNS):
        started = time.process_time()
        for _ in range(10):
            action()
        found.append((time.process_time() - started) / 10 / lines * 1e6)
    return found


def main() -> None:
    uuid = uuid4()
    outputs = Outputs(uuid)
    lines = [b"a line of usual length, number %06d" % number for number in range(LINES)]
    sent, kept = outputs.join(lines), outputs.join(lines, TIMESTAMP)
    frames = [frame(codec.encode(Output(uuid=uuid, line=line))) for line in lines[:100]]
    show("cut lines out of what a worker sent", microseconds(lambda: outputs.cut(sent)), "us a line", goal=0.5)
    show("join lines for the server", microseconds(lambda: outputs.join(lines)), "us a line", goal=0.5)
    show("join lines with their time", microseconds(lambda: outputs.join(lines, TIMESTAMP)), "us a line", goal=0.5)
    show("read lines with their time", microseconds(lambda: outputs.read(kept)), "us a line", goal=2)
    show("turn lines round for a record", microseconds(lambda: outputs.records(kept)), "us a line", goal=1)
    one_by_one = microseconds(lambda: [codec.decode(data[8:]) for data in frames], lines=100)
    show("the codec, for comparison: decode", one_by_one, "us a line")


if __name__ == "__main__":
    main()
