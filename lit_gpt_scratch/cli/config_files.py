"""Config files by path, or by the name of one that the package ships."""

from pathlib import Path


def configs_folder(package: Path) -> Path:
    """Return the folder of the shipped configs: inside an installed package, or beside it in a clone."""
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


CONFIGS = configs_folder(Path(__file__).parents[1])


def shipped_configs() -> list[str]:
    """Return the names of the shipped configs, sorted, without the suffix."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find_config(name: str) -> str:
    """Return the path of a config: `name`, or if there is no such file, the shipped config of that name."""
    shipped = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    is_shipped = not Path(name).expanduser().exists() and Path(name).name == name and shipped.is_file()
    return str(shipped) if is_shipped else name
