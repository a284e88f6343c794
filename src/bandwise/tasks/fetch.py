"""Data that is downloaded once and checked."""

from pathlib import Path


def fetch(url: str, sha256: str, instead: str, folder: Path | None = None) -> Path:
    """The file at ``url``. It is downloaded unless it lies in ``folder`` already.

    By default the folder is the user's cache of ``bandwise``. An OSError names what the user can
    pass ``instead``; a ValueError says that the content has another hash.
    """
    import pooch

    name, folder = f"{sha256[:8]}-{url.rpartition('/')[2]}", folder or pooch.os_cache("bandwise")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=folder))
    except OSError as error:
        raise OSError(
            f"cannot download {url} ({error}); with no network, pass {instead}"
        ) from error
