"""Buckets that CloudFormation makes in moto are made in the S3 server too, where objects really lie."""

from __future__ import annotations

import boto3.session
from botocore.exceptions import ClientError
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from starling.infra.region.s3_server import S3Server


class BucketMirror:
    """Keeps the S3 server's buckets up with moto's."""

    def __init__(self, server: S3Server) -> None:
        session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
        self._s3 = session.client("s3", endpoint_url=server.endpoint_url)
        self._known: set[str] = set()

    def make_missing(self) -> None:
        """What is gone from moto stays in the server, as a bucket with a retain policy does."""
        buckets = set(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets)
        for name in sorted(buckets - self._known):
            try:
                self._s3.create_bucket(Bucket=name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                    raise
        self._known = buckets
