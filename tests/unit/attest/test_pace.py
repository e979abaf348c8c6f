"""Requests to slow devices: spaced, tried again, and given up in time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from attestable_mcp.attest.pace import TRANSIENT, Pace
from attestable_mcp.errors import AttesterError


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def pace(time: Time, most: int = 3, window: float = 10.0, patience: float = 8.0) -> Pace:
    return Pace(most=most, window=window, patience=patience, clock=time.clock, sleep=time.sleep)


def failing(*numbers: int) -> Callable[[], str]:
    left = list(numbers)

    def request() -> str:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return "done"

    return request


def test_a_burst_passes_and_then_waits_for_the_window() -> None:
    time = Time()
    limited = pace(time, window=5.0)
    for _ in range(4):
        limited.run(failing(), "device")
    assert time.slept == [5.0]


def test_a_wait_longer_than_patience_is_refused_at_once() -> None:
    time = Time()
    limited = pace(time, window=60.0)
    for _ in range(3):
        limited.run(failing(), "device")
    with pytest.raises(AttesterError, match="device: asked too often, for 8 seconds") as caught:
        limited.run(failing(), "device")
    assert caught.value.code == "attester_busy"
    assert time.slept == []


@pytest.mark.parametrize("number", sorted(TRANSIENT))
def test_transient_faults_are_tried_again_ever_later(number: int) -> None:
    time = Time()
    assert pace(time, most=10).run(failing(number, number, number), "device") == "done"
    assert time.slept == [0.05, 0.1, 0.2]


def test_patience_ends() -> None:
    time = Time()
    with pytest.raises(AttesterError, match=os.strerror(errno.EBUSY)) as caught:
        pace(time, most=100).run(failing(*[errno.EBUSY] * 100), "device")
    assert caught.value.code == "attester_busy"
    assert sum(time.slept) <= 8.0
    assert len(time.slept) < 10


def test_other_faults_pass_at_once() -> None:
    time = Time()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        pace(time).run(failing(errno.EIO), "device")
    assert time.slept == []
