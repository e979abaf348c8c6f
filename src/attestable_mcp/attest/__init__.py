"""The Attester's side: one module a device, and the choice between them."""
