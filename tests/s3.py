"""A real S3 server of this machine (moto's), on a free port, asked through the usual AWS variables alone."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

_NEVER = 10**9
KEY, SECRET = "AKIAMOTOTESTONLY0000", "made/up+secret+of+this+test+0000000000"


@contextmanager
def s3(*buckets: str) -> Iterator[str]:
    """The server's address, with `buckets` made, and the variables of whoever may use them set."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        address = "http://{}:{}".format(*server.get_host_and_port())
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # never ask a machine of Amazon's for credentials
        _post(f"{address}/moto-api/reset", b"")  # servers of one process share their buckets
        refuse_everybody(address, after=_NEVER)
        fsspec.filesystem("s3").clear_instance_cache()  # other tests' servers are gone
        for bucket in buckets:
            client().mkdir(bucket)
        try:
            yield address
        finally:
            refuse_everybody(address, after=_NEVER)
            fsspec.filesystem("s3").clear_instance_cache()
            server.stop()


def refuse_everybody(address: str, *, after: int = 0) -> None:
    """From that many requests on the server looks at who asks, and knows nobody."""
    _post(f"{address}/moto-api/reset-auth", str(after).encode())


def _post(url: str, body: bytes) -> None:
    asked = urllib.request.Request(url, data=body, headers={"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(asked).close()


def client() -> Any:
    """The store, as a test looks into it: without remembered listings."""
    return fsspec.filesystem("s3", use_listings_cache=False)
