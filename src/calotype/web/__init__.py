"""What servers of pages and APIs have in common: ASGI's types, addresses, origins and tokens.

`calotype rate` and `calotype serve` say here alone who a request is for and whose page sent it, how
a token is kept, and which headers every answer has. May import `errors` only.
"""
