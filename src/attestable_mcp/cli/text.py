"""Every sentence that a person reads at the command line, in one place."""

from __future__ import annotations

from attestable_mcp.cli import text_doctor, text_offer, text_owner

PROGRAM = "attestable-mcp"
REPORT_TO = "the issue tracker of attestable-mcp"

DESCRIPTION = "Prove which code runs behind an MCP server before you send it one byte."

EXIT_CODES = """\
exit codes
  0  verified       everything the policy asks for was proven
  1  usage          the command line, one of your files, or a fault of ours; nothing was judged
  2  refused        the evidence is false, stale, someone else's, or not what the policy wants
  3  unavailable    something the verdict needs could not be had; trying again may help
  4  partial        genuine hardware (--genuine-only), but the code that runs was not compared"""

MAIN_EPILOG = f"""\
start here
  {PROGRAM} demo                                          see it work, with a simulated TEE and no network
  {PROGRAM} serve my_server:mcp                           serve an MCP server object with evidence
  {PROGRAM} serve -- npx -y @scope/some-server            serve any stdio MCP server
  {PROGRAM} pin https://mcp.example:8443/mcp -o it.toml   write a policy for exactly this server
  {PROGRAM} verify https://mcp.example:8443/mcp --policy it.toml

"{PROGRAM} VERB --help" explains one verb and gives examples.

{EXIT_CODES}"""

SUMMARIES = {
    "serve": "serve an MCP server over TLS 1.3 with evidence",
    "verify": "verify a server, a certificate or a quote against a policy",
    "inspect": "show what evidence claims, without verifying it",
    "platforms": "note, sign and show lists of machines that a policy can hold servers to",
    "tcb": "show how up to date a platform is, now and under the early verdict",
    "bundle": "save a verdict with everything it rests on, to replay it offline",
    "manifest": text_offer.MANIFEST_SUMMARY,
    "receipts": text_offer.RECEIPTS_SUMMARY,
    "pin": "write a policy for exactly the server that answers now; keep the pins of connect",
    "call": "call one tool of a verified server",
    "tools": "list the tools of a verified server",
    "connect": "join a host that speaks stdio to a server that must prove itself",
    "owner": "make an owner's key; grant, renew and revoke its deployments",
    "install": "put a server into a desktop host's configuration",
    "uninstall": "take it out again",
    "doctor": text_doctor.SUMMARY,
    "demo": "see a server proven and impostors refused, on this machine",
    "completion": "print a completion script for a shell",
}

# help of single options

HELP_JSON = "print one JSON object on stdout, whatever happens"
HELP_DEBUG = "on a fault of ours, show the traceback on stderr"
HELP_VERSION = "print the version and exit"
GROUP_TRUST = "what to demand (one of --policy and --genuine-only)"
HELP_POLICY = "the TOML policy that the server must satisfy"
HELP_GENUINE = 'ask for genuine hardware only; the best verdict is then "partial"'
HELP_ENDORSEMENTS = (
    "file or folder of vendor collateral (collateral JSON, certificates, CRLs), used in place of the network"
)
HELP_ANCHOR = (
    "trust this root certificate in place of the vendors', for this call, which the result says. amd=PEM, aws=PEM, "
    "intel=PEM or tpm=PEM names one vendor; tpm=PEM may be the public key of a TPM's attestation key"
)
HELP_ACCEPT_STATUS = "also accept this TCB status, such as OutOfDate; may be repeated; never Revoked"
HELP_ACCEPT_PRODUCT = (
    "also accept AMD processors of this generation, such as Milan, whose endorsement keys can be extracted in "
    "software; may be repeated"
)
HELP_SIMULATED = "accept evidence of the simulated TEE, which proves nothing; for tests and demonstrations"
HELP_AT = "judge as of this moment, such as 2026-01-31T12:00:00Z; for stored evidence and bundles"
HELP_BUNDLE_OUTPUT = "write the bundle to this file"
HELP_PROVENANCE = "keep this file in the bundle, unjudged, such as a Sigstore bundle of the release; may be repeated"
HELP_SOURCE = "an https URL, or a file with a bundle, a certificate (PEM or DER) or a quote; - reads stdin"
HELP_URL = "the server's address, such as https://mcp.example:8443/mcp"
HELP_TOOL = "the tool's name"
HELP_ARGUMENTS = "name=value, where a value that parses as JSON is JSON, else a string; name:=json must be JSON"
HELP_ARGS_JSON = "the whole argument object as JSON, in place of name=value"
HELP_TIMEOUT = "seconds before a connection or an answer counts as stalled (default: %(default)s)"
HELP_SILENCE = "seconds that an answer may be silent (default: %(default)s)"
HELP_STALL = "end calls when the server shows no sign of life for so long; 0: never (default: %(default)s)"
HELP_OUTPUT = "write the policy to this file, else to stdout"
HELP_FORCE = "overwrite the file"
HELP_TARGET = "module:object (an SDK server, FastMCP server or ASGI app), or the http URL of a local server"
HELP_ALLOW_ENV = "start although this variable, such as LD_PRELOAD, loads code into the server; may be repeated"
HELP_LISTEN = "address to listen on (default: 127.0.0.1:0, a free port)"
HELP_ATTESTER = (
    "auto, sgx, nitro, dstack, tsm (TDX, SEV-SNP), azure, tpm or simulated; NAME:PLACE says where its device is, "
    "simulated:TEE which kind to play, tpm,pcrs=0-9+14 which PCRs to quote (default: auto, which never picks simulated)"
)
HELP_STAPLE = (
    "file or folder of collateral that the certificate carries, so that clients need not fetch it: a TPM key's "
    "certificates, a VCEK with its chain, collateral JSON"
)
HELP_HOST = "a name or address that goes into the certificate; may be repeated"
HELP_SHELL = "bash, zsh or fish"

