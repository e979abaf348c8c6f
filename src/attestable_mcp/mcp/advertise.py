"""How a server says that it can be attested: an MCP extension (SEP-2133) and a description at a well-known path.

Both are information, never proof: whoever lies about them is still refused by the live challenge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server import Server
from mcp.server.extension import Extension

from attestable_mcp.bind.transcript import LABEL
from attestable_mcp.tls.challenge import PATH
from attestable_mcp.wire.kinds import kind_of_tee

IDENTIFIER = "dev.attestable-mcp/attestation"


def settings(*, tee: str = "", simulated: bool = False) -> dict[str, Any]:
    """The extension's settings; GET of the well-known path answers the same and is served by `tls.challenge`.

    `evidence` names the formats, `challenge` the path of the live challenge, `binding` the version of the transcript.
    """
    found: dict[str, Any] = {
        "evidence": [str(kind_of_tee(tee))] if tee else [],
        "challenge": PATH,
        "binding": LABEL.decode("ascii"),
    }
    if tee:
        found |= {"tee": tee, "simulated": simulated}
    return found


class AttestationExtension(Extension):
    """For servers built with it: `MCPServer("name", extensions=[AttestationExtension()])`. `serve` adds it too."""

    identifier = IDENTIFIER

    def __init__(self, *, tee: str = "", simulated: bool = False) -> None:
        self._settings = settings(tee=tee, simulated=simulated)

    def settings(self) -> dict[str, Any]:
        """What capabilities carry under the identifier."""
        return dict(self._settings)


@contextmanager
def advertised(server: Server[Any], tee: str, *, simulated: bool) -> Iterator[None]:
    """Let `server` advertise the extension while the block runs; afterwards it says what it said before."""
    before = server.extensions.get(IDENTIFIER)
    server.extensions[IDENTIFIER] = settings(tee=tee, simulated=simulated)
    try:
        yield
    finally:
        if before is None:
            server.extensions.pop(IDENTIFIER, None)
        else:
            server.extensions[IDENTIFIER] = before
