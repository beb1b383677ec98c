"""HTTP: the APIs that people's programs already speak, a queue, batching by step, and a page.

A request of any API comes in and becomes a `JobRequest`; images go out, with their recipes. Two
processes: the front (`front`, with the APIs `openai`, `sdapi` and `native`) never imports torch and
answers at once; the engine (`engine`) is its child, holds the models and speaks `wire`. May import
`generation` and the rooms above it; knows nothing about diffusion.
"""
