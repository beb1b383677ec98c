"""The embedded world: the emoji data set, and everything that judges a model of it.

Its data: a recipe goes in (which of nine public packages, what is left out), a folder of Parquet
shards comes out, with lossless RGBA images, names, keywords, style, licence, split, a data card
and an attribution file (`build`). Its judges: `card` measures a cascade and writes its model card,
`settings` chooses sampling settings, `naming` asks people what they see, each a command of its own
(`python -m calotype.emoji.card`). May import every room above it; nothing of `data` or
`evaluation` knows of it.
"""
