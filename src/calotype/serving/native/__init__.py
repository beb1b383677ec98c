"""The server's own API, under /api/v1: what the page speaks, and programs that want all of it.

Jobs come in as `JobRequest`s, with their source and mask beside them, and are answered at once;
what happens to them is a stream of events. Images stay, with their recipes. May import `front`.
"""
