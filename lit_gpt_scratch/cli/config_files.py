"""Config files by path, or by the name of one that the package ships."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The folder of an installed package, and that of a clone of the repository.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")


def shipped_configs() -> list[str]:
    """Return the names of the shipped configs, sorted, without the suffix."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def find_config(name: str) -> str:
    """Return the path of a config: `name`, or if there is no such file, the shipped config of that name."""
    if not Path(name).expanduser().exists() and Path(name).name == name:
        for folder in FOLDERS:
            path = folder / f"{name.removesuffix('.yaml')}.yaml"
            if path.is_file():
                return str(path)
    return name
