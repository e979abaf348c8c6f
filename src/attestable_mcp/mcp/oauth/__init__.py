"""OAuth 2.1 run by the bridge on behalf of a host: the token is bound to the attested server's origin.

`session` decides, `discovery` finds the authorization server, `endpoints` speaks to it, `redirect` takes the browser's
answer, `store` keeps what was granted. Sources: MCP 2026-07-28, basic/authorization; RFC 6749, 7636, 7591, 8252, 8414,
8707, 9207, 9728.
"""