# epilogs

EPILOGS = {
    "owner": text_owner.EPILOG,
    "doctor": text_doctor.EPILOG,
    "serve": f"""\
examples
  {PROGRAM} serve my_server:mcp --listen 0.0.0.0:8443
  {PROGRAM} serve http://127.0.0.1:8000/mcp
  {PROGRAM} serve --attester simulated -- python -m mcp_server_time
  {PROGRAM} serve my_server:mcp --listen 0.0.0.0:8443 --health 0.0.0.0:8081 --log-format json

When the server is ready, the URL is printed; with --json as one line {{"url", "tee", "spki_sha256"}} on stdout.
SIGTERM and Ctrl-C stop taking connections, let running calls end, and exit 0.

Evidence proves the code of the whole TEE. A command behind "--" is covered only if the TEE's measurement covers it.""",
    "verify": f"""\
examples
  {PROGRAM} verify https://mcp.example:8443/mcp --policy prod.toml
  {PROGRAM} verify https://mcp.example:8443/mcp --genuine-only
  {PROGRAM} verify https://mcp.example:8443/mcp                 (by its pin, if "connect" or "pin --update" made one)
  {PROGRAM} verify quote.bin --genuine-only --endorsements collateral/ --at 2026-01-31T12:00:00Z
  {PROGRAM} verify server.pem --policy prod.toml --json | jq .verdict
  {PROGRAM} verify prod.bundle --at 2026-01-31T12:00:00Z

For a URL, the connection itself is proven too: the server answers a fresh challenge bound to it.
For a file, no connection exists, so none is proven; the result says so.
A bundle brings its own policy; --policy takes yours in its place. It is judged as of now unless --at says otherwise.

{EXIT_CODES}""",
    "inspect": f"""\
examples
  {PROGRAM} inspect quote.bin
  {PROGRAM} inspect https://mcp.example:8443/mcp --json

Nothing is verified: every line could be a lie. Use it to look, never to decide; "verify" decides.""",
    "platforms": f"""\
examples
  {PROGRAM} platforms add rack7.toml https://mcp.example:8443/mcp --note "rack 7, Geneva"
  {PROGRAM} platforms sign rack7.toml --key list.key --days 30 -o rack7.pem
  {PROGRAM} platforms show rack7.pem

A policy with platforms = {{ file = "rack7.pem", key = "hash of the signer" }} refuses every machine that is not
listed, and every machine once the list has run out. It answers attacks in which somebody takes a chip's keys with an
interposer on its memory: their quotes are genuine, but of no machine of yours. "owner init list.key" makes a key.""",
    "tcb": f"""\
examples
  {PROGRAM} tcb https://mcp.example:8443/mcp
  {PROGRAM} tcb quote.bin --policy prod.toml --json | jq .changes
  {PROGRAM} tcb quote.bin --endorsements collateral/ --early early-collateral/ --at 2026-01-31T12:00:00Z
  {PROGRAM} tcb --forget

Intel publishes a new evaluation early, and makes it the standard one months later: whoever is short under the early one
has that long to update. AMD publishes levels only, and what the policy demands of them counts; AWS, makers of TPMs and
issuers of tokens publish no levels, and what is shown is when the proof runs out.
Only the platform is judged: no code is compared, and no connection is proven.
--forget starts the record of the highest evaluation numbers met anew; older collateral is then accepted once more.

exit codes
  0  the policy accepts the platform now and under the early verdict
  2  the policy refuses it now
  3  no verdict: something it needs could not be had
  4  accepted now, refused under the early verdict: a change is coming""",
    "manifest": text_offer.MANIFEST_EPILOG,
    "receipts": text_offer.RECEIPTS_EPILOG,
    "bundle": f"""\
examples
  {PROGRAM} bundle https://mcp.example:8443/mcp --policy prod.toml -o prod.bundle
  {PROGRAM} bundle quote.bin --genuine-only -o quote.bundle
  {PROGRAM} verify prod.bundle --at 2026-01-31T12:00:00Z              (the same findings, with no network)
  {PROGRAM} verify prod.bundle --policy mine.toml                     (today, by your own policy)

The exit code is the verdict's; the file is written whatever the verdict is. It holds evidence, collateral, the live
answer, the policy and the time, and no secret. docs/bundle.md says what a replay shows and what it cannot show.""",
    "pin": f"""\
examples
  {PROGRAM} pin https://mcp.example:8443/mcp -o prod.toml
  {PROGRAM} pin https://127.0.0.1:8443/mcp --danger-accept-simulated
  {PROGRAM} pin https://mcp.example:8443/mcp --attester auto -o prod.toml     (for a server that asks who calls)
  {PROGRAM} pin --list
  {PROGRAM} pin --update https://mcp.example:8443/mcp
  {PROGRAM} pin --forget https://mcp.example:8443/mcp

The server's hardware is verified; that its code is the code you want is not: you trust what answers now.
Compare the measurement with one that you built or were given, then commit the file.

Without a policy, "connect" pins a server at its first use, in a file of yours for each origin, and refuses one that
differs later. --update shows the difference and accepts it; a changed patch level of the platform is no difference.""",
    "call": f"""\
examples
  {PROGRAM} call https://mcp.example:8443/mcp get_current_time timezone=Europe/Paris --policy prod.toml
  {PROGRAM} call https://mcp.example:8443/mcp add a=2 b=3 --policy prod.toml
  {PROGRAM} call https://mcp.example:8443/mcp search 'query:="42"' --policy prod.toml      ("42" stays a string)
  {PROGRAM} call https://mcp.example:8443/mcp search --args-json '{{"query": "x"}}' --policy prod.toml
  {PROGRAM} call https://mcp.example:8443/mcp transfer amount=5 --policy prod.toml --attester auto   (prove who calls)

The server is verified first; a refused server never sees the tool's name or an argument.
Without --policy it is held to its pin, if "connect" or "pin --update" made one; nothing is pinned by this.
If the tool itself reports an error, the exit code is 1.""",
    "tools": f"""\
examples
  {PROGRAM} tools https://mcp.example:8443/mcp --policy prod.toml
  {PROGRAM} tools https://mcp.example:8443/mcp --policy prod.toml --json | jq -r '.tools[].name'
  {PROGRAM} tools https://mcp.example:8443/mcp                  (by its pin, if "connect" or "pin --update" made one)
  {PROGRAM} tools https://mcp.example:8443/mcp --policy prod.toml --attester auto     (prove who asks)""",
    "connect": f"""\
examples
  {PROGRAM} connect https://mcp.example:8443/mcp --policy prod.toml
  {PROGRAM} connect https://mcp.example:8443/mcp                     (trust on first use: pins what answers first)
  {PROGRAM} connect https://127.0.0.1:8443/mcp --danger-accept-simulated
  {PROGRAM} connect https://mcp.example:8443/mcp --policy prod.toml --header-env X-Api-Key=EXAMPLE_KEY
  {PROGRAM} connect https://mcp.example:8443/mcp --policy prod.toml --listen 127.0.0.1:0
  {PROGRAM} connect https://mcp.example:8443/mcp --policy prod.toml --login
  {PROGRAM} connect https://mcp.example:8443/mcp --logout

An MCP host (Claude Desktop, Cursor, VS Code, ...) starts this as the command of a stdio server.
stdout carries MCP only; stderr says what was proven and why a server was refused, with --json as JSON.
A refused server gets no byte of MCP. The host sees an error that names the check, and the next request tries again.

Where the server asks for authorization, the bridge signs in by OAuth: a browser opens, and the token goes to this
server alone. --login does that beforehand, at a terminal.

With --listen a local URL takes the place of stdio, for hosts that want one: it is printed on stdout and holds a secret.
Each answer's header Attestation-Verdict says what was proven.

Without --policy the server must be genuine, and its code the same as at first use: nobody has reviewed it for you.
"pin --list" shows what is pinned, "pin --update URL" accepts a change.""",
    "install": f"""\
examples
  {PROGRAM} install claude-desktop example https://mcp.example:8443/mcp --policy prod.toml
  {PROGRAM} install vscode example https://mcp.example:8443/mcp --scope project --dry-run
  {PROGRAM} install generic example https://mcp.example:8443/mcp

hosts: claude-desktop, claude-code, cursor, vscode, gemini-cli, goose, and generic, which prints JSON for any other

The file is backed up beside itself. Comments and everything else in it stay; a file that is damaged is refused with the
line. Without --policy the server is trusted on first use, as "connect --help" says.""",
    "uninstall": f"""\
examples
  {PROGRAM} uninstall claude-desktop example
  {PROGRAM} uninstall vscode example --scope project --dry-run

If nobody changed the file since "install", it gets back the bytes that it had before.""",
    "demo": """\
Runs two MCP servers and a client on this machine with the simulated TEE, then impostors that must be refused.
Nothing leaves the machine. Exits 0 only if every step went as it should.""",
    "completion": f"""\
examples
  source <({PROGRAM} completion bash)
  {PROGRAM} completion zsh > ~/.zfunc/_{PROGRAM}
  {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish""",
}


