"""emoji-11, the suite of the embedded default: eleven categories of twenty prompts.

`choice` chooses the prompts from the rows of the emoji set, `wording` phrases them, `suite` reads
the file that is installed. `checks` judges a sample by its category's rule, from what `parts` and
`colours` see and the real images of `references`; `proof` measures on `compositions` of real images
how often each rule is right, and how often it is fooled.

    python -m calotype.emoji.eleven --data DIR --out FILE     # choose the prompts again
    python -m calotype.emoji.eleven --measure DIR             # prove the checks
"""
