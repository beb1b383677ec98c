"""Images with captions, from where they lie to batches of tensors.

In: a folder of images, Parquet shards, tar shards or a data set on disk (`open.open_source`
recognises which). Out: `batches.Batch` records, each a pure function of a seed and a position.
This room may import `config`, `conditioning` and `errors`, and nothing of the rooms below it;
pyarrow and pyvips are imported only where they are used.
"""
