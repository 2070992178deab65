"""Decodes images so that no image can harm the worker or other images."""

from maskq_worker.decoding.decoder import Decoder, ThreadDecoder, make_decoder
from maskq_worker.decoding.limits import DecodeLimits
from maskq_worker.decoding.memory import KEPT_PIXEL_BYTES

__all__ = ["KEPT_PIXEL_BYTES", "DecodeLimits", "Decoder", "ThreadDecoder", "make_decoder"]
