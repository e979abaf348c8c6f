"""Miniature TEE vendors that speak the real grammar under a root that nobody trusts by default.

The simulator shares no code with the readers that it feeds: it has its own writers, so that a fault in a reader cannot
hide behind the same fault in a writer.
"""
