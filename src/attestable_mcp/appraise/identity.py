"""Which claims say what code a TEE runs, by kind: the names that pins and releases compare.

What a platform's vendor may change under the code is not here: CPUSVN, TCB components, the TDX module, XFRM and the
rest of the patch level are judged by status, so that an update of the platform is no change of identity. The names
stand in the rows of `kinds.table`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.rats import ClaimValue, Tee

CODE: Mapping[Tee, tuple[str, ...]] = MappingProxyType({tee: row.code for tee, row in KINDS.items()})
"""Names in the order in which a person wants to read them. A name that a kind's older reports lack is left out."""

_MEASURED = re.compile(r"mrenclave|mr_td|rtmr[0-3]|measurement|pcr\d+")
"""Claims that the hardware computed over code. Who launches a TEE writes others of `CODE` as she likes: SNP's host_data
and family_id, a TD's mr_owner and mr_config_id, an enclave's configid."""
_SGX_FLAGS = 16
"""Hex digits of the first half of SGX ATTRIBUTES; the second, XFRM, depends on the processor."""


def code_of(tee: Tee, values: Mapping[str, ClaimValue]) -> dict[str, ClaimValue]:
    """The claims that identify the code, in order; empty for a kind that has no row in `CODE`.

    SGX `attributes` are cut to their flags (8 bytes).
    """
    found = {name: values[name] for name in CODE.get(tee, ()) if name in values}
    flags = found.get("attributes")
    if isinstance(flags, str):
        found["attributes"] = flags[:_SGX_FLAGS]
    return found


def measurements(code: Mapping[str, ClaimValue]) -> frozenset[ClaimValue]:
    """The values among claims that say which code runs which nobody but that code can have."""
    return frozenset(value for name, value in code.items() if _MEASURED.fullmatch(name))
