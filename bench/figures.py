"""What benches share: rows of one table, and the CPU that a process has used."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

WIDTH = 44


def show(name: str, values: Sequence[float], unit: str, *, goal: float | None = None) -> None:
    """Print the median of some runs with the smallest and the largest, and how it stands to a goal."""
    median, low, high = (_figure(value) for value in (statistics.median(values), min(values), max(values)))
    against = "" if goal is None else f"  goal {_figure(goal)}, ratio {statistics.median(values) / goal:.2f}"
    print(f"{name:{WIDTH}} {median:>9} {unit:10} {low:>9} to {high:<9}{against}", flush=True)


def _figure(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
