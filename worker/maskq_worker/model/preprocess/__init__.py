"""From an image to the pixels that the network takes, by the checkpoint's own image processor.

- preprocessor.py: resize, crop and normalise
- settings.py: the settings of DPT's image processor
- frame.py: which part of an image the network sees, and at which size
- from_checkpoint.py: the preprocessor of a checkpoint
- transformers_processor.py: transformers' own image processor, and what it does
"""