# usage errors


def see_help(program: str) -> str:
    """Hint after any wrong command line."""
    return f'"{program} --help" shows the arguments and gives examples'


def unknown_verb(word: str, near: str) -> str:
    """A verb that does not exist, with the nearest that does."""
    return f"there is no verb {word!r}" + (f"; did you mean {near!r}?" if near else "")


MISSING_VERB = "a verb is missing"
EMPTY_PATH = "the path is empty (an unset shell variable?)"
BOTH_DEMANDS = "--policy and --genuine-only exclude one another"
NO_DEMAND = "say what to demand: --policy FILE or --genuine-only"
NO_DEMAND_HINT = (
    '"pin URL -o policy.toml" writes a policy for a server; --genuine-only proves the hardware but not the code'
)
BUNDLE_DEMANDS = "a bundle brings its own policy; to add to a policy, give yours with --policy or --genuine-only"
ATTESTER_WITH_FILE = "--attester is for a live server: stored evidence asks nobody who you are"
AT_WITH_URL = "--at is for stored evidence: a live connection is judged by the clock"
NOT_HTTPS = "the address must begin with https://"
NOT_HTTPS_HINT = "evidence travels in TLS; over plain http there is none, and nothing falls back to it"
BOTH_TARGETS = "give a TARGET or a command after --, not both"
NO_TARGET = "what shall be served? Give module:object, an http URL, or a command after --"
BOTH_ARGUMENTS = "give name=value words or --args-json, not both"


