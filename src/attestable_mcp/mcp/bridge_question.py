"""Requests of the bridge's own: whatever it must know of the server before it can pass something on."""

from __future__ import annotations

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_calls import Call
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.bridge_to_host import HostSide

_ANSWER_SECONDS = 30.0
_PAGES = 100
_CARRIED = (rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.CLIENT_INFO)


class Questions:
    """Asks the server; what else comes with an answer is passed on."""

    def __init__(self, link: Link, host: HostSide) -> None:
        self._link = link
        self._host = host

    async def ask(self, message: rpc.Message, headers: dict[str, str], opens: Session | None = None) -> rpc.Message:
        """The result, empty where there is none. An answer to `initialize` opens the session `opens`."""
        async with self._link.stream("POST", headers, body=rpc.dump(message), read=_ANSWER_SECONDS) as response:
            result: object = None
            async for answer in self._link.messages(response):
                if rpc.is_response(answer):
                    result = answer.get("result")
                    break
                await self._host.emit(answer, rpc.dump(answer), None)
            if opens is not None and isinstance(result, dict):
                opens.open(response.headers.get(bridge_headers.SESSION), result)
        return result if isinstance(result, dict) else {}

    async def learn_tools(self, catalogue: bridge_headers.Catalogue, call: Call) -> None:
        """Ask for the tool list: the host has not, and the server wants headers that it describes."""
        meta = {key: value for key, value in rpc.meta(call.message).items() if key in _CARRIED}
        cursor: str | None = None
        for page in range(_PAGES):
            params: rpc.Message = {"_meta": meta} | ({"cursor": cursor} if cursor else {})
            message = {"jsonrpc": "2.0", "id": f"attestable-mcp-{page}", "method": "tools/list", "params": params}
            result = await self.ask(message, catalogue.headers(message, call.version or ""))
            catalogue.learn(result)
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str):
                return
