"""All typed settings: frozen dataclasses, checked when they are made, written beside the weights.

JSON comes in, records go out, one file a subject. Imports `errors` and `storage` alone, and no
torch, so that the command line reads a recipe at once.
"""