def not_a_time(value: str) -> str:
    """For `--at`."""
    return f"{value!r} is not an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"


def not_a_host(value: str) -> str:
    """Not a name by which clients could meet a server."""
    return f"{value!r} is not a host: wanted a name or an address, such as mcp.example, with no scheme and no port"


def not_seconds(value: str) -> str:
    """For `--timeout`."""
    return f"{value!r} is not a number of seconds above 0 and up to 86400"


def not_an_address(value: str) -> str:
    """For `--listen`."""
    return f"{value!r} is not HOST:PORT, such as 127.0.0.1:8443 or [::1]:0"


def not_a_status(value: str, known: str) -> str:
    """For `--accept-status`."""
    return f"{value!r} is not a TCB status that can be accepted; known: {known}"


def bad_argument(word: str) -> str:
    """A word of `call` that is not name=value."""
    return f"{word!r} is not name=value or name:=json"


def bad_json(word: str, reason: str) -> str:
    """A value that had to be JSON."""
    return f"{word!r} is not JSON: {reason}"


def repeated_argument(name: str) -> str:
    """The same argument twice: which one was meant?"""
    return f"the argument {name!r} is given twice"


# files


def unreadable(path: object, reason: str) -> str:
    """The system refused to open or read a file."""
    return f"cannot read {path}: {reason}"


