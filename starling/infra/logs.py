"""How the processes of a node log: plain lines with UTC time, on stderr."""

from __future__ import annotations

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%S"


def line_formatter() -> logging.Formatter:
    formatter = logging.Formatter(FORMAT, DATE_FORMAT)
    formatter.converter = time.gmtime
    return formatter


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send all log records of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(line_formatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
