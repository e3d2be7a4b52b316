"""Config files by path or by name."""

from pathlib import Path

from helpers.command_line import ROOT, Run
from lit_gpt_scratch.cli.config_files import configs_folder, find_config, shipped_configs


def test_shipped_configs_are_found_by_name_from_any_folder(run: Run) -> None:
    assert find_config("char") == find_config("char.yaml") == str(ROOT / "configs" / "char.yaml")
    assert shipped_configs() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert run("fit", "--config", "debug", "--trainer.max_steps", "2", "--run_dir", "r").code == 0
    assert "n_embd: 64" in Path("r/config.yaml").read_text()


def test_own_file_takes_precedence_over_a_shipped_config(run: Run) -> None:
    Path("char.yaml").write_text("eval_every: 7\n")
    assert find_config("char.yaml") == "char.yaml"
    assert find_config("configs/char.yaml") == "configs/char.yaml"
    assert find_config("nothing") == "nothing"


def test_installed_package_ignores_a_folder_of_configs_beside_it(tmp_path: Path) -> None:
    """In site-packages, the folder beside the package would be another project's."""
    package, beside = tmp_path / "lit_gpt_scratch", tmp_path / "configs"
    package.mkdir()
    beside.mkdir()
    assert configs_folder(package) == beside  # a clone
    (package / "configs").mkdir()
    assert configs_folder(package) == package / "configs"