def is_directory(path: object) -> str:
    """A folder where a file belongs."""
    return f"{path} is a folder; a file was expected"


def empty_file(path: object) -> str:
    """Nothing in it."""
    return f"{path} is empty"


def too_large(path: object, cap: int) -> str:
    """Larger than any certificate or quote."""
    return f"{path} holds more than {cap} bytes, more than any certificate or quote"


def exists(path: object) -> str:
    """`pin` never overwrites by itself."""
    return f"{path} exists and is left as it is"


EXISTS_HINT = "compare the two files first; --force overwrites"
_POSITIONAL = {"source": "SOURCE", "which": "WHICH", "file": "FILE"}


def option(name: str) -> str:
    """How an argument is called on the command line."""
    return _POSITIONAL.get(name, f"--{name.replace('_', '-')}")


def no_use(action: str, seen: str, used: list[str]) -> str:
    """An option of the verb that means nothing to this action of it."""
    return f"{action}: has no use for {seen}; wanted {', '.join(used) or 'nothing more'}"


READ_HINT = "a SOURCE is an https URL, or a file that holds a certificate (PEM or DER) or a quote"


def cannot_write(path: object, reason: str) -> str:
    """The system refused to write."""
    return f"cannot write {path}: {reason}"


# endings

INTERRUPTED = "interrupted"
OUT_OF_MEMORY = "this machine ran out of memory"


def our_fault(error: BaseException) -> str:
    """An exception that should not have come this far."""
    return f"a fault in {PROGRAM} itself: {type(error).__name__}: {error}"


OUR_FAULT_HINT = f"nothing was judged; run it again with --debug and send what it prints to {REPORT_TO}"


# verdicts

HEADLINES = {
    "verified": "the evidence is genuine and satisfies the policy",
    "partial": "genuine hardware; the code that runs there was not compared",
    "refused": "do not speak to it",
    "unavailable": "no verdict: something it needs could not be had",
}

GROUPS = {
    "tls": "connection",
    "live": "connection",
    "bind": "connection",
    "binding": "connection",
    "channel": "connection",
    "certificate": "certificate",
    "ratls": "certificate",
    "intel": "evidence",
    "snp": "evidence",
    "nitro": "evidence",
    "tpm": "evidence",
    "azure": "evidence",
    "tdx": "evidence",
    "token": "evidence",
    "evidence": "evidence",
    "endorsements": "evidence",
    "policy": "policy",
}

SIMULATED_BANNER = "SIMULATED: this evidence was made in software. It proves nothing about any machine."
ORIGINS = {
    "attested": "attested by the TEE",
    "signed": "signed by others than the TEE: its vendor, or the issuer of a token",
    "asserted": "asserted only: under no signature",
}
"""Headings over claims, by who stands behind them."""
UNVERIFIED = "UNVERIFIED"
UNVERIFIED_BANNER = 'UNVERIFIED: nothing below was checked. "verify" checks.'

NEXT_STEPS = {
    "verified": "speak to it: call, tools, or attested_client() in Python",
    "partial": 'compare the code: "pin URL -o policy.toml", check the measurement, verify with --policy policy.toml',
    "refused": "read each FAIL above; a changed server needs a new, reviewed policy",
    "unavailable": "try again, or give the missing pieces with --endorsements",
}
_SPEAK_TO_NONE = "nothing was met to speak to: prove the server itself, verify URL --policy FILE"
NEXT_OF_FILES = {
    "file": {"verified": _SPEAK_TO_NONE},
    "bundle": {"verified": "judge it by a policy of your own: verify FILE --policy FILE"},
}
HEADLINES_OF_FILES = {
    "bundle": {"verified": "the evidence is genuine and satisfies the policy that the bundle brings, not one of yours"},
}
NEXT_UNREAD = "find out what answers there, or what the file is, before you try again"


