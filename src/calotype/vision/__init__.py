"""The vision room: images come in, embeddings go out.

CLIP, which embeds captions in the same space and so scores how well both fit, is the first encoder
of images. May import what stands above it: networks, text, storage, config.
"""
