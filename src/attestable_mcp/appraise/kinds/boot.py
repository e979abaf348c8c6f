"""What a policy demands of the event log of a boot, for kinds whose registers a log may explain: TPM, Azure, TDX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from attestable_mcp.appraise.findings import finding, source
from attestable_mcp.appraise.kinds.base import Read
from attestable_mcp.appraise.values import one_of
from attestable_mcp.rats import Finding, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRules:
    """`event_log`: is one demanded that explains every signed register? `secure_boot`: must it show Secure Boot on?"""

    event_log: Literal["accept-missing", "require"] = "accept-missing"
    secure_boot: Literal["accept-off", "require"] = "accept-off"

    READ: ClassVar[Mapping[str, Read]] = {"event_log": "text", "secure_boot": "text"}
    ABOUT: ClassVar[str] = "TPM, Azure or TDX"

    def __post_init__(self) -> None:
        one_of(self.event_log, ("accept-missing", "require"), "event_log")
        one_of(self.secure_boot, ("accept-off", "require"), "secure_boot")


def log(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """What the policy demands of the event log. Without one that explains PCR 7 or RTMR0, Secure Boot is not proven."""
    rules, claims = policy.rules.state(BootRules), verified.claims.values
    if rules.event_log == "require":
        explained = claims.get("event_log_explains", "absent")
        held = explained == "all"
        where = source(policy, "policy", "event_log")
        yield finding("event_log", held, "all signed registers explained", str(explained), "event_log_missing", where)
    if rules.secure_boot == "require":
        on = claims.get("secure_boot")
        where = source(policy, "policy", "secure_boot")
        shown = "not proven" if on is None else "on" if on is True else "off"
        yield finding("secure_boot", on is True, "on", shown, "secure_boot_off", where)


BOOT_RULES = (log,)
BOOT_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "event_log_missing": "Have the server send the firmware's event log, or compare the registers by value.",
        "secure_boot_off": "Ask the operator to turn Secure Boot on, and to send the event log that shows it.",
    }
)
