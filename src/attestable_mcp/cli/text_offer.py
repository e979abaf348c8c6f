"""Every sentence that `manifest` and `receipts` say to a person."""

from __future__ import annotations

_PROGRAM = "attestable-mcp"

MANIFEST_SUMMARY = "write down, compare or sign what a server offers: its tools, prompts and resources"
MANIFEST_EPILOG = f"""\
examples
  {_PROGRAM} manifest https://mcp.example:8443/mcp --policy prod.toml -o prod.manifest.json
  {_PROGRAM} manifest my_server:mcp -o my.manifest.json                  (no server needed: what this code lists)
  {_PROGRAM} manifest -o git.manifest.json -- uvx mcp-server-git          (a command that speaks stdio)
  {_PROGRAM} manifest https://mcp.example:8443/mcp --policy prod.toml --diff prod.manifest.json
  {_PROGRAM} manifest my_server:app --header-env Authorization=TOKEN -o my.json     (lists that take credentials)
  {_PROGRAM} manifest my.manifest.json --sign publisher.pem --days 365 -o my.signed.json

With --diff the exit code is 0 where both are the same and 2 where they differ. A policy takes the file as
[manifest] mode = "pinned" or "signed"; docs/manifest.md has the format and what the digests cover."""
HELP_MANIFEST_SOURCE = "an https URL, a file with a manifest, or what `serve` takes: module:object, a local http URL"
HELP_DIFF = "compare with this manifest, or with the one in this policy (.toml)"
HELP_SIGN = "sign with this private key (PEM, Ed25519 or P-256)"
HELP_SIGN_DAYS = "days that the signature is good for (default: without end)"
HELP_MANIFEST_OUTPUT = "write the document to this file"
NO_MANIFEST_SOURCE = "a source is missing: a URL, a file, module:object, or a command after --"
TWO_SOURCES = "a source and a command after -- are two sources"
NOT_SIGNED_AND_COMPARED = "--diff and --sign do not go together"
NO_PROMISE = "this policy holds no manifest to compare with"
SAME = "no difference"


def committed(digest: str) -> str:
    """The server's evidence commits to the lists."""
    return f"the server's evidence commits to exactly this: {digest}"


def uncommitted(digest: str) -> str:
    """It does not."""
    seen = f"to {digest}" if digest else "to no manifest"
    return f"WARNING: the server's evidence commits {seen}, not to this list"


def counted(counts: dict[str, int], digest: str) -> str:
    """What the manifest holds."""
    words = ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nothing"
    return f"{words}; digest {digest}"


def no_manifest(source: str) -> str:
    """`serve` found nothing that it could commit to. `source` is what `manifest` takes for the same server."""
    return (
        "nothing that the server lists could be read, so its evidence commits to no manifest, and clients refuse it "
        'unless their policy says [manifest] mode = "uncommitted". A server that was not up yet is listed when the '
        "first call reaches it. One that lists nothing without credentials needs a manifest that was made with them: "
        f'"{_PROGRAM} manifest -o FILE --header-env Authorization=VARIABLE {source}", then '
        "serve it with --manifest FILE"
    )


NO_MANIFEST_SEEN = "no manifest"
OTHER_OFFER_HINT = (
    f'"{_PROGRAM} manifest URL --policy FILE --diff FILE" shows the difference. If it is wanted, pin the server anew'
)


def other_offer(wanted: str, seen: str) -> str:
    """The server's evidence commits to other lists than the policy names."""
    return f"manifest: wanted {wanted}, seen {seen}"


NO_OFFER = (
    "its evidence commits to no manifest: the policy takes whatever tools it lists first. If it should list some, "
    "look at the server's log, and pin it anew"
)
OFFER_UNREAD = (
    "its tools could not be listed to us: the policy holds their digest alone, so a change is refused, but no "
    "difference can be shown"
)


def unruled(kind: str, name: str, close: list[str]) -> str:
    """A rule about a name that the server does not list: a typing error leaves the real one open to every client."""
    meant = f"; close to it: {', '.join(close)}" if close else ""
    return (
        f"the clients' policy has a rule for {kind} {name!r}, and the server lists none of that name{meant}. What no "
        "rule is about is for every client that is served"
    )


