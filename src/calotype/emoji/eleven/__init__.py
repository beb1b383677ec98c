"""emoji-11, the suite of the embedded default: eleven categories of twenty prompts.

`choice` chooses the prompts from the rows of the emoji set, `wording` phrases them, `suite` reads
the file that is installed. `python -m calotype.emoji.eleven --data DIR --out FILE` chooses them
again.
"""
