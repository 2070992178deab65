"""From the network's scores to a mask at the image's own size.

- bounded.py: the exact mask in bounded memory, and its uncertain pixels
- blocks.py: a mask in blocks, with the scores that each block needs
- cells.py: the few classes that matter in a cell of the score grid
- compared.py: the mask of few classes
- interpolation.py: the weights of bilinear interpolation
- reference.py: the mask of transformers, and the same mask without transformers
- comparison.py: in how many pixels two masks differ
- lazy.py: a mask that is computed when it is waited for
- scores.py: the mask's type, and whether all scores are finite
"""
