"""One MCP server in a process of its own: `plain` (answers in JSON only), `events` (plain HTTP, as the SDK answers by
itself), `tls` (as `plain`, by the standard library), `attested`, `mutual-key`, `mutual-quote`, or `bare` (attested, and
commits to no manifest).

Ends when stdin does.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import sys
import tempfile
from pathlib import Path

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings


def build() -> MCPServer:
    server = MCPServer("bench", log_level="WARNING")  # a line for each session would be measured too

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server


def self_signed() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    with tempfile.TemporaryDirectory() as folder:
        cert_file, key_file = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context.load_cert_chain(cert_file, key_file)
    return context


SERVER = build()


async def until_stdin_ends() -> None:
    await asyncio.to_thread(sys.stdin.buffer.read)


async def unattested(mode: str) -> None:
    security = TransportSecuritySettings(allowed_hosts=["127.0.0.1:*"], allowed_origins=[])
    app = SERVER.streamable_http_app(json_response=mode != "events", transport_security=security)
    tls = {"ssl_context_factory": lambda _config, _default: self_signed()} if mode == "tls" else {}
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", access_log=False, timeout_keep_alive=60, **tls)
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"{'https' if mode == 'tls' else 'http'}://127.0.0.1:{port}/mcp", flush=True)
    await until_stdin_ends()
    server.should_exit = True
    await task


async def attested(mode: str) -> None:
    from attestable_mcp import Policy, serve
    from attestable_mcp.appraise.policy import TrustPolicy
    from attestable_mcp.appraise.server_policy import ServerPolicy

    clients = None
    if mode not in ("attested", "bare"):  # mutual-key, mutual-quote
        trust = TrustPolicy(simulated="accept", binding="quote" if mode == "mutual-quote" else "key")
        clients = ServerPolicy(clients="required", policy=Policy.genuine_only(trust=trust))
    async with serve(
        SERVER, listen="127.0.0.1:0", attester="simulated", clients=clients, manifest=mode != "bare"
    ) as running:
        print(running.url, flush=True)
        await until_stdin_ends()


if __name__ == "__main__":
    asyncio.run((unattested if sys.argv[1] in ("plain", "events", "tls") else attested)(sys.argv[1]))
