"""Addresses as URLs and Host headers write them."""

from __future__ import annotations


def in_url(host: str) -> str:
    """A name or IPv4 address as it is, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host
