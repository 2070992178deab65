"""The readers: each decodes the files of one format to a Picture.

- jpeg/, png/, tiff/, bmp.py: formats that Pillow reads only in part
- pillow_reader.py: all other formats by Pillow, and what readers share of it
- isobmff.py: the colours of AVIF and HEIC
"""
