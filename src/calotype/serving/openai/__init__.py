"""OpenAI's Images API, under /v1: what programs that speak to OpenAI can be pointed at.

Requests in OpenAI's fields, and a few of ours, come in; images as base64 or links, or a stream of
events, go out. Errors have OpenAI's shape, which the whole server has. May import `front`.
"""
