"""Metrics: pure functions of features, embeddings or pixels; no files, no models, no global state.

Features are (N, D) float tensors, a row an image, and may be memory-mapped: they are read a tile at
a time and computed with in float64. What comes out are records, mostly `intervals.Estimate`: a
number with the 95 % interval of a delete-one-block jackknife, or clustered by prompt. The reference
set counts as fixed: an interval says how far the number would move with other samples.

`frechet` (FID, FID at infinitely many samples), `kernels` (KID, CMMD), `inception_score`,
`manifold` (precision, recall, density, coverage), `alignment` (CLIP score, R-precision),
`diversity`, `lpips`, `copies`, `pixels` (PSNR, SSIM, colour shift, grid artefacts). They may import
`intervals`, `rows`, `neighbours` beside them, and rooms above evaluation.
"""
