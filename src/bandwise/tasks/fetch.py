"""Data that is downloaded once and checked."""

from __future__ import annotations

from pathlib import Path


def fetch(url: str, sha256: str, instead: str, folder: Path | None = None) -> Path:
    """The file at ``url``. It is downloaded unless it lies in ``folder`` already.

    Args:
        url: the address of the file. Its last part names the file.
        sha256: the hash of the content. A file with another hash is not kept.
        instead: what the user can pass if there is no network.
        folder: ``None``: the user's cache folder of ``bandwise``.

    Raises:
        OSError: it cannot be downloaded.
        ValueError: the content has another hash.
    """
    import pooch

    name, folder = f"{sha256[:8]}-{url.rpartition('/')[2]}", folder or pooch.os_cache("bandwise")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=folder))
    except OSError as error:
        raise OSError(
            f"cannot download {url} ({error}); with no network, pass {instead}"
        ) from error
