"""One TLS 1.3 connection without I/O: ciphertext in through `feed`, ciphertext out through `take`.

pyOpenSSL under it, because CPython's `ssl` has no exporter (RFC 8446 section 7.5) up to 3.14.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL, crypto
from OpenSSL import _util as _OPENSSL

from attestable_mcp.errors import ConversationError

RECORD = 16384
"""Greatest plaintext of one record (RFC 8446 section 5.1)."""
RECORD_OVERHEAD = 5 + 256
"""Header and greatest expansion of one record (RFC 8446 section 5.2)."""
_SMALL_OVERHEAD = 64
BULKY = 4096
"""Bytes at once, after which a connection's buffers are worth giving back."""
_KEY_REASONS = ("bad signature",)
"""OpenSSL's words for a CertificateVerify (RFC 8446 section 4.4.3) that the certificate's key did not sign."""
_PLAIN_REASONS = ("wrong version number",)
"""OpenSSL's words for an answer that is no TLS record, such as plain HTTP."""
_VERSION_REASONS = ("protocol version", "unsupported protocol", "no protocols available")


class Identity:
    """A certificate with its private key, as OpenSSL holds them. The key stays in memory.

    Raises:
        ConversationError: they cannot be read, or are no pair of an elliptic curve.
    """

    __slots__ = ("certificate", "certificate_der", "key", "spki_sha256")

    def __init__(self, certificate_der: bytes, key_pem: bytes) -> None:
        try:
            self.certificate = x509.load_der_x509_certificate(certificate_der)
            key = load_pem_private_key(key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConversationError(f"certificate or key: cannot be read: {error}", code="identity") from error
        if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise ConversationError("certificate and key: wanted an elliptic curve pair", code="identity")
        self.key = key
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.certificate_der = certificate_der
        self.spki_sha256 = hashlib.sha256(spki).digest()


class Channel:
    """The state of one connection. Not thread-safe; calls never block.

    `own` is the identity that this connection really uses, also after its context went on to another. `transcript` is
    the digest of the newest transcript that was answered for on it (64 bytes), empty before. `client` is what a server
    knows of the client at the other end (`tls.clients`), `network` where that is (`tls.address.network_of`).
    """

    __slots__ = (
        "_bulky", "_connection", "_failed", "_finished", "_starved", "client", "established", "network", "own",
        "server_side", "transcript",
    )  # fmt: skip

    def __init__(self, context: SSL.Context, *, server_side: bool, own: Identity | None, hostname: str | None) -> None:
        connection = SSL.Connection(context, None)
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if hostname and not _is_address(hostname):
                connection.set_tlsext_host_name(hostname.encode("idna"))
        self._connection = connection
        self._bulky = False
        self._starved = False
        self._finished = False
        self._failed: SSL.Error | None = None
        self.established = False
        self.own = own
        self.server_side = server_side
        self.transcript = b""
        self.client: object = None
        self.network = ""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Ciphertext from the peer."""
        if data:
            self._connection.bio_write(data)
            self._bulky = self._bulky or len(data) > BULKY
            self._starved = False

    def feed_eof(self) -> None:
        """The peer closed its sending side of the socket."""
        self._bulky = False
        self._connection.bio_shutdown()
        self._starved = False

    def handshake(self) -> bool:
        """Go on with the handshake; True once it stands. Take and send what there is after each call.

        Raises:
            OpenSSL.SSL.Error: it failed; `take` then holds the alert for the peer.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._starved = True
            return False
        self.established = True
        return True

    def read(self, size: int) -> bytes | None:
        """Up to `size` bytes of plaintext; None when more ciphertext is needed; b"" after the peer's close_notify.

        Raises:
            OpenSSL.SSL.Error: a record does not decrypt, or the socket ended without close_notify (SysCallError).
        """
        if self._starved:
            return None
        if self._failed is not None:
            raise self._failed
        if self._finished:
            return b""
        try:
            return self._connection.recv(size if size < RECORD else RECORD)
        except SSL.WantReadError:
            self._starved = True
            if self._bulky:
                self._bulky = False
                _renew(self._connection, "_into_ssl")
            return None
        except SSL.ZeroReturnError:
            self._finished = True
            return b""

    def read_all(self, size: int) -> bytes | None:
        """Like `read`, but goes on over record borders until `size` bytes or until starved.

        What came before an end or an error is given out first.
        """
        first = self.read(size)
        if not first or len(first) >= size:
            return first
        parts, total = [first], len(first)
        while total < size:
            try:
                chunk = self.read(size - total)
            except SSL.Error as error:
                self._failed = error
                break
            if not chunk:
                break
            parts.append(chunk)
            total += len(chunk)
        return first if len(parts) == 1 else b"".join(parts)

    def write(self, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt all of `data`; the ciphertext to send.

        Raises:
            OpenSSL.SSL.Error: the connection is closed or broken.
        """
        if not data:
            return self.take()
        size = len(data)
        if size <= RECORD:
            self._connection.send(data)
        else:  # pyOpenSSL turns on partial writes, of one record each
            self._connection.sendall(data)
        expected = size + _SMALL_OVERHEAD * (size // RECORD + 1)
        cipher = self._connection.bio_read(expected)
        if len(cipher) == expected:
            cipher += self.take()
        if size > BULKY:
            _renew(self._connection, "_from_ssl")
        return cipher

    def take(self) -> bytes:
        """All ciphertext that waits to be sent, or b""."""
        parts = []
        try:
            while True:
                parts.append(self._connection.bio_read(4 * RECORD))
                if len(parts[-1]) < 4 * RECORD:
                    break
        except SSL.Error:
            pass
        taken = b"".join(parts)
        if len(taken) > BULKY:
            _renew(self._connection, "_from_ssl")
        return taken

    def close(self) -> bytes:
        """Say close_notify once; the last ciphertext to send."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass
        return self.take()

    def pending(self) -> int:
        """Plaintext bytes already decrypted."""
        return self._connection.pending()

    def export_keying_material(self, label: bytes, length: int, context: bytes | None = b"") -> bytes:
        """TLS exporter (RFC 8446 section 7.5): `length` bytes under `label`.

        Raises:
            ConversationError: the handshake does not stand yet.
        """
        if not self.established:
            raise ConversationError("TLS exporter: wanted an established connection")
        return self._connection.export_keying_material(label, length, context)

    def peer_certificate_der(self) -> bytes | None:
        """The peer's leaf as OpenSSL itself writes it: `cryptography` refuses some real attested certificates."""
        certificate = self._connection.get_peer_certificate()
        return None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    def own_certificate_der(self) -> bytes | None:
        """The leaf that this connection showed to its peer."""
        return self.own.certificate_der if self.own else None

    def alpn(self) -> str | None:
        """The application protocol agreed on (RFC 7301)."""
        return self._connection.get_alpn_proto_negotiated().decode("ascii") or None

    def selected_alpn_protocol(self) -> str | None:
        """The name by which `ssl.SSLObject` calls `alpn`, for HTTP libraries that ask."""
        return self.alpn()

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol and key bits, as `ssl.SSLObject.cipher` gives them."""
        name, version, bits = (
            self._connection.get_cipher_name(),
            self._connection.get_cipher_version(),
            self._connection.get_cipher_bits(),
        )
        return None if name is None or version is None or bits is None else (name, version, bits)

    def version(self) -> str:
        """`TLSv1.3`."""
        return self._connection.get_protocol_version_name()

    def group(self) -> str | None:
        """The key exchange group, such as `X25519MLKEM768`."""
        return self._connection.get_group_name()


def _renew(connection: SSL.Connection, name: Literal["_into_ssl", "_from_ssl"]) -> bool:
    """Give back what one of OpenSSL's memory BIOs grew to: they never shrink, and a server's would hold 20 KiB of each
    connection after a handshake with evidence. False while bytes wait in it, and with a pyOpenSSL whose parts have
    other names: it stays as it is then.
    """
    try:
        lib, waits = _OPENSSL.lib, _OPENSSL.ffi.new("char **")
        if lib.BIO_get_mem_data(getattr(connection, name), waits):
            return False
        fresh = lib.BIO_new(lib.BIO_s_mem())
        if fresh == _OPENSSL.ffi.NULL:
            return False
        setattr(connection, name, fresh)
        lib.SSL_set_bio(connection._ssl, connection._into_ssl, connection._from_ssl)  # which frees the one before
    except AttributeError:
        return False
    return True


def reason(error: SSL.Error) -> str:
    """OpenSSL's own words for a failure."""
    if isinstance(error, SSL.SysCallError):
        return "the socket ended without close_notify"
    entries: Any = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or type(error).__name__


def wrap(error: SSL.Error, what: str) -> ConversationError:
    """The family's error for a failure of OpenSSL.

    Its code is `tls_version` when the peer is older than TLS 1.3, `key_not_proven` when it shows a certificate whose
    key it does not hold, and `tls` otherwise.
    """
    words = reason(error)
    if any(sign in words for sign in _VERSION_REASONS):
        return ConversationError(
            f"{what}: wanted TLS 1.3, the peer offers less ({words})",
            code="tls_version",
            hint="only TLS 1.3 carries the binding; no older version is accepted",
        )
    if any(sign in words for sign in _KEY_REASONS):
        return ConversationError(
            f"{what}: wanted a handshake signed by the certificate's key, seen one that is not ({words})",
            code="key_not_proven",
            hint="The peer shows a certificate whose key it does not hold. Treat it as hostile.",
        )
    if any(sign in words for sign in _PLAIN_REASONS):
        return ConversationError(
            f"{what}: wanted TLS 1.3, seen no TLS at all ({words})",
            code="tls",
            hint="Check the address and the port: something answers there that speaks no TLS, such as plain HTTP.",
        )
    return ConversationError(f"{what}: {words}", code="tls")


def _is_address(hostname: str) -> bool:
    """SNI carries names only (RFC 6066 section 3)."""
    return ":" in hostname or hostname.replace(".", "").isdigit()
