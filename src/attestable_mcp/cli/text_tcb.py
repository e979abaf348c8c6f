"""Every sentence of `tcb`, and Intel's advisories in a few words."""

from __future__ import annotations

from datetime import timedelta

HELP_EARLY = "file or folder with the early collateral, in place of asking the vendor for it"
HELP_FORGET = "forget the highest evaluation numbers met, and end"
HELP_NO_EARLY = "do not ask for the early verdict"
HELP_TCB_SOURCE = "an https URL, or a file with a bundle, a certificate or evidence of any kind; - reads stdin"

NO_SOURCE = "what shall be looked at? Give a SOURCE, or --forget"
ORDINARY = "this is an ordinary certificate: no evidence in it speaks of a platform"
FORGET_ALONE = "--forget stands alone"

STALE = "this collateral runs out; newer is fetched by itself, stapled collateral has to be renewed"
GRACE = "the grace for {} ends: the platform is refused from then on"
LIST_ENDS = "the platform list {} runs out: every machine is refused from then on"
UNKNOWN_DAY = "Intel makes the early evaluation the standard one at a day of its own choosing: update before"
BIOS_NEXT = "BIOS: ask the platform's vendor for newer firmware; its microcode is loaded before the operating system"
OS_NEXT = "OS/VMM: the host loads these: newer microcode, TDX module or SEAM loader, then a new PCK certificate"
AMD_LEVELS = {
    "fmc": "early firmware of the secure processor",
    "bl": "the secure processor's boot loader",
    "tee": "the secure processor's operating system",
    "snp": "SEV-SNP firmware",
    "ucode": "microcode",
}
AMD_NO_STATUS = (
    "AMD publishes levels, no statuses and no early set: what counts is what the policy demands (min_tcb_bl, "
    "min_tcb_tee, min_tcb_snp, min_tcb_ucode, min_tcb_fmc)"
)
SNP_REPORTED_BEHIND = (
    "newer firmware runs than the one that is reported ({}): the host keeps the old level reported, or old guests alive"
)
SNP_NOT_COMMITTED = "the host has not committed the firmware that runs ({}): it may go back to the older one"
AMD_ENDS = {
    "certificates": "AMD's certificate of the signing key runs out: a newer one has to be stapled or fetched",
    "crl": "AMD's revocation list runs out: a newer one is fetched by itself, a stapled one has to be renewed",
}
AZURE_VTPM = "of Azure's paravisor and vTPM nobody publishes a TCB: the hardware's measurement names their build"
AWS_NO_TCB = (
    "AWS publishes no TCB of the machines under Nitro enclaves: a document names an image and an instance, so that "
    "nothing of the platform can be called short"
)
AWS_NO_CRL = "AWS publishes no revocation list either: its certificates live three hours instead"
AWS_ENDS = {
    "certificates": "the chain in this document runs out: a live enclave makes new documents all the time",
}
TPM_NO_TCB = (
    "no maker of TPMs publishes a TCB of them: what is known is the version of the TPM's firmware, and PCR0 for the "
    "machine's; compare PCRs by policy"
)
TPM_ENDS = {
    "certificates": "the certificate chain of the attestation key runs out: its issuer has to renew it",
    "crl": "the revocation list of the key's issuer runs out: a newer one has to be given",
}
NOTHING_ENDS = "nothing in this proof runs out by itself: its key is pinned, until the pin is taken away"
NO_STATEMENT = "of platforms of this kind no TCB statement is known here"
ENDS = {
    "certificates": "a certificate of the proof runs out",
    "crl": "a revocation list of the proof runs out",
    "token": "the token runs out",
}
"""For kinds that have no words of their own."""
ISSUERS_WORD = "this is the issuer's word on a platform that it judged when it made the token: it was not seen here"
TOKEN_ENDS = {"token": "the token runs out: its issuer has to judge the platform anew"}
ADVISORY_URL = "https://www.intel.com/content/www/us/en/security-center/advisory/{}.html"

ADVISORIES = {
    "INTEL-SA-00115": "speculative store bypass, rogue system register read (Spectre 4 and 3a)",
    "INTEL-SA-00161": "L1 terminal fault (Foreshadow)",
    "INTEL-SA-00219": "reads of enclave memory through processor graphics",
    "INTEL-SA-00220": "insufficient memory protection in SGX and TXT",
    "INTEL-SA-00233": "microarchitectural data sampling (ZombieLoad)",
    "INTEL-SA-00270": "TSX asynchronous abort",
    "INTEL-SA-00289": "voltage settings that the host may change (Plundervolt)",
    "INTEL-SA-00320": "special register buffer data sampling (CrossTalk)",
    "INTEL-SA-00329": "L1 data eviction and vector register sampling (CacheOut)",
    "INTEL-SA-00334": "load value injection",
    "INTEL-SA-00381": "vector register leakage, fast store forwarding",
    "INTEL-SA-00389": "power readings as a side channel (PLATYPUS)",
    "INTEL-SA-00615": "processor MMIO stale data",
    "INTEL-SA-00657": "stale data from the local APIC (AEPIC leak)",
    "INTEL-SA-00828": "gather data sampling (Downfall)",
    "INTEL-SA-00837": "error injection on machines with SGX or TDX",
    "INTEL-SA-00950": "redundant prefix (Reptar)",
    "INTEL-SA-00982": "return predictions shared between contexts",
    "INTEL-SA-00986": "on-chip debug and test interface",
    "INTEL-SA-01036": "TDX module",
    "INTEL-SA-01079": "memory controller configuration with SGX",
    "INTEL-SA-01103": "timing of the power-reading interface (RAPL)",
    "INTEL-SA-01111": "finite state machines in hardware",
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


def how_far(left: timedelta) -> str:
    """How far away a moment is: in days, and the last two of them in hours and minutes."""
    if left < timedelta(0):
        days = -(left // timedelta(days=1))
        return f"{days} day{'' if days == 1 else 's'} ago"
    if left >= timedelta(days=2):
        return f"in {left // timedelta(days=1)} days"
    minutes = left // timedelta(minutes=1)
    return f"in {minutes // 60} h {minutes % 60} min"


def stapled_only(reason: str) -> str:
    """Nobody but the peer gave collateral."""
    return f"the vendor could not be asked ({reason}); this is what came with the evidence"
