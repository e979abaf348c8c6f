"""Do certificate and live evidence speak of the same code?"""

from __future__ import annotations

from attestable_mcp.errors import ChannelMismatch
from attestable_mcp.rats import Claims

_IDENTITY = (
    "mrenclave", "mrsigner", "isvprodid", "isvsvn", "miscselect", "attributes",
    "mr_td", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config", "mr_service_td",
    "td_attributes", "xfam", "rtmr0", "rtmr1", "rtmr2",
    "measurement", "host_data", "id_key_digest", "author_key_digest", "family_id", "image_id", "guest_svn", "policy",
    "vmpl", "report_id", "module_id", "pcr0", "pcr1", "pcr2", "pcr8", "qualified_signer",
)  # fmt: skip
"""Claims that say which code it is and, where evidence names one, which instance: SNP's report_id, Nitro's module_id, a
TPM's key. RTMR 3 and later PCRs grow while a machine runs, and the TCB of a platform may move.
"""


def same_identity(certificate: Claims, live: Claims) -> None:
    """Certificate and live evidence must speak of the same code.

    Raises:
        ChannelMismatch: they differ, or neither names any code.
    """
    names = [name for name in _IDENTITY if name in certificate.values or name in live.values]
    if certificate.tee != live.tee:
        raise ChannelMismatch(f"live evidence: kind wanted {certificate.tee}, seen {live.tee}")
    if not names:
        raise ChannelMismatch(f"live evidence: wanted claims that name the code, seen none ({live.tee})")
    for name in names:
        wanted, seen = certificate.values.get(name), live.values.get(name)
        if wanted != seen:
            raise ChannelMismatch(f"live evidence: {name} wanted {wanted} as in the certificate, seen {seen}")
