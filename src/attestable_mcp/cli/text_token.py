"""What people read about signed results."""

GROUP = "a signed result (EAR), for systems that rely on this verdict"
HELP = "write the result as a signed token to this file, whatever the verdict"
HELP_KEY = "PEM private key (P-256, P-384, P-521 or RSA) that signs it"
HELP_ISSUER = "who says so: the token's issuer, such as https://verifier.example"
HELP_NONCE = "nonce of whoever asked for the token"
HELP_DEMANDED = "the nonce that a token has to carry: the one you gave to whoever fetched it"
TOGETHER = "--token and --token-key belong together"
OF_BUNDLE = (
    "a replay is no new verdict: --token signs what is judged now, and --nonce is for a token that was made for you"
)
