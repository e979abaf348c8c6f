"""The table of kinds: one row each. A new kind of TEE is one row here, out of a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attestable_mcp.appraise.kinds import azure, intel, nitro, snp, token, tpm
from attestable_mcp.appraise.kinds.base import Kind, State
from attestable_mcp.rats import Tee

_ROWS = (intel.SGX, intel.TDX, snp.SEV_SNP, nitro.NITRO, tpm.TPM, azure.AZURE_SNP, azure.AZURE_TDX, token.TOKEN)
KINDS: Mapping[Tee, Kind] = MappingProxyType({row.tee: row for row in _ROWS})
"""Every kind of TEE that the rules know. Others are refused by name, whatever their proof: silence is refusal."""
STATES: tuple[type[State], ...] = tuple(dict.fromkeys(state for row in _ROWS for state in row.states))


def tees_of(state: type[State]) -> frozenset[Tee]:
    """The kinds that these rules are about."""
    return frozenset(row.tee for row in KINDS.values() if state in row.states)
