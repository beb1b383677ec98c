"""People's judgement: pages on which they compare images, what they answered, and what it says.

Sample sets and a protocol go in; answers, their statistics and a report come out. `protocols` say
what is asked; `new` makes a study: `sides` chooses its images, `blind` hides where they come from,
`trials` pairs them. `study` reads it, `store` keeps the answers in SQLite, `answering` and `design`
choose what a rater meets next, `server` shows the pages, `records` hands the answers as
`judgements` to the statistics. Needs the extra `rate`; may import what `evaluation` may.
"""
