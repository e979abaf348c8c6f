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


def pace(time: Time, every: float = 1.0, burst: int = 3, patience: float = 8.0) -> Pace:
    return Pace(every=every, burst=burst, patience=patience, clock=time.clock, sleep=time.sleep)


def failing(*numbers: int) -> Callable[[], str]:
    left = list(numbers)

    def request() -> str:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return "done"

    return request


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    time = Time()
    limited = pace(time)
    for _ in range(6):
        limited.run(failing(), "device")
    assert time.slept == [1.0, 1.0, 1.0]


def test_by_default_no_ten_seconds_see_more_than_ten_and_no_turn_is_far() -> None:
    time = Time()
    limited = Pace(clock=time.clock, sleep=time.sleep)
    started = [limited.run(lambda: time.now, "device") for _ in range(60)]
    assert 8 < max(sum(at <= other <= at + 10 for other in started) for at in started) <= 10
    assert max(time.slept) <= 1.25


def test_rest_brings_the_burst_back() -> None:
    time = Time()
    limited = pace(time)
    for _ in range(4):
        limited.run(failing(), "device")
    time.now += 10
    before = len(time.slept)
    for _ in range(3):
        limited.run(failing(), "device")
    assert len(time.slept) == before


def test_a_wait_longer_than_patience_is_refused_at_once() -> None:
    time = Time()
    limited = pace(time, every=60.0, burst=1)
    limited.run(failing(), "device")
    with pytest.raises(AttesterError, match="device: asked too often, for 8 seconds") as caught:
        limited.run(failing(), "device")
    assert caught.value.code == "attester_busy"
    assert time.slept == []


@pytest.mark.parametrize("number", sorted(TRANSIENT))
def test_transient_faults_are_tried_again_ever_later(number: int) -> None:
    time = Time()
    assert pace(time, every=0).run(failing(number, number, number), "device") == "done"
    assert time.slept == [0.05, 0.1, 0.2]


def test_patience_ends() -> None:
    time = Time()
    with pytest.raises(AttesterError, match=os.strerror(errno.EBUSY)) as caught:
        pace(time, every=0).run(failing(*[errno.EBUSY] * 100), "device")
    assert caught.value.code == "attester_busy"
    assert sum(time.slept) <= 8.0
    assert len(time.slept) < 10


def test_other_faults_pass_at_once() -> None:
    time = Time()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        pace(time).run(failing(errno.EIO), "device")
    assert time.slept == []
