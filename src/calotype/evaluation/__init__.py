"""The evaluation room: a cascade and real pictures go in, figures, sheets and a card come out.

`retrieval` asks whether a drawing shows what was asked for, `superresolution` whether a stage
beats bicubic enlargement, `sheet` puts drawings beside real pictures, `card` writes all of it down
(`python -m calotype.evaluation.card`). `settings` chooses sampling settings by measurement, and
`naming` asks people what they see, each a command of its own. May import every room but `serving`
and `interop`.
"""
