"""The vision room: images come in, embeddings or what they show go out.

CLIP, which embeds captions in the same space and so scores how well both fit, is the first encoder
of images; classifiers say of noisy ones what class they are of. May import what stands above it:
networks, diffusion, text, storage, config.
"""
