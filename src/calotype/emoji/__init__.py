"""The embedded world: the emoji data set, and everything that judges a model of it.

Its data: a recipe goes in (which of nine public packages, what is left out), a folder of Parquet
shards comes out, with lossless RGBA images, names, keywords, style, licence, split, a data card
and an attribution file (`build`). Its judges: `eleven` is its suite of prompts with rules of their
own, `card` writes the model card of a cascade (`calotype evaluate --card`), `naming` asks people
what they see, `editing` measures edits. May import every room above it; nothing of `data` or
`evaluation` knows of it.
"""