def written(path: object) -> str:
    """The document was written."""
    return f"written to {path}"


GROUP_MANIFEST = "what the server offers"
HELP_MANIFEST = "commit to the manifest in this file, whatever the server lists (default: ask it at the start)"
HELP_NO_MANIFEST = "commit to no manifest and give no receipts: nothing of MCP is looked at on its way"

RECEIPTS_SUMMARY = "list, show, verify and export the receipts of calls"
RECEIPTS_USAGE = f"{_PROGRAM} receipts ACTION [WHICH] [OPTIONS]"
RECEIPTS_EPILOG = f"""\
actions
  list [CHAIN]     the chains that are kept, or the receipts of one
  show CHAIN:N     one receipt; with --request or --result, whether it is of that JSON
  verify [CHAIN]   signatures, order, gaps, tree heads, and the evidence behind the key: offline
  export [CHAIN]   write chains with all that verifying them needs, one JSON object a line

examples
  {_PROGRAM} receipts list
  {_PROGRAM} receipts show 3fa2:17 --result answer.json
  {_PROGRAM} receipts verify --policy prod.toml
  {_PROGRAM} receipts export 3fa2 -o calls.receipts
  {_PROGRAM} receipts verify --store calls.receipts --policy prod.toml

CHAIN is the beginning of a chain's name. Receipts come in where a policy says [receipts] required = true. A receipt
holds digests, no content. That the newest were taken away can be seen only where a tree head covers them: one is
asked for at the end of each conversation. docs/receipts.md has the format."""
HELP_RECEIPTS_ACTION = "list, show, verify or export"
HELP_WHICH = "a chain, or CHAIN:N for show"
HELP_STORE = "the file of receipts, or an export (default: that of this user)"
HELP_REQUEST = 'compare with this JSON: {"method": ..., "params": ...}'
HELP_RESULT = "compare with this JSON: the result as the server gave it"
HELP_RECEIPTS_OUTPUT = "write the export to this file"
NO_RECEIPTS = "no receipts are kept"
NO_CHAIN_NAMED = "which receipt? wanted CHAIN:N, as `receipts list CHAIN` shows them"
NOT_JSON = "wanted a file with one JSON object"
MATCHES = "it is of exactly this"
DIFFERS = "it is NOT of this"
SIGNATURES = (
    "does NOT hold: whoever wrote this receipt, it was not the chain's key",
    "holds under the chain's key; `receipts verify` says whose key that is",
    "holds, but on SEVERAL receipts with this number: `receipts verify` names them",
)


def no_chain(word: str) -> str:
    """No chain begins like this, or several do."""
    return f"{word!r}: wanted the beginning of one chain's name"


def no_receipt(number: int) -> str:
    """The chain has no such number."""
    return f"this chain holds no receipt number {number}"


def chain_line(name: str, origin: str, begun: str, receipts: int, heads: int, *, proof: bool) -> str:
    """One chain in a list."""
    kept = "" if proof else ", NO PROOF OF ITS KEY"
    return f"{name}  {begun}  {receipts} receipts, {heads} heads{kept}  {origin}"


def receipt_line(number: int, time: str, method: str, name: str, result: str) -> str:
    """One receipt in a list."""
    return f"{number:>6}  {time}  {method} {name}  {result[:16]}"


def verified_line(verdict: str, name: str, origin: str, receipts: int, covered: int) -> str:
    """The result for one chain."""
    return f"{verdict.upper()}  {name}  {receipts} receipts, {covered} covered by a tree head  {origin}"


def problem_line(code: str, at: int, message: str) -> str:
    """One problem in a chain."""
    return f"  FAIL  {code} at {at}: {message}"


def more_problems(number: int) -> str:
    """Not all are shown."""
    return f"  ... and {number} more"


def open_line(sentence: str) -> str:
    """What is not proven."""
    return f"not proven: {sentence}"


def proof_line(verdict: str, words: str) -> str:
    """The verdict on the evidence behind the key."""
    return f"  key: {verdict}{f': {words}' if words else ''}"
