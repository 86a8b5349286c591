"""Filesystems of paths and URLs: folders, S3-compatible stores, any other store of pyarrow or fsspec. No Ray.

Credentials come from the environment only, as each store's SDK reads it: for S3 the $AWS_ variables, a profile, or the
machine's role, with $AWS_ENDPOINT_URL for a server other than Amazon's. Failed calls are retried with backoff.
"""

import functools
import os
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from mammoflow.errors import LakeError

_ATTEMPTS = 8
"""Attempts of a request to S3; the SDK waits up to 20 s between two, about a minute in all."""
_CONNECT_S, _REQUEST_S = 10, 60


def is_url(url: str) -> bool:
    """Tell a URL from a path of this machine."""
    return "://" in url


def check_url(url: str) -> None:
    """Check that a URL holds only a store, a bucket and a path.

    Raises:
        LakeError: it holds credentials, which would be printed and stored, or options, which can't be joined to a path.
    """
    if not is_url(url):
        return
    parts = urlsplit(url)
    if "@" in parts.netloc and parts.scheme not in ("abfs", "abfss"):  # their containers' names precede an @
        raise LakeError(
            f"a URL of {parts.scheme}:// holds credentials; leave them out and set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3), or better, give the machine a role"
        )
    if parts.query or parts.fragment:
        raise LakeError(
            f"{parts.scheme}://{parts.netloc}{parts.path} is followed by options, which are not supported; set "
            "them in the environment (AWS_ENDPOINT_URL, AWS_DEFAULT_REGION for S3)"
        )


def filesystem(url: str) -> tuple[pafs.FileSystem, str]:
    """Return the pyarrow filesystem of a local path or URL, and the path within it.

    Raises:
        LakeError: as in `check_url`, or neither pyarrow nor an installed fsspec package knows the store.
    """
    if not is_url(url):
        return pafs.LocalFileSystem(), str(Path(url).expanduser().absolute())
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return _s3(parts.netloc, endpoint), f"{parts.netloc}{parts.path}".rstrip("/")
    try:
        return pafs.FileSystem.from_uri(url)  # type: ignore[no-any-return]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _of_fsspec(url)


@functools.lru_cache(maxsize=32)
def _s3(bucket: str, endpoint: str | None) -> pafs.FileSystem:
    """Return the filesystem of a bucket, in its region; cached, so that a process reuses its connections."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        try:
            region = pafs.resolve_s3_region(bucket)
        except OSError as error:
            raise LakeError(
                f"can't find the region of s3://{bucket} ({error}); check the bucket's name and the network, or set "
                "AWS_DEFAULT_REGION"
            ) from error
    server = urlsplit(endpoint or "https:")
    return pafs.S3FileSystem(
        region=region,
        endpoint_override=server.netloc or None,
        scheme=server.scheme,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        allow_delayed_open=True,  # a small file is one request
    )


def _of_fsspec(url: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise LakeError(
            f"{url} can't be opened ({error}); give a folder, s3://, gs:// or abfs://, or install its fsspec package"
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path
