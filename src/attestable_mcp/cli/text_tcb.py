"""Every sentence of `tcb`, and Intel's advisories in a few words."""

from __future__ import annotations

HELP_EARLY = "file or folder with the early collateral, in place of asking the vendor for it"
HELP_FORGET = "forget the highest evaluation numbers met, and end"
HELP_NO_EARLY = "do not ask for the early verdict"
HELP_TCB_SOURCE = "an https URL, or a file with a certificate, a quote or an SNP report; - reads stdin"

NO_SOURCE = "what shall be looked at? Give a SOURCE, or --forget"
ONLY_INTEL_AND_AMD = "tcb knows Intel's quotes and AMD's reports; this is {}"
FORGET_ALONE = "--forget stands alone"

STALE = "this collateral runs out; newer is fetched by itself, stapled collateral has to be renewed"
GRACE = "the grace for {} ends: the platform is refused from then on"
NOTHING_SHORT = "nothing"
UNKNOWN_DAY = "Intel makes the early evaluation the standard one at a day of its own choosing: update before"
BIOS_NEXT = "BIOS: ask the platform's vendor for newer firmware; its microcode is loaded before the operating system"
OS_NEXT = "OS/VMM: the host loads these: newer microcode, TDX module or SEAM loader, then a new PCK certificate"
ADVISORY_URL = "https://www.intel.com/content/www/us/en/security-center/advisory/{}.html"

ADVISORIES = {
    "INTEL-SA-00161": "L1 terminal fault (Foreshadow)",
    "INTEL-SA-00233": "microarchitectural data sampling (ZombieLoad)",
    "INTEL-SA-00270": "TSX asynchronous abort",
    "INTEL-SA-00289": "voltage settings that the host may change (Plundervolt)",
    "INTEL-SA-00320": "special register buffer data sampling (CrossTalk)",
    "INTEL-SA-00329": "L1 data eviction and vector register sampling (CacheOut)",
    "INTEL-SA-00334": "load value injection",
    "INTEL-SA-00615": "processor MMIO stale data",
    "INTEL-SA-00657": "stale data from the local APIC (AEPIC leak)",
    "INTEL-SA-00828": "gather data sampling (Downfall)",
    "INTEL-SA-00950": "redundant prefix (Reptar)",
}
"""What each is called. The link says the rest; those not named here have only it."""


def advisory(name: str) -> str:
    """One advisory as a person reads it: name, what it is called, where it stands."""
    words = ADVISORIES.get(name.upper(), "")
    link = ADVISORY_URL.format(name.lower()) if name.upper().startswith("INTEL-SA-") else ""
    return "  ".join(part for part in (name, words, link) if part)


def forgot(count: int, path: object) -> str:
    """`--forget` did it."""
    return f"forgot {count} evaluation number{'' if count == 1 else 's'} ({path})"


def in_days(days: int) -> str:
    """How far away a date is."""
    if days == 0:
        return "within a day"
    return f"in {days} day{'' if days == 1 else 's'}" if days > 0 else f"{-days} day{'' if days == -1 else 's'} ago"


def stapled_only(reason: str) -> str:
    """Nobody but the peer gave collateral."""
    return f"the vendor could not be asked ({reason}); this is what the server staples"
