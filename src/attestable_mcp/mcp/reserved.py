"""What a message is about that may be reserved: tools, prompts, resources, and the tasks that came of them.

By the methods of both eras and of their extensions: whatever begins with `tools/` and names a tool is about that tool.
Source: MCP 2025-11-25 and 2026-07-28, server/tools, prompts, resources, utilities/completion, tasks; SEP-2663.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from attestable_mcp.appraise.rule import Kind
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.errors import AttestationError
from attestable_mcp.hints import hint_for
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import manifest, rpc
from attestable_mcp.mcp.rewrite import WITHHELD
from attestable_mcp.mcp.sessions import Owners
from attestable_mcp.rats import Caller

NOT_ALLOWED = -32014
"""JSON-RPC error code: this is not for the client; nothing was run."""
NO_TASK = -32602
"""JSON-RPC error code: no such task, as servers themselves say it (2025-11-25, basic/utilities/tasks)."""
_KEYED: dict[str, tuple[Kind, str]] = {
    "tools/": ("tool", "name"),
    "prompts/": ("prompt", "name"),
    "resources/": ("resource", "uri"),
}
_NEEDED = ("tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe")
_LISTS: dict[str, tuple[Kind, manifest.Kind]] = {
    "tools": ("tool", manifest.TOOLS),
    "prompts": ("prompt", manifest.PROMPTS),
    "resources": ("resource", manifest.RESOURCES),
    "resourceTemplates": ("resource", manifest.TEMPLATES),
}
_UPDATED = "notifications/resources/updated"


@dataclass(frozen=True, slots=True)
class About:
    """One thing that a message asks for. `below`: what a URI template leads to."""

    kind: Kind | Literal["task"]
    name: str
    below: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Who asks: the client as rules see it, and whose share of what is bounded it takes (`sessions.holder_of`)."""

    caller: Caller | None
    token: str | None
    holder: str = ""

    @property
    def identity(self) -> str:
        """The client's binding key; "" for all who have proven nothing."""
        return self.caller.key if self.caller is not None else ""


def decides(method: str) -> bool:
    """May what this method asks for be reserved?"""
    return method.startswith((*_KEYED, "tasks/")) or method in ("completion/complete", "subscriptions/listen")


def about(message: object) -> tuple[About, ...]:
    """All that a message asks for; "" where it names nothing that is a string."""
    method = message.get("method") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(method, str):
        return ()
    return tuple(_about(method, rpc.params(message)))


def _about(method: str, params: rpc.Message) -> Iterator[About]:
    for prefix, (kind, key) in _KEYED.items():
        if method.startswith(prefix) and (key in params or method in _NEEDED):
            yield About(kind, _text(params.get(key)))
    if method.startswith("tasks/") and "taskId" in params:
        yield About("task", _text(params["taskId"]))
    if method == "completion/complete" and isinstance(ref := params.get("ref"), dict):
        if "name" in ref:
            yield About("prompt", _text(ref["name"]))
        if "uri" in ref:
            yield About("resource", _text(ref["uri"]), below="{" in _text(ref["uri"]))
    if method == "subscriptions/listen" and isinstance(wanted := params.get("notifications"), dict):
        yield from (About("resource", name) for name in _texts(wanted.get("resourceSubscriptions")))
        yield from (About("task", name) for name in _texts(wanted.get("taskIds")))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> Iterable[str]:
    if value is None:
        return ()
    return [_text(item) for item in value] if isinstance(value, list) else [""]


def refusal(message: rpc.Message, what: About, caller: Caller | None) -> bytes:
    """The answer to a request for what is not for its client."""
    request_id = message.get("id")
    found = request_id if rpc.is_id(request_id) else None
    if what.kind == "task":
        return rpc.error(found, NO_TASK, "task not found", _data("task_not_found"))
    who = "a client that has proven nothing" if caller is None else f"this client ({caller.release or caller.tee})"
    data = _data(f"{what.kind}_not_allowed") | {what.kind: what.name}
    return rpc.error(found, NOT_ALLOWED, f"{what.kind} {what.name!r} is not for {who}", data)


def _data(code: str) -> rpc.Message:
    return {"code": code, "hint": hint_for(code)}


def _one_name(name: str) -> bool:
    """Is this the same name to a server that ends it at a NUL, takes white space away, or drops what is not seen?"""
    return bool(name) and name.isprintable() and name == name.strip()


