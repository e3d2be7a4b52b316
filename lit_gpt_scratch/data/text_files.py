"""Find the text files of a folder or a glob pattern, each once."""

import glob
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lit_gpt_scratch.data.readers import DECOMPRESS, FORMATS, file_format

log = logging.getLogger(__name__)


def find_text_files(source: str) -> tuple[str, list[Path]]:
    """Find the files of a source: one file, the text files of a folder, or all files that match a pattern.

    A folder's text files are the files in the folder and its subfolders whose names imply a format from
    `FORMATS`; symbolic links are followed. Hidden files, files in hidden folders and compressed copies of
    other files (a.txt.gz beside a.txt) are left out. A warning names each folder that cannot be opened;
    another warning counts the files that are left out because they are copies or have another suffix.

    Args:
        source: Path of a file or folder, or a glob pattern.

    Returns:
        The source as an absolute path or pattern, and the files, sorted by path.

    Raises:
        ValueError: A folder has no text file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return str(path.resolve()), [path]
    if not path.is_dir():
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        pattern = str(path) if path.is_absolute() else os.path.join(glob.escape(os.getcwd()), path)
        return pattern, list(_distinct(sorted(match for match in matches if match.is_file())))
    visible = list(_distinct(sorted(_visible_files(path))))
    texts = [file for file in visible if file_format(file) is not None]
    if not texts:
        raise ValueError(f"no {', '.join(FORMATS)} file, compressed or not, in the folder {source}")
    plain = {str(file) for file in texts}
    copies = [file for file in texts if file.suffix in DECOMPRESS and str(file.with_suffix("")) in plain]
    n_skipped = len(visible) - len(texts) + len(copies)
    if n_skipped:
        texts = [file for file in texts if file not in copies]
        message = "%s: %s files are read, %s are left out: other suffixes, or compressed copies of a file"
        log.warning(message, source, len(texts), n_skipped)
    return str(path.resolve()), texts


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, except hidden files and the files of hidden folders.

    Symbolic links are followed, but a folder that several paths lead to is searched only once.
    """
    visited = {_identity(folder)}

    def warn(error: OSError) -> None:
        log.warning("cannot open the folder %s: %s", error.filename, error.strerror)

    for root, subfolders, names in os.walk(folder, onerror=warn, followlinks=True):
        kept = []
        for name in sorted(subfolders):
            if not name.startswith(".") and (identity := _identity(Path(root, name))) not in visited:
                visited.add(identity)
                kept.append(name)
        subfolders[:] = kept
        for name in names:
            if not name.startswith(".") and Path(root, name).is_file():
                yield Path(root, name)


def _distinct(files: Iterable[Path]) -> Iterator[Path]:
    """Yield each file once, by its first path, even if links or a cycle of folders give it several paths."""
    seen = set()
    for file in files:
        if (identity := _identity(file)) not in seen:
            seen.add(identity)
            yield file


def _identity(path: Path) -> tuple[int, int]:
    """Return the device and inode numbers of a file or folder, which are the same for all of its paths."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino
