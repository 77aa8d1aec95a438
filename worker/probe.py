"""`python -m worker.probe`: exit code 0 when the worker of this container answers /healthz well, else 1.

For health checks that run a command, such as Docker's: the image has no curl.
"""

import http.client
import os
import sys

_ANSWER_SECONDS = 4.0


def main() -> int:
    port = int(os.environ.get("HEALTH_PORT") or "3200")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError as error:
        print(f"/healthz on port {port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
