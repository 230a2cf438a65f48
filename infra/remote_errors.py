"""What went wrong with a store, told so that whoever reads it can mend it.

A store that does not answer is a `ServiceError`: asking again may help. A bucket that there is not, and credentials
that do not open it, are a `UsageError`: no retry helps, and a run that met it goes on from its last checkpoint when
it is started again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from infra.errors import DataError, SegfoundryError, ServiceError, UsageError, causes

S3 = ("s3://", "s3a://")
_FORBIDDEN = {
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "NoAuthTokenError"}
_NO_ANSWER = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}
_CREDENTIALS = (
    "Credentials come from the usual AWS variables alone (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_SESSION_TOKEN where they are temporary, or AWS_PROFILE), on every machine of the run"
)


def store_error(url: str, broken: Exception) -> Exception:
    """The error to raise in place of what a store's library raised while `url` was asked for."""
    if isinstance(broken, SegfoundryError) or getattr(broken, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return broken  # ours, or this machine's disk: not the store's fault
    found = f"{type(broken).__name__}: {broken}"
    if bucket_is_missing(broken):
        return UsageError(
            f"{url}: expected a bucket that exists, found none of that name. Create it or correct the address "
            "(params.yaml); AWS_ENDPOINT_URL says which store is asked, where it is not Amazon's"
        )
    names, codes = {type(each).__name__ for each in causes(broken)}, set(_codes(broken))
    if names & _NO_CREDENTIALS:
        return UsageError(f"{url}: expected credentials for this store, found none. {_CREDENTIALS}")
    if codes & _FORBIDDEN or isinstance(broken, PermissionError):
        return UsageError(
            f"{url}: expected credentials that may read, list and, for checkpoints, write and delete there, "
            f"found that the store refuses them ({', '.join(sorted(codes)) or found}). {_CREDENTIALS}"
        )
    if names & _NO_ANSWER and url.startswith(S3):
        return ServiceError(
            f"{url}: expected a store that answers, found {found}. "
            "Check the network, and AWS_ENDPOINT_URL where the store is not Amazon's"
        )
    return ServiceError(
        f"{url}: expected a store that answers, found {found}. Check the address, the network and the credentials"
    )


def missing_file(url: str, missing: FileNotFoundError) -> Exception:
    """The error for a file that is not there, or whose bucket is not."""
    if bucket_is_missing(missing):
        return store_error(url, missing)
    return DataError(f"{url}: expected a file, found nothing there")


def bucket_is_missing(broken: BaseException) -> bool:
    """True where the store said so; a store may also hide it behind "forbidden" or an empty listing."""
    return "NoSuchBucket" in set(_codes(broken))


def _codes(broken: BaseException) -> Iterator[str]:
    for each in causes(broken):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and "Code" in response.get("Error", {}):
            yield str(response["Error"]["Code"])
