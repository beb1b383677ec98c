"""AUTOMATIC1111's API, under /sdapi/v1: what programs that speak to its web UI can be pointed at.

Requests in its fields come in, images as base64 and an `info` text go out, errors have its shape.
Numbers that every client sends by default mean the model's own. May import `front`.
"""
