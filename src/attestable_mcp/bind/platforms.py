"""Who signed a platform list: signing, and opening under a pinned key."""

from __future__ import annotations

from attestable_mcp.bind.deployment import PrivateKey, check_document, key_hash, sign_document
from attestable_mcp.errors import SignatureInvalid, WrongDeployment
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import PlatformList
from attestable_mcp.wire.grant import from_pem, read_signed, to_pem
from attestable_mcp.wire.platforms import PLATFORMS_LABEL, PLATFORMS_TYPE, Platforms, read_platforms


def sign_platforms(key: PrivateKey, platforms: Platforms) -> bytes:
    """The list as one PEM block."""
    return to_pem(PLATFORMS_LABEL, sign_document(key, PLATFORMS_TYPE, platforms.payload()))


def open_platforms(data: bytes) -> Platforms:
    """A list that the signer whom it names has signed. Whether that signer is wanted, the caller says.

    Raises:
        MalformedEvidence: the bytes break the format.
        SignatureInvalid: the signature does not hold.
    """
    signed = read_signed(from_pem(data, PLATFORMS_LABEL), PLATFORMS_TYPE, most=LIMITS.platform_list)
    platforms = read_platforms(signed)
    try:
        check_document(platforms.signer, signed, "platform list")
    except WrongDeployment as error:
        raise SignatureInvalid(error.message, hint="It was altered, or signed with another key.") from error
    return platforms


def platform_list(platforms: Platforms) -> PlatformList:
    """What rules need of it."""
    return PlatformList(
        signer=key_hash(platforms.signer),
        name=platforms.name,
        issued=platforms.issued,
        expires=platforms.expires,
        ids={kind: frozenset(item.hex() for item in ids) for kind, ids in platforms.ids.items()},
    )