def ready(url: str, tee: str, spki: str) -> str:
    """`serve` is ready."""
    return f"serving {url}\n  tee   {tee}\n  key   sha256:{spki}"


DRAINING = "stopping: no new connections; waiting for running calls"
PINNED_ON_FIRST_USE = (
    "that this code is the code you want: the policy was written from what the server said now (trust on first use)"
)


PINNED_NOTE = (
    "it accepts exactly the code that answered now: compare the measurement with one that you built or were given"
)


def pinned(path: object) -> str:
    """`pin -o` wrote a file."""
    return f"wrote {path}"


def not_an_url(word: str) -> str:
    """An address without a host, with a user name, or with port 0."""
    return f"{word!r} is not an address such as https://mcp.example:8443/mcp"


def other_content(kind: str) -> str:
    """Content that is not text."""
    return f"({kind} content; --json shows it)"


# bundles


def bundled(path: object, size: int, digest: str) -> str:
    """`bundle -o` wrote a file."""
    return f"wrote {path} ({size} bytes, sha256 {digest})"


def bundle_facts(made_at: str, source: str, policy: str, own: bool) -> str:
    """What a bundle says of itself, before it is judged."""
    whose = "the policy that it brings" if own else "your policy"
    return f"bundle of {source}, made at {made_at} by its own word; judged by {whose}, {policy}"


def replayed(recorded: str, same_findings: bool, same_result: bool) -> str:
    """How a replay compares with what the bundle records."""
    how = "the findings differ: another time, policy or version judged then"
    if same_findings:
        how = "the findings are the same" + (", and claims, verdict and error" if same_result else "")
    return f"recorded verdict: {recorded}; {how}"


def provenance_kept(names: str) -> str:
    """`bundle --provenance` keeps files that it does not look into."""
    return f"provenance kept in the bundle, and judged by nobody: {names}"


def replay_hint(made_at: str) -> str:
    """Nobody said as of when."""
    return f"judged as of now; --at {made_at} replays the verdict of the bundle's own time"


# live servers

ENDLESS_TOOLS = "the list of tools does not end"
TIMEOUT_HINT = "try again, or give it longer with --timeout"
UNREACHABLE_HINT = "check the address, and that it runs"


def protocol_error(error: BaseException) -> str:
    """The server answered with a JSON-RPC error."""
    return f"the server was admitted, and answered with an error: {error}"


def timed_out(url: str, seconds: float) -> str:
    """Our own patience ended."""
    return f"no answer within {seconds:g} seconds from {url}, or from a service that vouches for its platform"


def unreachable(url: str, reason: str) -> str:
    """Nobody answers."""
    return f"{url} cannot be reached: {reason}"


def no_certificate(url: str) -> str:
    """TLS without a certificate."""
    return f"{url} showed no certificate"


def list_differs(words: str) -> str:
    return f"what the server lists is not what was promised: {words}"


def admitted(url: str, verdict: str, tee: str, simulated: bool) -> str:
    """`connect` met its server."""
    return f"{url}: {verdict} ({'SIMULATED ' if simulated else ''}{tee})"


# demo

DEMO_TITLE = "attestable-mcp demo: a client that proves a server before it speaks. Simulated TEE, this machine only."
DEMO_STDIO = "mcp-server-time, from the package index, behind us over stdio"
DEMO_SDK = "an MCP SDK server in this process"
DEMO_MODIFIED = "the same server with one line changed"
DEMO_THIEF = "its certificate, replayed by someone without the key"
DEMO_RELAY = "a relay that stole the leaf key and passes everything on"
DEMO_ROOT = "the same code and measurement, under an unknown root"
DEMO_SIMULATED_SERVER = "the simulated server, where real hardware is demanded"
DEMO_WALK_AWAY = "Do not speak to it. Ask the operator, over another way, what changed."
DEMO_SIMULATED = "All evidence above was simulated and proves nothing about this machine."
DEMO_NEEDS = "the demo serves mcp-server-time, which is not installed"
DEMO_NEEDS_HINT = '"make demo" sets everything up; or: pip install mcp-server-time'


def demo_end(good: int, total: int) -> str:
    """The last line."""
    return f"{good} of {total} steps went as they should."


def demo_wrong(expected: str, seen: str) -> str:
    """A step that went wrong."""
    return f"WRONG: wanted {expected}, seen {seen or 'nothing'}"
