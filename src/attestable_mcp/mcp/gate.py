"""What judges a server, made from what a caller says of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.base import Attester
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.tls.admission import Gate, LastWord
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.verifier import Verifier


def make_gate(
    policy: Policy | Path | str | None,
    *,
    pins: LastWord | None = None,
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    attester: Attester | ClientProver | None = None,
    danger_accept_simulated: bool = False,
) -> Gate:
    """What judges servers by `policy`, `pins`, or both; keep one and share it to remember what has been proven.

    Raises: ConfigurationError for neither of them, or a policy, a source or an anchor that cannot be read.
    """
    if policy is None and pins is None:
        raise ConfigurationError(
            "nothing says what to demand of the server: wanted policy=... or pins=...",
            hint="policy names the code that you accept; pins=Pins() trusts what answers first, and holds later "
            "servers to it",
        )
    chosen = Policy.genuine_only() if policy is None else read_policy(policy)
    if danger_accept_simulated:
        chosen = chosen.with_overrides(simulated=True)
    prover = attester if isinstance(attester, ClientProver) or attester is None else ClientProver(attester)
    return Gate(
        chosen, sources=None if sources is None else tuple(sources), verifier=verifier, pins=pins, prover=prover
    )


def read_policy(policy: Policy | Path | str) -> Policy:
    """A Policy as it is, a path's file, or TOML text: text is what holds a line break or a table head.

    Raises: ConfigurationError.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str) and ("\n" in policy or policy.lstrip().startswith("[")):
        return Policy.from_toml(policy)
    if isinstance(policy, (str, Path)) and str(policy):
        return Policy.load(policy)
    raise ConfigurationError(f"policy: wanted a Policy, a path or TOML text, seen {type(policy).__name__}")
