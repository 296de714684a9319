"""Opens a store from its URI."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from starling.infra.errors import UsageError
from starling.infra.store.base import Store
from starling.infra.store.folder import FolderStore
from starling.infra.store.keys import is_key

FORMS = "a folder path, file:///a/folder, or s3://bucket/prefix (optionally with ?endpoint_url=http://...&region=...)"
"""What a store's URI may look like, for messages."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str) -> Store:
    """Open the store, without a word to the network yet. Raises UsageError if `uri` has none of the FORMS.

    With $STARLING_STORE_FAULTS set, it misbehaves as the rules in that file say (see `fault_file`).
    """
    return _rehearsed(_open(uri)) if os.environ.get("STARLING_STORE_FAULTS") else _open(uri)


def _rehearsed(store: Store) -> Store:
    from starling.infra.store.fault_file import fault_file  # pydantic takes time to import: only for rehearsals
    from starling.infra.store.faults import FaultyStore

    return FaultyStore(store, source=fault_file(), seed=os.getpid())


def _open(uri: str) -> Store:
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return _open_folder(uri, uri)
    if scheme[1] == "file":
        return _open_file_uri(uri)
    if scheme[1] == "s3":
        return _open_s3(uri)
    raise UsageError(f"bad store {uri!r}: {scheme[1]}:// is not supported; give {FORMS}")


def object_uri(store_uri: str, key: str) -> str:
    """A key's full URI; a store's options stay behind it."""
    place, mark, options = store_uri.partition("?")
    return f"{place.rstrip('/')}/{key}{mark}{options}"


def _open_folder(path: str, uri: str) -> Store:
    if not path or "\0" in path:
        raise UsageError(f"bad store {uri!r}: give {FORMS}")
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"bad store {uri!r}: {folder} is a file; give {FORMS}")
    return FolderStore(folder)


def _open_file_uri(uri: str) -> Store:
    parts = _split(uri)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise UsageError(
            f"bad store {uri!r}: a file URI has three slashes and an absolute path, like file:///data/store"
        )
    return _open_folder(unquote(parts.path), uri)


def _open_s3(uri: str) -> Store:
    parts = _split(uri)
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(f"bad store {uri!r}: a bucket's name has 3 to 63 of [a-z0-9.-], like s3://my-bucket/starling")
    if (prefix and not is_key(prefix)) or len(prefix) > 100 or parts.fragment:
        raise UsageError(
            f"bad store {uri!r}: a prefix has at most 100 of [A-Za-z0-9._=-/], like s3://my-bucket/starling"
        )
    options = s3_options(uri, parts)

    from starling.infra.store.s3 import S3Store  # botocore takes 0.2 s to import: only for those who use it

    return S3Store(parts.netloc, prefix, endpoint_url=options.get("endpoint_url"), region=options.get("region"))


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise UsageError(f"bad store {uri!r}: {error}; give {FORMS}") from error


def s3_options(uri: str, parts: SplitResult) -> dict[str, str]:
    """endpoint_url and region, from the URI or the environment. Raises UsageError for anything else in the query."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - {"endpoint_url", "region"}):
        raise UsageError(f"bad store {uri!r}: unknown option {unknown[0]!r}; there are endpoint_url and region")
    # Part of the store's identity, so that it goes with the URI to machines that lack these variables.
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options.setdefault("endpoint_url", endpoint)
    given = options.get("endpoint_url")
    if given is not None and not re.match(r"https?://[^/@]+/?$", given):
        raise UsageError(f"bad store {uri!r}: endpoint_url {given!r} should look like http://host:port")
    return options
