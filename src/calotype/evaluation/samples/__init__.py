"""Sample sets: images with what was asked for, in Parquet shards, whoever made them.

`job` samples a suite's prompts into one, `folders` reads other people's images into one, and
`sample_set` opens it; `manifest` is what the set says of itself.
"""

from calotype.evaluation.samples.manifest import Manifest
from calotype.evaluation.samples.sample_set import SampleSet, is_sample_set, open_samples
from calotype.evaluation.samples.shard import Sample

__all__ = ["Manifest", "Sample", "SampleSet", "is_sample_set", "open_samples"]
