"""What `doctor` says."""

from __future__ import annotations

_PROGRAM = "attestable-mcp"
SUMMARY = "say which attestation devices this machine has, and what to do"
HELP_ATTESTER = "look at this one only, named as in serve --attester, such as tpm:/run/swtpm.sock"
HELP_COLLATERAL = "also try whether the vendors' collateral services can be reached"
HELP_AK = "write the TPM's attestation key to this file (PEM), for a client's --anchor tpm=FILE or for your CA"

EPILOG = f"""\
examples
  {_PROGRAM} doctor
  {_PROGRAM} doctor --collateral
  {_PROGRAM} doctor tpm --ak ak.pem
  {_PROGRAM} doctor --json | jq -r '.attesters[] | select(.state == "ready") | .name'

Each device is opened, and those that open make one piece of evidence, so "ready" means that it worked just now.
Whether a client believes that evidence, only its policy says. Nothing leaves the machine without --collateral.

exit codes
  0  at least one attester is ready: "serve --attester auto" takes the first of them
  1  usage
  3  none is ready"""

READY_AUTO = "serve --attester auto takes: {}"
READY_NAMED = "serve with it: --attester {}"
NONE_READY = "no attester is ready here"
SIMULATED = "to try things out without a TEE: serve --attester simulated, which proves nothing"
TPM_TRUST = (
    "a TPM proves what was booted, not that its operator cannot look; clients need its key: doctor --ak FILE there, "
    "then --anchor tpm=FILE here, or a certificate chain for it (serve --staple)"
)
NO_TPM = "--ak wants a TPM that is ready, and this machine has none"


def behind_faulty(name: str, faulty: str) -> str:
    """`auto` stops at a device that is there and does not work."""
    return f"serve with --attester {name}; auto stops at {faulty}, which is there and faulty"


def machine(system: str, kernel: str, vendor: str, product: str) -> str:
    """The heading."""
    made = f", {vendor} {product}".rstrip() if vendor or product else ""
    return f"{system} {kernel}{made}"


def evidence(kind: str, size: int, milliseconds: float) -> str:
    """What an attester that is ready gave."""
    return f"{kind} of {size} bytes in {milliseconds:.0f} ms"


def key(digest: str, name: str) -> str:
    """A TPM's attestation key."""
    return f"attestation key sha256:{digest} ({name})"


def event_log(size: int) -> str:
    """Whether clients will know what the registers mean."""
    if size:
        return f"event log of {size} bytes goes along"
    return "no event log goes along, so clients compare registers by value only: none is readable here (it is root's)"


def reached(name: str, status: int) -> str:
    """A service answered."""
    return f"{name} answers ({status})"


def unreached(name: str, reason: str) -> str:
    """A service did not."""
    return f"{name} cannot be reached: {reason}"


def wrote(path: object) -> str:
    """`--ak` wrote its file."""
    return f"wrote {path}"
