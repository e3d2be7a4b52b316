"""Download texts."""

import atexit
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10
GZIP_MAGIC = b"\x1f\x8b"


class DownloadError(OSError):
    """The network failed, or the downloaded file has a wrong checksum."""


def download(url: str) -> Path:
    """Download a file, under its own name, to a temporary folder that is deleted when the process ends.

    Raises:
        ValueError: The URL does not exist, its protocol is unknown, or its server returns an error.
        DownloadError: The network failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="lit_gpt_scratch-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / (Path(urlsplit(url).path).name or "text")
    _fetch(url, path)
    if path.suffix == ".gz" and path.read_bytes()[:2] != GZIP_MAGIC:  # decompressed by the HTTP client
        path = path.rename(path.with_suffix("" if Path(path.stem).suffix else ".txt"))
    return path


def _fetch(url: str, path: Path) -> None:
    import fsspec  # not at the top: a local text needs no network client

    options = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    try:
        filesystem, remote = fsspec.core.url_to_fs(url, **options)
        filesystem.get_file(remote, str(path))
    except FileNotFoundError as error:  # the server responded: the URL is wrong, not the network
        raise ValueError(f"there is nothing at {url}") from error
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is missing
        raise ValueError(f"cannot open {url}: {error}") from error
    except Exception as error:  # each protocol's client has its own exception classes
        if hasattr(error, "status"):  # the server responded
            raise ValueError(f"cannot open {url}: its server returned status {error.status}") from error
        raise DownloadError(f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")) from error
