"""Features of images: uint8 pixels go in, numbers that metrics compare come out, kept on disk.

`extractor.py` says what an extractor is and loads one by its name; `store.py` computes features
once, chunk by chunk, and reads them again. Every network stands in a file of its own and says how
it resizes: no two papers' numbers compare where that differs.
"""
