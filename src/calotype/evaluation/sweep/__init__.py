"""Sweeps: a suite sampled with many settings, measured alike, plotted as the papers do.

`axes` says what is tried, with the papers' own grids; `run` samples all cells, sharing whatever
lies upstream, and measures them; `found` holds what came out, and the rule that chooses; `plots`
makes figures of it. `guidance` and `guidance_found` are GLIDE's comparison of two ways of guiding.
"""
