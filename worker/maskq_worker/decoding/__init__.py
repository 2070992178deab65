"""From bytes to pixels, where no image can do harm to the worker or to other images."""

from maskq_worker.decoding.decoder import Decoder, ThreadDecoder, make_decoder
from maskq_worker.decoding.limits import DecodeLimits
from maskq_worker.decoding.memory import KEPT_PIXEL_BYTES

__all__ = ["KEPT_PIXEL_BYTES", "DecodeLimits", "Decoder", "ThreadDecoder", "make_decoder"]
