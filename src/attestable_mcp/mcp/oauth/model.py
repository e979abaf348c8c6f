"""The nouns of the OAuth room: what is wanted, what was found, what was granted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from attestable_mcp.errors import ConversationError

FAILED = "authorization_failed"
PENDING = "authorization_pending"
REFUSED = "authorization_refused"


def failure(message: str, *, code: str = FAILED, hint: str = "") -> ConversationError:
    """An authorization that did not come about; `code` is one of the three above."""
    return ConversationError(f"authorization: {message}", code=code, hint=hint)


def shown(value: object) -> str:
    """A stranger's text for a message: printable, on one line, at most 200 characters."""
    return "".join(char if char.isprintable() else " " for char in str(value)[:200])


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthOptions:
    """What the user says. `client_id` may be the https URL of a client id metadata document. Times in seconds."""

    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    redirect_port: int = 0
    login_seconds: float = 300.0
    """How long a person has to sign in."""
    wait_seconds: float = 50.0
    """How long one request of the host's waits for that: most hosts give up after 60 s, and would show no reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What the attested server says of itself (RFC 9728)."""

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An authorization server's metadata (RFC 8414), as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    scopes: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] = ()
    takes_metadata_documents: bool = False
    names_itself: bool = False
    """It adds `iss` to authorization responses (RFC 9207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who we are to one authorization server. `method` is how the token endpoint knows us."""

    id: str
    secret: str = field(default="", repr=False)
    method: str = "none"
    registered: bool = False
    redirect_port: int = 0
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one authorization server granted for one attested server; times in seconds since the epoch, 0 for none."""

    server: str
    resource: str
    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    client: Client
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    scope: str = ""
    expires_at: float = 0.0

    @property
    def header(self) -> str | None:
        """The value of `Authorization`, or None without a token."""
        return f"Bearer {self.access_token}" if self.access_token else None

    def fresh(self, now: float) -> bool:
        """Is the token good for another half minute, as far as its server has said?"""
        return bool(self.access_token) and (self.expires_at == 0.0 or now < self.expires_at - 30)

    def without_tokens(self) -> Grant:
        """The registration alone."""
        return replace(self, access_token="", refresh_token="", expires_at=0.0)

    def to_json(self) -> str:
        """For the store."""
        return json.dumps({"version": 1, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Grant | None:
        """What `to_json` wrote; None for anything else, which then counts as nothing granted."""
        try:
            found: dict[str, Any] = json.loads(text)
            if found.pop("version") != 1:
                return None
            client = Client(**found.pop("client"))
            grant = cls(client=client, **found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        words = (grant.server, grant.resource, grant.issuer, grant.token_endpoint, grant.access_token, client.id)
        return grant if all(isinstance(word, str) for word in words) else None
