"""`python -m maskq_gateway.sqs`: read notifications from an SQS queue until SIGTERM."""

import sys

from maskq_gateway.sqs.process import main

if __name__ == "__main__":
    sys.exit(main())
