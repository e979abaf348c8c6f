"""Addresses as URLs and Host headers write them."""

from __future__ import annotations

import ipaddress


def in_url(host: str) -> str:
    """A name or IPv4 address as it is, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def network_of(host: str) -> str:
    """Whose an address is, as far as it tells: an IPv4 address, or the /64 that an IPv6 customer gets at least.

    What is no address is given back as it is.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
