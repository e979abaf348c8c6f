"""Every sentence that `owner` and the deployment options of `serve` say to a person."""

from __future__ import annotations

_PROGRAM = "attestable-mcp"
USAGE = f"{_PROGRAM} owner ACTION [SOURCE] [OPTIONS]"

EPILOG = f"""\
actions
  init [FILE]      make an owner's key pair: FILE (default owner.pem, private) and its .pub
  grant SOURCE     sign a grant for the server behind an https URL, or for a request that "serve" wrote
  renew GRANT      sign the same grant anew, for a longer time and with a higher serial
  revoke [LIST]    sign a revocation list; what an older LIST takes back stays taken back
  show FILE        show a key, a grant, a revocation list or a request

examples
  {_PROGRAM} owner init
  {_PROGRAM} serve my_server:mcp --owner owner.pub --grant grant.pem --listen 0.0.0.0:8443
  {_PROGRAM} owner grant https://mcp.example:8443 --policy image.toml --name prod --host mcp.example -o grant.pem
  {_PROGRAM} owner renew grant.pem --days 30 -o grant.pem --force
  {_PROGRAM} owner revoke revoked.pem --name prod --below 1767225600 -o revoked.pem --force

The grant says: the holder of this one key is my deployment of that name. The key lives in the TEE; the grant is public.
A client whose policy names the owner refuses everybody else's copy of the same code as wrong_deployment."""

GROUP_KEY = "the owner's key"
GROUP_GRANT = "what is granted"
GROUP_REVOKE = "what is taken back"
GROUP_DEPLOYMENT = "whose deployment this is, and for whom"
HELP_ACTION = "init, grant, renew, revoke or show"
HELP_SOURCE = "what to act on; see below"
HELP_KEY = "the owner's private key (default: owner.pem)"
HELP_ALGORITHM = "ed25519 or p256 (default: ed25519)"
HELP_LOCKED = "file whose first line is the passphrase of the private key; asked for where it is needed"
HELP_NAME = "the deployment's name, such as prod"
HELP_HOST = "a name or address under which clients meet it; may be repeated (default: the host of the URL)"
HELP_DAYS = "days that the grant is good for (default: %(default)s)"
HELP_REVOKE_SERIAL = "take back the grant with this serial; may be repeated"
HELP_BELOW = "take back all grants with a lower serial"
HELP_REVOKE_KEY = "take back every grant for the deployment key with this hash; may be repeated"
HELP_REFRESH = "take nothing more back: the same list with today's date, for clients that demand a young one"
HELP_OUTPUT = "write to this file, else to stdout"
HELP_FORCE = "overwrite the file"

HELP_OWNER = "the owner's public key (owner.pub): clients can then demand this owner's deployment"
HELP_GRANT = "the owner's grant, read anew when the file changes; it may come later"
HELP_STAPLED = "the owner's revocation list, shown to clients; read anew when the file changes"
HELP_CLIENTS = "the TOML policy for clients: who is served, and what is for whom (docs/mutual.md)"
HELP_ATTESTER = "prove this end too, to servers that ask who calls: auto, simulated or a kind of TEE"
HELP_REQUEST = "write a request for a grant (key and evidence) to this file at the start"
NO_OWNER = "--grant, --revocations and --deployment-request need --owner PUB: whose grants are taken?"

ASK_LOCKED = "Passphrase of the owner's key: "
NO_SOURCE = "this action needs a SOURCE"
NO_NAME = "say which deployment: --name NAME"
NOTHING_REVOKED = "say what is taken back: --serial, --below or --deployment-key; or --refresh"
NO_DEPLOYMENT_KEY = "this server has no deployment key"
NO_DEPLOYMENT_KEY_HINT = "start it with --owner owner.pub; it then makes a key and commits to it"
FOREIGN_GRANT = "the grant is signed by another owner than this key"
NOT_OURS = "neither a key, a grant, a revocation list nor a request"
LOCKED_HINT = "give it with --passphrase-file FILE, or run in a terminal"

DEMO_TWO = "two attested programs: billing proves itself too, and calls the tool that is for billing alone"
DEMO_THIRD = "a third one, reports, is served as well"
DEMO_RESERVED = "but not the tool that is for billing: refused before the server behind sees the call"
DEMO_NOBODY = "a program that proves nothing, where clients have to"
DEMO_OWNED = "the owner's own deployment, by a grant that its key in the TEE answers for"
DEMO_COPY = "another operator's copy of the same code, with the same measurement"


def no_grant(command: str, *, outdated: bool, watched: bool) -> str:
    """`serve` has an owner and no grant in force."""
    earlier = "the grant there is for an earlier key: a key lives as long as its process"
    then = "it is taken within a second" if watched else "then start the server with --grant and that file"
    return (
        f"no grant in force ({earlier if outdated else 'none is there yet'}). Clients that name the owner refuse this "
        f'server as wrong_deployment until the owner signs one: "{_PROGRAM} {command}"; {then}'
    )


def no_host(name: str) -> str:
    """A request says nothing of addresses."""
    return f"say under which name clients meet {name!r}: --host NAME"


def made_key(path: object, public: object, digest: str) -> str:
    """`owner init` is done."""
    return f"wrote {path} (private: keep it off the server) and {public}\n  owner  {digest}"


def granted(name: str, serial: int, until: str) -> str:
    """A grant was signed."""
    return f"granted {name!r}, serial {serial}, until {until}"


UNCOMPARED = "nobody compared the code that holds it: --policy FILE grants to code that you named"


def revoked(name: str, number: int) -> str:
    """A list was signed."""
    return f"revocation list {number} of {name!r}"


WANTED_PUBLIC_HINT = "give owner.pub; the private key stays off the server"


def wanted_public(seen: str) -> str:
    """The private key was given, or something else."""
    return f"wanted a PUBLIC KEY block, seen {seen}"


def unusable_key(path: object, reason: str) -> str:
    """A key file that is none, or is locked."""
    return f"owner's key {path}: {reason}"
