"""TLS 1.3 that proves itself: engine, server, and clients that appraise before any HTTP byte."""
