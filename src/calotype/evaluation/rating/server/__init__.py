"""The pages on which people rate, as a Starlette application.

A study and its store come in, requests are answered with small pages rendered here; nothing is
loaded from elsewhere, and every page works without its script. `guard` refuses foreign requests,
`rating` holds the raters' pages, `admin` the administrator's, `serve` runs it all.
"""
