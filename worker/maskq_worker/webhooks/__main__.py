"""`python -m maskq_worker.webhooks`: post due webhooks until SIGTERM. `maskq worker` starts this."""

import sys

from maskq_worker.webhooks.process import main

if __name__ == "__main__":
    sys.exit(main())
