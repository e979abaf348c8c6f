"""An event loop whose seconds are short: `anyio.run(function, backend_options={"loop_factory": Hurried})`."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

FACTOR = 1000.0


class _Selector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / FACTOR if timeout is not None else None)


class Hurried(asyncio.SelectorEventLoop):
    """`FACTOR` of its seconds pass in one."""

    def __init__(self) -> None:
        super().__init__(_Selector())

    def time(self) -> float:
        return super().time() * FACTOR
