"""A worker that never reads its lists, as a faulty one might."""

from __future__ import annotations

import sys

from maskq_worker.__main__ import main
from maskq_worker.broker import consumer_watch, transport

NOTICED_S = 1.0

if __name__ == "__main__":
    transport.QoS.can_consume = lambda self: False  # type: ignore[method-assign]
    defaults = consumer_watch.ConsumerWatch.__init__.__kwdefaults__
    defaults |= {"check_every_s": NOTICED_S / 5, "stuck_after_s": NOTICED_S}
    sys.exit(main())
