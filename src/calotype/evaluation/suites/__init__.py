"""Prompt suites: the users' files of captions go in, `Suite`s come out.

`suite` has the records and the rule for a subset of a suite. Knows no model and no image.
"""
