"""The S3 server that tests, benchmarks and chaos share lives in chaos/s3_server.py."""

from chaos.s3_server import S3Server, s3_server

__all__ = ["S3Server", "s3_server"]
