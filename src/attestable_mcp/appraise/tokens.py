"""Whose tokens a policy believes: one pinned issuer with its keys."""

from __future__ import annotations

from dataclasses import dataclass

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.values import one_of, words

PROFILES = ("ear", "intel-trust-authority", "azure-maa", "confidential-space", "nvidia-nras")
"""Kinds of issuer that `verify.token` knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """One issuer: `issuer` as its tokens name it (`iss`), and the keys that it is believed by.

    Either `keys`, the path of a key set (JWKS) or its https address, or `root`, the path of a PEM root to which the
    chain in a token's header has to lead. `audience` has to name us where tokens name an audience. `nonce` is demanded
    where it is given. What a token itself says of its keys never counts.

    Raises:
        ConfigurationError: no keys, both sorts, or a value that cannot be.
    """

    profile: str
    issuer: str = ""
    keys: str = ""
    root: str = ""
    audience: tuple[str, ...] = ()
    nonce: str = ""

    def __post_init__(self) -> None:
        one_of(self.profile, PROFILES, "profile")
        if not self.issuer and self.profile != "ear":
            raise PolicyFault("issuer is missing: whose tokens?", "profile")
        if bool(self.keys) == bool(self.root):
            raise PolicyFault("wanted either keys (a key set) or root (a PEM root certificate)", "profile")
        if self.keys.startswith("http://") or ("://" in self.keys and not self.keys.startswith("https://")):
            raise PolicyFault("wanted a path or an https address", "keys")
        if self.audience != ():
            words(self.audience, "audience")
