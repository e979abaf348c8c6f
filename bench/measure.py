"""Timing that survives a shared machine: interleaved rounds, medians, ratios inside one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(subjects: Mapping[str, Callable[[], object]], *, rounds: int = 15, inner: int = 20) -> dict[str, float]:
    """Median seconds per call of each subject; every round runs all subjects, so that noise meets them alike."""
    found = samples(subjects, rounds=rounds, inner=inner)
    return {name: statistics.median(values) for name, values in found.items()}


def samples(subjects: Mapping[str, Callable[[], object]], *, rounds: int, inner: int) -> dict[str, list[float]]:
    """Seconds per call of each subject in each round. Many short rounds find the moments that nobody disturbs."""
    for call in subjects.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, call in subjects.items():
            begun = time.perf_counter()
            for _ in range(inner):
                call()
            found[name].append((time.perf_counter() - begun) / inner)
    return found


def table(title: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Print rows of (what, figure, ratio, aim)."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in [*rows, ("what", "figure", "ratio", "aim")]) for i in range(4)]
    for row in [("what", "figure", "ratio", "aim"), *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
