"""Ties evidence to one TLS connection: transcript, hash tree, binding key, certificate, live challenge."""
