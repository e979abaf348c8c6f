"""Trust anchors: the keys that everything rests on, by the SHA-256 of their SubjectPublicKeyInfo.

By key and not by certificate, because vendors re-issue root certificates with the same key. Each constant was
computed from the root certificate that the vendor publishes. Sources: Intel SGX provisioning certification service;
AMD key distribution service (`cert_chain` of each product); AWS, "Nitro Enclaves root certificate"; Google and
Microsoft, virtual TPM roots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attestable_mcp.wire.token import TokenKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """One root key. `spki_sha256` is lower-case hex; `simulated` marks a root that stands for no hardware at all.

    `replaced` marks an anchor that a caller put in the vendor's place. `certificate` is the root certificate (DER),
    where it is at hand, so that a peer need not send it.
    """

    name: str
    spki_sha256: str
    simulated: bool = False
    replaced: bool = False
    certificate: bytes = field(default=b"", repr=False, compare=False)


INTEL_SGX_ROOT = TrustAnchor(
    name="Intel SGX Root CA", spki_sha256="a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"
)
AMD_MILAN_ROOT = TrustAnchor(
    name="AMD ARK-Milan", spki_sha256="9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"
)
AMD_GENOA_ROOT = TrustAnchor(
    name="AMD ARK-Genoa", spki_sha256="429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"
)
AMD_TURIN_ROOT = TrustAnchor(
    name="AMD ARK-Turin", spki_sha256="4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"
)
AWS_NITRO_ROOT = TrustAnchor(
    name="AWS Nitro Enclaves Root G1", spki_sha256="f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225"
)
GOOGLE_TPM_ROOT = TrustAnchor(
    name="Google EK/AK CA Root", spki_sha256="56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f"
)
MICROSOFT_TPM_ROOT = TrustAnchor(
    name="Azure Virtual TPM Root Certificate Authority 2023",
    spki_sha256="5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf",
)
SIMULATED_ROOT = TrustAnchor(
    name="SIMULATED SGX Root CA",
    spki_sha256="48fd66032a4906b86686cf1a9fd3d04c093dc9b85eb8abe6fe7f837125cb2400",
    simulated=True,
)


HARDWARE = ("intel", "amd", "aws", "tpm")
"""The fields of TrustAnchors that hold roots of hardware vendors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrust:
    """One issuer of tokens that a verifier believes: by pinned keys, or by roots of the chain in a token's header.

    `profile` is a row of `verify.token.PROFILES`. `address` is where keys are fetched before a token is judged; empty
    where they are pinned. `audiences` are the names under which tokens may be meant for us, `nonce` the one demanded
    ("" for none).
    """

    profile: str
    issuer: str
    keys: tuple[TokenKey, ...] = ()
    roots: tuple[TrustAnchor, ...] = ()
    audiences: tuple[str, ...] = ()
    nonce: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """The roots that one verifier believes, by vendor. An empty tuple refuses that vendor altogether.

    `tokens` are the issuers of tokens; none is believed by default.

    `tpm` may also name an attestation key itself: a pinned AK needs no certificate.
    """

    intel: tuple[TrustAnchor, ...] = (INTEL_SGX_ROOT,)
    amd: tuple[TrustAnchor, ...] = (AMD_MILAN_ROOT, AMD_GENOA_ROOT, AMD_TURIN_ROOT)
    aws: tuple[TrustAnchor, ...] = (AWS_NITRO_ROOT,)
    tpm: tuple[TrustAnchor, ...] = (GOOGLE_TPM_ROOT, MICROSOFT_TPM_ROOT)
    tokens: tuple[TokenTrust, ...] = ()

    @property
    def all(self) -> tuple[TrustAnchor, ...]:
        """Every anchor of every hardware vendor."""
        return tuple(anchor for vendor in HARDWARE for anchor in getattr(self, vendor))


def _simulated(name: str, spki_sha256: str) -> TrustAnchor:
    return TrustAnchor(name=f"SIMULATED {name}", spki_sha256=spki_sha256, simulated=True)


SIMULATED_ROOTS = TrustAnchors(
    intel=(SIMULATED_ROOT,),
    amd=(
        _simulated("ARK-Milan", "41baa126090e01629f8034fe8139ed010e28a5a3e0bed2be3fbef71575f72938"),
        _simulated("ARK-Genoa", "bc384514d0cb440dba13328909083c8f5a9286b2ed34a32a2775a69a5d38e8fc"),
        _simulated("ARK-Turin", "73f7024e8bc3df0c54a1ccf6fd01e6fe5886ef16e89f19961dc206aee9fd9e0b"),
    ),
    aws=(_simulated("AWS Nitro Enclaves Root", "cc7e8affa94da0d988313c1c3b1edebbd7b8095ab1bbdff8e5c29a736fbbb897"),),
    tpm=(_simulated("TPM Root CA", "a62aaca7159216ae2a5a2e8e1f9a3a0c43ffd031730c47afc114d548c13e8e20"),),
)
"""The root of each simulated vendor: it stands beside the vendor's own, marked, so that it is refused by name."""
