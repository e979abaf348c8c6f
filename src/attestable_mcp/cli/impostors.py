"""The impostors of the demo. Each is a working attack up to the point where the client notices.

They run on loopback against servers of the demo itself, and stop with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.wire import der

_CHUNK = 65536
_P256 = "1.2.840.10045.3.1.7"


@contextlib.asynccontextmanager
async def thief_of_certificate(certificate: bytes) -> AsyncIterator[str]:
    """Serves somebody's certificate, evidence and all, but signs the handshake with another key. Gives the URL."""
    own_key = _key_that_claims_to_be(certificate)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with _server_context(certificate, own_key) as context:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with _running(server) as url:
        yield url


@contextlib.asynccontextmanager
async def relay_with_key(certificate: bytes, key_pem: bytes, url: str) -> AsyncIterator[str]:
    """Holds a stolen leaf key: ends TLS itself and passes every byte on to the real server. Gives its own URL."""
    target = urlsplit(url)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port, ssl=blind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)

    with _server_context(certificate, key_pem) as context:
        server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    async with _running(server) as own_url:
        yield own_url


@contextlib.asynccontextmanager
async def _running(server: asyncio.Server) -> AsyncIterator[str]:
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


@contextlib.contextmanager
def _server_context(certificate: bytes, key_pem: bytes) -> Iterator[ssl.SSLContext]:
    """The standard library's own TLS, which an attacker would use. It reads keys from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "leaf.pem")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(key_pem + ssl.DER_cert_to_PEM_cert(certificate).encode())
        context.load_cert_chain(path)
    yield context


def _key_that_claims_to_be(certificate: bytes) -> bytes:
    """A fresh private scalar beside the certificate's public point: OpenSSL compares the points and takes it.

    RFC 5915: ECPrivateKey ::= SEQUENCE { 1, privateKey OCTET STRING, [0] parameters, [1] publicKey BIT STRING }.
    """
    from cryptography.x509 import load_der_x509_certificate

    public = load_der_x509_certificate(certificate).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    scalar = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    body = der.encode_sequence(
        der.encode_integer(1),
        der.encode_octet_string(scalar),
        der.encode(0xA0, der.encode_oid(_P256)),
        der.encode(0xA1, der.encode(der.BIT_STRING, b"\0" + point)),
    )
    return _pem("EC PRIVATE KEY", body)


def _pem(label: str, body: bytes) -> bytes:
    import base64

    lines = base64.encodebytes(body).decode().replace("\n", "")
    wrapped = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
    return f"-----BEGIN {label}-----\n{wrapped}\n-----END {label}-----\n".encode()
