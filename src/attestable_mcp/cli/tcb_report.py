"""How the standing of a platform looks to a person, and its one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_tcb
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.errors import EXIT_PARTIAL, EXIT_REFUSED, EXIT_VERIFIED
from attestable_mcp.rats import Finding, Outcome

WHEN = "%Y-%m-%dT%H:%M:%SZ"
_TCB_CHECKS = (
    "tcb",
    "advisories",
    "refused_advisories",
    "simulated",
    "product",
    "alias",
    "amd_crl",
    "signing_keys",
    "platforms",
    "token_status",
)


def objections(findings: Iterable[Finding]) -> Iterator[str]:
    """Only those about the platform: which code runs is not the question here."""
    for finding in findings:
        word = finding.check.removeprefix("policy.")
        if finding.outcome is Outcome.FAIL and finding.check.startswith("policy.") and word.startswith(_TCB_CHECKS):
            yield f"{word}: wanted {finding.wanted}, seen {finding.seen}"


def dates_of_policy(policy: Policy, at: datetime) -> Iterator[Change]:
    """When the list of platforms runs out that the policy goes by, for every kind of evidence."""
    rule = policy.rules.platforms
    if rule is not None and rule.listed is not None and rule.listed.expires > at:
        yield Change(at=rule.listed.expires, what=text_tcb.LIST_ENDS.format(rule.listed.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A day on which the answer changes, or a piece has to be renewed."""

    at: datetime
    what: str

    def to_json(self, now: datetime) -> dict[str, Any]:
        return {"at": self.at.strftime(WHEN), "days": (self.at - now) // timedelta(days=1), "what": self.what}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One verdict on the platform: what it says, and the policy's objections to it."""

    facts: Mapping[str, Any]
    objections: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.facts, "accepted": not self.objections, "objections": list(self.objections)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is shown. `early` is None where there is none to be had; `notes` say why."""

    head: Mapping[str, Any]
    now: Column
    early: Column | None
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    at: datetime
    simulated: bool

    @property
    def exit_code(self) -> int:
        if self.now.objections:
            return EXIT_REFUSED
        return EXIT_PARTIAL if self.early is not None and self.early.objections else EXIT_VERIFIED

    def to_json(self) -> dict[str, Any]:
        return {
            **self.head,
            "at": self.at.strftime(WHEN),
            "simulated": self.simulated,
            "now": self.now.to_json(),
            "early": None if self.early is None else self.early.to_json(),
            "changes": [change.to_json(self.at) for change in self.changes],
            "notes": list(self.notes),
        }

    def lines(self, terminal: Terminal) -> Iterator[str]:
        """The page for a person."""
        if self.simulated:
            yield terminal.paint("warn", text.SIMULATED_BANNER)
        for name, value in self.head.items():
            yield _row(terminal, name.replace("_", " "), [value])
        yield ""
        yield from self._table(terminal)
        yield from self._dates(terminal)
        for note in self.notes:
            yield ""
            yield terminal.paint("dim", printable(note))

    def _table(self, terminal: Terminal) -> Iterator[str]:
        columns = [self.now] if self.early is None else [self.now, self.early]
        if self.early is not None:
            yield terminal.paint("strong", _row(terminal, "", ["now", "early"]))
        for name in self.now.facts:
            if name not in ("shortfalls", "advisories"):
                yield _row(terminal, name.replace("_", " "), [column.facts.get(name, "") for column in columns])
        words = ["refused" if column.objections else "accepted" for column in columns]
        yield _row(terminal, "by the policy", words)
        for title, column in zip(("now", "early"), columns, strict=False):
            yield from _details(terminal, title if self.early is not None else "", column)

    def _dates(self, terminal: Terminal) -> Iterator[str]:
        if self.changes:
            yield ""
            yield terminal.paint("strong", "dates")
        for change in self.changes:
            far = text_tcb.how_far(change.at - self.at)
            yield f"  {change.at:%Y-%m-%d %H:%M}Z  {far:<14}  {change.what}"


def _row(terminal: Terminal, name: str, values: list[Any]) -> str:
    shown = "  ".join(f"{printable('' if value is None else value):<26}" for value in values)
    return f"  {terminal.paint('dim', f'{name:<22}')} {shown}".rstrip()


def _details(terminal: Terminal, title: str, column: Column) -> Iterator[str]:
    """What is short, which advisories apply, what the policy says to it."""
    short, advisories = column.facts.get("shortfalls", []), column.facts.get("advisories", [])
    prefix = f"{title}: " if title else ""
    if short:
        yield ""
        yield terminal.paint("strong", f"{prefix}short of up to date by")
    for item in short:
        name = f"{item['component']} ({item['name']})" if item["name"] else item["component"]
        gap = item["wanted"] - item["have"]
        yield f"  {printable(name):<56} {item['have']} of {item['wanted']}  ({gap} short)"
    if advisories:
        yield ""
        yield terminal.paint("strong", f"{prefix}advisories")
    for name in advisories:
        yield f"  {printable(text_tcb.advisory(name))}"
    if column.objections:
        yield ""
        yield terminal.paint("strong", f"{prefix}the policy's objections")
    for objection in column.objections:
        yield f"  {terminal.paint('bad', printable(objection))}"
