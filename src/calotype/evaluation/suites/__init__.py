"""Prompt suites: the users' files of captions go in, `Suite`s come out.

`reading` tells what a file is and has it read: `tables` (DrawBench, PartiPrompts, DSG), `records`
(GenEval, TIFA, GenAI-Bench), `coco` with its lists, or text. `suite` has the records and the rule
for a subset of a suite. Knows no model and no image; imports `errors` and `storage` alone.
"""
