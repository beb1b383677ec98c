"""The process that holds the models: requests come in by `wire`, finished files go out.

Knows nothing of HTTP or of the front.
"""
