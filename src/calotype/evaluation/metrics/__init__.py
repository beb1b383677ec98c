"""Metrics: pure functions of features, embeddings or pixels; no files, no models, no global state.

Features are (N, D), a row an image: float tensors, or rows that are copied from a file a tile at
a time (`rows.Features`). They are computed with in float64. What comes out are records, mostly
`intervals.Estimate`: a number with the 95 % interval of a delete-one-block jackknife, or clustered
by prompt. The reference set counts as fixed: an interval says how far the number would move with
other samples.

`frechet` (FID, FID at infinitely many samples), `kernels` (KID, CMMD), `inception_score`,
`manifold` (precision, recall, density, coverage), `alignment` (CLIP score, R-precision),
`diversity`, `lpips`, `copies`, `pixels` (PSNR, SSIM, colour shift, grid artefacts). They may import
`intervals`, `rows`, `neighbours` beside them, and rooms above evaluation.
"""
