"""The emoji recipe: from nine public emoji packages to Parquet shards of captioned pictures.

Comes in: a recipe (which sets, what is left out). Goes out: a folder of shards with lossless RGBA
pictures, names, keywords, style, licence and split, a data card and an attribution file.
May import `calotype.config`, `calotype.errors` and `calotype.data`; nothing of networks.
"""

from __future__ import annotations
