"""What to do next, by error code: what an error says where it was raised without a hint of its own.

A hint names a step that a person can take. It never says how to switch a check off. This module imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_HOSTILE = "Treat the peer as hostile, and tell its operator over another way."
_AGAIN = "Try again. If it comes so again, ask the server's operator to look at its log."
_COLLATERAL = "Fetch the collateral anew (PCS, PCCS, KDS), or ask the operator to renew what the server staples."
_DAMAGED = (
    "The bytes are damaged, or made by something that does not keep to the format. Fetch them anew; a server that "
)
_DAMAGED += "keeps sending them is faulty or hostile: tell its operator."
_FORMAT = "Ask the operator for evidence in a supported form; docs/architecture.md lists them."
_CONNECTION = "Find out who stands between you and the server, or reach it another way. Nothing was sent."
_OUR_FILE = "Check the path, and that this user may read and write it."

_TABLE = {
    # classes
    "attestation_error": "Read the message for what failed. Nothing was sent to the server.",
    "configuration": "Correct the file, option or value that the message names.",
    "usage": 'The verb\'s "--help" shows its arguments and gives examples.',
    "evidence": _DAMAGED,
    "malformed_evidence": _DAMAGED,
    "unsupported_evidence": _FORMAT,
    "unsupported_certificate_evidence": _FORMAT,
    "verification_failed": "Read the failed check. Ask the operator for evidence that holds, and do not use this one.",
    "signature_invalid": "It was altered, or made by another key. Fetch it anew; if it comes so again, treat the peer "
    "as hostile.",
    "chain_invalid": "A certificate does not hold under its issuer. Fetch the chain from the vendor.",
    "revoked": "The vendor has revoked it. Nothing makes it acceptable; ask the operator to move to another platform.",
    "endorsement_stale": f"{_COLLATERAL} Check this machine's clock too.",
    "endorsement_unavailable": "Try again; or give the missing pieces with --endorsements PATH.",
    "appraisal_refused": "Read each failed rule. A changed server needs a policy that somebody has reviewed anew.",
    "binding": _CONNECTION,
    "channel_binding_mismatch": _CONNECTION,
    "stale_evidence": "Check both clocks, and ask the server for fresh evidence: connect again.",
    "conversation": _AGAIN,
    "attestation_unavailable": "An ordinary server. Check the address, or ask its operator for the attested one.",
    "attester": "Run this inside the TEE, as a user who may open its device, and read the system's log.",
    "attester_absent": "This machine has no such device. Run this inside the TEE, or name another --attester.",
    "attester_busy": "Wait a moment and try again; the device takes one request at a time.",
    # Intel
    "untrusted_root": "The vendor's root is another. If you run hardware under this root, name it in anchors.",
    "certificate_expired": f"Check this machine's clock. {_COLLATERAL}",
    "chain_signature_invalid": "A certificate or list was altered or issued by another. Fetch it anew from the vendor.",
    "chain_broken": "An intermediate certificate is missing or is another's. Fetch the whole chain from the vendor.",
    "crl_invalid": _COLLATERAL,
    "pck_missing": "Ask the operator to quote with the PCK certificate chain in it, or to set up its PCCS.",
    "unknown_qe_vendor": "No Intel quoting enclave made this quote. Ask the operator what did.",
    "attestation_key_mismatch": _HOSTILE,
    "wrong_signer": f"Only Intel's TCB signing certificate may sign this. {_COLLATERAL}",
    "tcb_info_mismatch": "Fetch the TCB info for this very platform and kind of TEE (sgx or tdx).",
    "qe_identity_mismatch": "The platform's quoting enclave is not Intel's present one. Ask the operator to update it.",
    "tdx_module_mismatch": "The platform's TDX module is none that Intel names. Ask the operator to update it.",
    "tcb_level_not_found": "The platform is older than every level that Intel lists. Ask the operator to update it.",
    "collateral_rollback": "Somebody serves validly signed, but older collateral. Fetch it anew.",
    # other vendors
    "ak_mismatch": _HOSTILE,
    "ak_certificate_mismatch": _HOSTILE,
    "runtime_data_mismatch": _HOSTILE,
    "vmpl": "The report must come from the most privileged level. Ask the operator how the guest is set up.",
    "no_pcr": "Ask the operator to quote PCRs of a SHA-256 or SHA-384 bank.",
    "pcr_mismatch": "The values sent are not those that were signed. Ask for a new quote; if it comes so again, "
    "treat the peer as hostile.",
    "event_log_invalid": "The log does not explain what was measured. Ask the operator for the log of this boot.",
    # pins and policies
    "measurement_mismatch": "Other code runs than the policy names. Compare it with the releases that you accept.",
    "tcb_status_refused": "Ask the operator to update the platform.",
    "pin_mismatch": "Ask the operator, over another way, what changed; attestable-mcp pin --update URL shows it all.",
    "pin_damaged": "Restore the file, or look at what answers now and pin it anew: attestable-mcp pin --update URL",
    "wrong_deployment": "Another operator may run the same image. Ask the owner for the address of its own deployment. "
    "A grant is for the hosts that it names: where you dial another one, a tunnel say, name its host in [deployment].",
    # tokens of third verifiers
    "token_algorithm": "Ask the verifier's operator for tokens of a supported signature algorithm.",
    "token_audience": "The token is for somebody else. Ask the server's operator to request one for this client.",
    "token_expired": "Check this machine's clock, and ask the server for a fresh token.",
    "token_nonce": "The token answers another challenge. Connect again; if it recurs, treat the peer as hostile.",
    "token_submods": "Give the issuer's whole answer as it came: the overall token with the token of every device.",
    "token_profile": "Ask the verifier's operator for tokens of a profile that docs/policy.md names.",
    # connections
    "tls_version": "Ask the operator to serve TLS 1.3.",
    "key_not_proven": "Somebody replays another server's certificate. Find out who answers at this address.",
    "tls": "Check the address and the port; TLS 1.3 must be spoken there.",
    "identity": "The certificate and its key belong to different servers. Issue both anew.",
    "stalled": "The server is slow, or holds us up. Try again, or give it longer with --timeout.",
    "timeout": "Try again, or give it longer with --timeout.",
    "flooded": f"It sent more than is allowed. {_HOSTILE}",
    "garbage": "It does not speak the protocol. Check address and path; if they are right, the server is faulty.",
    "connection_closed": _AGAIN,
    "connection_lost": "Whether the request took effect is unknown. The next request opens a new connection.",
    "unreachable": "Check the address, and that the server runs.",
    "challenge_refused": _AGAIN,
    "plaintext_refused": "Use the server's https URL; there is no plain HTTP.",
    "other_origin": "Use another client for another server; each is proven by itself.",
    "redirect_refused": "Use the address that the server redirects to, if it is the intended one.",
    "no_response": "See the server's own log.",
    "http": "See the server's own log, and check the path of the URL.",
    "session_lost": "Restart the conversation in the host: the server has forgotten it.",
    "closing": "The host closed its side before the answer came. Whether the request took effect is unknown.",
    "no_certificate": "Check the address and the port; an attested server shows a certificate.",
    "mcp_error": "Check the tool, and the path of the address (mostly /mcp). The server's own log may say more.",
    "header": "Correct the header in the environment or the file; its value is never shown.",
    # forms of evidence
    "unknown_critical_extension": "A certificate says something that we must understand and do not. Ask its issuer, "
    "or for a release of this program that knows it.",
    "unsupported_certificate_version": "Ask the operator for X.509 version 3 certificates.",
    "unsupported_evidence_tag": _FORMAT,
    "unsupported_hash": _FORMAT,
    "evidence_without_claims": _FORMAT,
    "incomplete_endorsements": "Ask the operator to staple the whole set, or none of it.",
    "endorsement_too_large": _COLLATERAL,
    "too_large": "Check that it is the right file: nothing of this kind is so large.",
    "unrecognised_source": "Give a certificate (PEM or DER), a quote, a report or a saved bundle.",
    "unsupported_bundle": "It was saved by another release. Use the one that it names, or save it anew.",
    "not_canonical": "The document cannot be written in one way only. Ask its author to correct it.",
    # tools and receipts
    "tool_refused": "The tool is not what the server committed to. Ask the operator; nothing was called.",
    "tool_not_listed": "The server never listed this tool. List its tools, and call one of them.",
    "tool_not_promised": "The tool is not in the manifest that the server committed to. Ask the operator.",
    "server_changed": "The server's instructions, name or version are not the promised ones. See the difference first.",
    "tool_changed": "The tool's description or schema changed after it was proven. Look at the difference first.",
    "bad_manifest": "The server lists something that cannot be described in one way. Ask its operator to correct it.",
    "no_manifest": "The server cannot be asked for its tools. Serve it with a manifest that was written before.",
    "manifest_uncommitted": "The server commits to no tools. Ask its operator to serve a manifest.",
    "manifest_mismatch": "Its tools are not those of the manifest. Ask the operator which release runs.",
    "manifest_signature": "Ask the publisher for a manifest that is signed by the key that you trust.",
    "manifest_expired": "Ask the publisher for a renewed manifest.",
    "key_file": _OUR_FILE,
    "receipt": "Keep the answer apart from proven ones, and ask the operator.",
    "receipt_missing": "The server gave no receipt. Ask its operator to switch receipts on.",
    "receipt_mismatch": _HOSTILE,
    "receipt_chain": _HOSTILE,
    "receipt_fork": _HOSTILE,
    "receipt_signature": _HOSTILE,
    "receipt_store": _OUR_FILE,
    "bad_receipt": _DAMAGED,
    "other_key": _HOSTILE,
    "other_address": _HOSTILE,
    "no_head": "Ask for a receipt of an answer first; there is nothing to compare with yet.",
    "no_proof": "Connect first; only a proven connection can be asked.",
    # authorization
    "authorization_failed": "Sign in again: attestable-mcp connect URL --login",
    "authorization_refused": "The authorization server said no. Check the account and what it may do.",
    "authorization_pending": "Finish signing in, in the browser window that was opened.",
    "keyring": "Unlock the system's keyring, or keep tokens in a file with --oauth-store file.",
    # deployments and clients
    "owner_key": _OUR_FILE,
    "no_deployment_key": "Serve with a deployment key, and let the owner grant it: attestable-mcp owner --help",
    "client_attestation_required": "This server speaks to attested clients only. Run the client in a TEE.",
    **dict.fromkeys(
        ("tool_not_allowed", "prompt_not_allowed", "resource_not_allowed"),
        "The server's policy says which clients may use it; ask its operator.",
    ),
    "task_not_found": "Tasks are for the client that began them; after a restart of the server, begin it anew.",
    "client_attestation_stale": "Connect again, so that the client is attested anew.",
    "client_refused": "The server does not accept this client's code. Ask its operator.",
    "not_asked": "The server asked for no proof of the client. Ask its operator what it demands.",
    # our own files and runs
    "target": "Give module:object, the http URL of a local server, or a command after --.",
    "state_unusable": _OUR_FILE,
    "locked": "End the other attestable-mcp process if it hangs, then try again.",
    "empty_file": "Give a file that holds something.",
    "unreadable": _OUR_FILE,
    "unwritable": _OUR_FILE,
    "file_exists": "Compare the two files first; --force overwrites.",
    "changed": "Another program has just changed the file. Try again.",
    "demo_incomplete": "Read which step went wrong; this installation should not be relied upon.",
    "out_of_memory": "Give the process more memory, or fewer connections at once.",
    "interrupted": "Start it again when you are ready.",
    "internal": "A fault of ours. Run it again with --debug and report what it prints.",
}
HINTS: Mapping[str, str] = MappingProxyType(_TABLE)
"""Hints by code. A sentence that knows more stands where the error is raised, and goes before these."""


def hint_for(code: str) -> str:
    """The hint of a code, empty for one that nobody knows."""
    return HINTS.get(code, "")