class Reserved:
    """A policy's rules, and whose each task is that was seen to begin."""

    def __init__(self, policy: ServerPolicy) -> None:
        self._policy = policy
        self._tasks: Owners[str, tuple[str, tuple[About, ...]]] = Owners()

    def rules(self, kind: Kind) -> bool:
        """Is anything of this kind reserved?"""
        return bool(self._policy.rules(kind))

    def allows(self, what: About, seen: Seen) -> bool:
        """May this client have it? A task is for the client that began it, for as long as what it asked for is."""
        if what.kind == "task":
            owner, began = self._tasks.get(what.name) or (None, ())
            return owner == seen.identity and all(self.allows(each, seen) for each in began)
        if self.rules(what.kind) and not _one_name(what.name):
            return False
        if what.below:
            return self._policy.allows_below(what.name, seen.caller, seen.token)
        return self._policy.allows(what.kind, what.name, seen.caller, seen.token)

    def began(self, task: str, seen: Seen, asked: tuple[About, ...]) -> None:
        """This answer begins a task. Nobody takes over another's; one with an endless name is nobody's."""
        size = len(task) + sum(len(each.name) for each in asked)
        if size <= LIMITS.resource_uri and self._tasks.get(task) is None:
            self._tasks.put(task, (seen.identity, asked), seen.holder)


class Shown:
    """What of a server's messages is for one client, in the answers to one request.

    Any message that lists something is looked at: a stream of the handshake era may carry answers to several requests.
    """

    def __init__(self, reserved: Reserved, seen: Seen, asked: tuple[About, ...] = ()) -> None:
        self._reserved = reserved
        self._seen = seen
        self._asked = asked

    async def __call__(self, message: rpc.Message) -> rpc.Message | None:
        if isinstance(told := message.get("method"), str):
            return None if self._may_hear(told, rpc.params(message)) else WITHHELD
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        for task in _tasks_of(result):
            self._reserved.began(task, self._seen, self._asked)
        kept = self._kept(result)
        return None if kept is result else message | {"result": kept}

    def _may_hear(self, method: str, params: rpc.Message) -> bool:
        """Notifications that name what is reserved are for those who may have it."""
        if method == _UPDATED:
            return self._reserved.allows(About("resource", _text(params.get("uri"))), self._seen)
        if method.startswith("notifications/tasks") and "taskId" in params:
            return self._reserved.allows(About("task", _text(params["taskId"])), self._seen)
        return True

    def _kept(self, result: rpc.Message) -> rpc.Message:
        for member, (kind, listed) in _LISTS.items():
            if member in result and self._reserved.rules(kind) and result.get("cacheScope") == "public":
                result = result | {"cacheScope": "private"}  # one client's list is not another's (2026-07-28, caching)
            result = self._filtered(result, member, lambda item, k=kind, by=listed.key: About(k, _text(item.get(by))))
        return self._filtered(result, "tasks", lambda item: About("task", _text(item.get("taskId"))))

    def _filtered(self, result: rpc.Message, member: str, what: Any) -> rpc.Message:
        items = result.get(member)
        if not isinstance(items, list):
            return result
        shown = [isinstance(item, dict) and self._reserved.allows(what(item), self._seen) for item in items]
        if all(shown):
            return result
        hidden = [item for item, kept in zip(items, shown, strict=True) if not kept]
        result = result | {member: [item for item, kept in zip(items, shown, strict=True) if kept]}
        return _with_hidden(result, _LISTS[member][1], hidden) if member in _LISTS else result


def _tasks_of(result: rpc.Message) -> Iterator[str]:
    """The task that an answer begins: as `task` in the handshake era, as the result itself in the extension."""
    for holder in (result.get("task"), result if result.get("resultType") == "task" else None):
        if isinstance(holder, dict) and isinstance(task := holder.get("taskId"), str):
            yield task


def _with_hidden(result: rpc.Message, kind: manifest.Kind, hidden: list[Any]) -> rpc.Message:
    """The result with names and digests of what is kept back, where a manifest covers it: by these the client can still
    see that nothing else of the list was changed."""
    meta = result.get("_meta")
    summary = meta.get(manifest.META_KEY) if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(summary, dict):
        return result
    try:
        digests = {manifest.name_of(kind, item): manifest.item_digest(kind, item).hex() for item in hidden}
    except (AttestationError, AttributeError):
        return result
    known = summary.get("hidden")
    known = known if isinstance(known, dict) else {}
    return result | {"_meta": meta | {manifest.META_KEY: summary | {"hidden": known | digests}}}
