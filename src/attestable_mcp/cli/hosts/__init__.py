"""Configuration files of MCP hosts: where they lie, what an entry looks like, and edits that keep everything else."""
