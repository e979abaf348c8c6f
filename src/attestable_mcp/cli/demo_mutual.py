"""A chapter of the demo: two attested programs talk, a third is refused for one tool, and another operator's copy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from attestable_mcp import attestation_of
from attestable_mcp.cli import text_owner as text
from attestable_mcp.cli.demo import Step, knock

_LEDGER, _BILLING, _REPORTS = (bytes([mark]) * 32 for mark in (0x1E, 0xB1, 0x4E))
_TRUST = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n'
_POLICY = f'{_TRUST}[policy]\nmrenclave = "{_LEDGER.hex()}"\n'
_CLIENTS = f"""clients = "required"
{_TRUST}
[[policy.accept]]
name = "billing"
mrenclave = "{_BILLING.hex()}"
[[policy.accept]]
name = "reports"
mrenclave = "{_REPORTS.hex()}"
[[tool]]
name = "transfer"
allow = [{{ client = "billing" }}]
"""


async def play(done: Callable[[Step], None]) -> None:
    """Mutual proof, then whose copy it is. Raises: AttestationError."""
    from attestable_mcp.attest.simulated import SimulatedAttester
    from attestable_mcp.mcp.serve import serve

    async with serve(_ledger(), attester=SimulatedAttester(_LEDGER), clients=_CLIENTS) as server:
        billing, reports = SimulatedAttester(_BILLING), SimulatedAttester(_REPORTS)
        url, policy = server.url, _policy()
        done(await knock(text.DEMO_TWO, "verified", url, policy, "transfer", {"amount": 5}, attester=billing))
        done(await knock(text.DEMO_THIRD, "verified", url, policy, "balance", {}, attester=reports))
        done(await _reserved(url, reports))
        done(await knock(text.DEMO_NOBODY, "client_attestation_required", url, policy))
    with tempfile.TemporaryDirectory() as folder:
        await _copies(Path(folder), done)


def _policy(**deployment: Any) -> Any:
    from attestable_mcp.appraise.deployment import DeploymentPolicy
    from attestable_mcp.appraise.policy import Policy

    policy = Policy.from_toml(_POLICY, "ledger.toml")
    return replace(policy, deployment=DeploymentPolicy(**deployment)) if deployment else policy


def _ledger() -> Any:
    """A server with a tool for one client and a tool for all."""
    server = MCPServer("ledger", log_level="WARNING")

    async def transfer(amount: int, ctx: Context[Any, Any]) -> str:
        """Move money."""
        peer = attestation_of(ctx).peer
        return f"{amount} moved for {peer.release if peer else 'nobody'}"

    async def balance(ctx: Context[Any, Any]) -> str:
        """Say what is there."""
        peer = attestation_of(ctx).peer
        return f"37, says the ledger to {peer.release if peer else 'nobody'}"

    server.add_tool(transfer)
    server.add_tool(balance)
    return server


async def _reserved(url: str, attester: Any) -> Step:
    """The third program asks for the reserved tool all the same, by hand: a client of ours would not send the call."""
    from attestable_mcp.mcp.gate import make_gate
    from attestable_mcp.tls.client import attested_http_client

    step = Step(title=text.DEMO_RESERVED, expected="tool_not_allowed", code="", url=url)
    version, name = "2026-07-28", "io.modelcontextprotocol"
    meta = {f"{name}/protocolVersion": version, f"{name}/clientCapabilities": {}}
    params = {"name": "transfer", "arguments": {"amount": 5}, "_meta": meta}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version,
               "mcp-method": "tools/call", "mcp-name": "transfer"}  # fmt: skip
    gate = make_gate(_policy(), attester=attester)
    async with attested_http_client(gate.policy, url=url, gate=gate) as http:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        error = (await http.post(url, json=call, headers=headers)).json().get("error", {})
    data = error.get("data") or {}
    return replace(
        step, code=str(data.get("code", "")), message=str(error.get("message", "")), hint=str(data.get("hint", ""))
    )


async def _copies(folder: Path, done: Callable[[Step], None]) -> None:
    """The owner's deployment, and the same code run by somebody else."""
    from attestable_mcp.attest.simulated import SimulatedAttester
    from attestable_mcp.bind.deployment import key_hash, sign_grant, spki_of
    from attestable_mcp.cli.ownerkey import make_key
    from attestable_mcp.mcp.serve import serve
    from attestable_mcp.tls.deployment import DeploymentHolder
    from attestable_mcp.wire.grant import GRANT_LABEL, Grant, to_pem

    owner, other = make_key("ed25519"), make_key("ed25519")
    wanted = _policy(owners=(key_hash(spki_of(owner)),), name="prod")
    now = datetime.now(UTC).replace(microsecond=0)
    titles = ((owner, text.DEMO_OWNED, "verified"), (other, text.DEMO_COPY, "wrong_deployment"))
    for number, (key, title, expected) in enumerate(titles):
        path = folder / f"grant-{number}.pem"
        holder = DeploymentHolder(spki_of(key), grant_file=path)
        grant = Grant(
            owner=spki_of(key), name="prod", hosts=("127.0.0.1",), key=holder.key.spki_sha256, serial=1,
            not_before=now - timedelta(minutes=1), not_after=now + timedelta(hours=1),
        )  # fmt: skip
        path.write_bytes(to_pem(GRANT_LABEL, sign_grant(key, grant)))
        async with serve(_ledger(), attester=SimulatedAttester(_LEDGER), deployment=holder) as server:
            tool = "balance" if expected == "verified" else ""
            done(await knock(title, expected, server.url, wanted, tool, {}))
