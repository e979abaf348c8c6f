"""`--health HOST:PORT`, shared by the verbs that stay: the port that says alive and ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from attestable_mcp.cli import text_connect as text
from attestable_mcp.cli.command import Arguments, Parser, listen_address

if TYPE_CHECKING:
    from attestable_mcp.mcp.health import Health


def add_health(parser: Parser) -> None:
    """`--health HOST:PORT`."""
    parser.add_argument("--health", metavar="HOST:PORT", type=listen_address, help=text.HELP_HEALTH)


@asynccontextmanager
async def health_of(arguments: Arguments) -> AsyncIterator[Health | None]:
    """The health port while the block runs; None where none is wanted. Raises: ConfigurationError."""
    if arguments.health is None:
        yield None
        return
    from attestable_mcp.mcp.health import Health

    async with Health(*arguments.health) as health:
        yield health
