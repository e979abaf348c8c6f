"""What the steps of a connection ask of whoever drives them: send, receive, work aside, keep a deadline.

Generators of these steps do no I/O, so that asynchronous and blocking streams run the same protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Give some bytes from the socket; b"" at its end."""


@dataclass(frozen=True, slots=True)
class Work:
    """Call this, in a thread where the loop must not block, and give what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Within:
    """From here on, `what` has this many seconds."""

    seconds: float
    what: str


Step = Send | Receive | Work | Within
Steps = Generator[Step, Any, _T]
