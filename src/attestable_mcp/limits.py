"""Every appetite has a number: caps on size, count, depth, age and time. This module imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All caps in one place. Sizes in bytes, times in seconds."""

    certificate: int = 192 * 1024
    """A leaf certificate with evidence and stapled endorsements."""
    evidence: int = 192 * 1024
    """One quote, report or document; a TPM's comes with its event log, of which there are some of 100 KiB."""
    endorsement: int = 1024 * 1024
    """One answer of a collateral service, one collateral file."""
    bundle: int = 8 * 1024 * 1024
    """A stored verdict with all that it rests on."""
    platform_list: int = 512 * 1024
    """A signed list of platforms."""
    platform_ids: int = 4000
    """Chips on one list."""
    endorsement_files: int = 256
    """Files read from an --endorsements folder."""
    challenge_answer: int = 512 * 1024
    """The body of an answer to a live challenge."""
    challenge_header: int = 16 * 1024
    challenge_request: int = 4 * 1024
    client_questions: int = 32
    """Questions to sources of collateral that a server has open at a time for the sake of clients' evidence."""
    client_questions_each: int = 4
    """Those for clients of one network: an IPv4 address or an IPv6 /64."""
    client_answer: int = 128 * 1024
    """The body of a client's own proof to a server that asked for it."""
    der_depth: int = 32
    der_items: int = 4096
    cbor_depth: int = 16
    cbor_items: int = 4096
    chain: int = 8
    """Certificates in one chain."""
    tree_depth: int = 20
    """Nodes in an inclusion path of the transcript tree."""
    grant: int = 64 * 1024
    """An owner's grant or revocation list."""
    grant_hosts: int = 64
    revoked: int = 1024
    """Serials, and keys, in one revocation list."""
    public_key: int = 128
    """A SubjectPublicKeyInfo of Ed25519 or P-256."""
    policy_file: int = 1024 * 1024
    pin_file: int = 64 * 1024
    connections: int = 4096
    """Connections that a server has open; fewer where the process may open fewer descriptors."""
    handshake_seconds: float = 10.0
    head_seconds: float = 60.0
    """From the first sign of a request to the end of its head, and from a handshake to the end of the first one."""
    body_seconds: float = 120.0
    """From the head of a request to the end of its body."""
    connect_seconds: float = 10.0
    challenge_seconds: float = 10.0
    endorsement_seconds: float = 10.0
    throttled_endorsement_seconds: float = 60.0
    """As above, for a service that makes one wait for one's turn (AMD's gives one certificate in ten seconds)."""
    binding_max_age: float = 600.0
    stream_proof_seconds: float = 1.0
    """Least time between two proofs of a server for the sake of responses that it is still sending."""
    certificate_max_age: float = 86400.0
    """Greatest age of a certificate where a policy asks for certificate freshness only."""
    remembered: int = 256
    """Proven chains and collateral sets that a verifier remembers."""
    binding_keys: int = 1024
    """Attested binding keys remembered by a client."""
    mcp_request: int = 4 * 1024 * 1024
    """Body of one HTTP request to a wrapped stdio server, as in the MCP SDK."""
    mcp_message: int = 64 * 1024 * 1024
    """One line that a stdio server writes."""
    mcp_waiting: int = 1024
    """Messages that wait for one HTTP response to take them, and requests in flight at one stdio server process."""
    mcp_sessions: int = 128
    """Legacy sessions of a wrapped stdio server, each with a process of its own."""
    mcp_sessions_opening: int = 8
    """Those that are opened at a time for one client, or one network of clients that have proven nothing."""
    mcp_http_sessions: int = 4096
    """Sessions of the handshake era of any other server."""
    mcp_session_spare_seconds: float = 300.0
    """A session that was not used for so long ends where all are taken and its own client wants another."""
    resource_uri: int = 8192
    """Characters of a resource's URI that rules are held against."""
    mcp_owners: int = 16384
    """Sessions whose owner a server remembers, so that no other client takes them over."""
    mcp_session_idle_seconds: float = 1800.0
    mcp_inputs: int = 64
    """What a server may ask of a host for one call at a time, where eras are translated."""
    mcp_probe_seconds: float = 15.0
    """A stdio server's time to answer its first message."""
    manifest: int = 4 * 1024 * 1024
    """A manifest document."""
    manifest_items: int = 10_000
    """Tools, prompts, resources or templates that one server lists."""
    manifest_pages: int = 1000
    """Pages of one list."""
    manifest_seconds: float = 30.0
    """Age from which a call makes the wrapper look at the server's lists again."""
    receipt: int = 8 * 1024
    """One receipt or tree head."""
    receipt_chains: int = 4096
    """Chains of receipts that a server continues; of whoever has most, the one that rested longest goes."""
    receipt_store: int = 1_000_000
    """Receipts that a client keeps; the oldest whole chains go first."""


LIMITS = Limits()
