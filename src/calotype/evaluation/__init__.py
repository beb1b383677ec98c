"""The evaluation room: samples and real images go in, figures and sheets come out.

`retrieval` asks whether a sample shows what was asked for, `superresolution` whether a stage beats
bicubic enlargement, `features` how far two sets of images lie apart, `sheet` puts samples beside
real images. Knows nothing of any data set; may import every room above it.
"""
