"""Runs the stand-in that the image's PRODUCT names."""

import importlib
import os
import signal
import sys
import threading


def main() -> None:
    product = importlib.import_module(f"standin.{os.environ['PRODUCT']}")
    server = product.make_server()
    # The main thread serves, so another one has to ask it to stop.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"stand-in for {os.environ['PRODUCT']} listens on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
