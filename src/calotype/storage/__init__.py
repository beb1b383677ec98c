"""Everything that touches a disk with care: writing files whole, opening only what is a file.

Paths and bytes come in, paths and bytes go out: nothing here knows what they mean. It imports
`errors` alone.
"""
