"""Commands and scripts of the README and of docs/, run with few steps."""

import io
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from helpers.command_line import ROOT, Run, environment, run_process
from helpers.events import events
from helpers.marks import HAS_GPT2_ENCODING

README = (ROOT / "README.md").read_text(encoding="utf-8")
# In the order of execution: later pages use the runs of earlier ones. The commands of scaling_up.md, which
# needs devices, are in end_to_end/test_devices.py and end_to_end/test_faults.py.
PAGES = ("configuration", "data", "runs", "generation", "hub", "scaling_laws", "tutorials", "troubleshooting")
DOCS = {page: (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES}


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


COMMANDS = [
    line
    for text in (README, *DOCS.values())
    for block in code_blocks(text, "bash")
    for line in block.splitlines()
    if line
]
SHORT = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "2", "--samples.max_new_tokens", "5"]


def test_readme_begins_with_the_two_commands() -> None:
    """`.ci/run` executes both."""
    assert COMMANDS[:2] == [
        "pip install -c constraints.txt -e . && python -m lit_gpt_scratch fit --config configs/char.yaml",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]
    assert README.index(COMMANDS[1]) < README.index("\n## ")
    assert len(README.splitlines()) <= 150


@pytest.mark.usefixtures("empty_cache")
def test_documented_commands_run_in_order(
    run: Run, hub_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with the files that the pages mention; `gpt2-folder` stands for a downloaded GPT-2."""
    shutil.copytree(ROOT / "configs", "configs")
    for config in Path("configs").glob("*.yaml"):  # without network
        settings = yaml.safe_load(config.read_text())
        if config.stem == "scaling":
            continue
        settings["data"]["corpus"] = "python_docs"
        if config.stem == "gpt2":  # 124 M parameters are too many for a test
            settings["model"] |= {"n_layer": 2, "n_head": 2, "n_embd": 24}
        config.write_text(yaml.safe_dump(settings))
    Path("prompts.txt").write_text("Half a league,\nonward\n")
    for name in ("my.txt", "story.txt"):
        Path(name).write_text("Half a league, half a league, half a league onward.\n" * 300)
    hub_folder.rename("gpt2-folder")
    assert run("fit", "--config", "configs/char.yaml", *SHORT).code == 0
    last_step = 2
    for command in COMMANDS[2:]:
        words = shlex.split(command)
        assert words[0] == "tensorboard" or words[:3] == ["python", "-m", "lit_gpt_scratch"], command
        # Tested by tools/test_verify_resume.py and scaling/test_scale.py
        if "verify-resume" in words or "configs/scaling.yaml" in words:
            continue
        if words[0] == "tensorboard" or ("configs/gpt2.yaml" in words and not HAS_GPT2_ENCODING):
            continue
        args, _, redirected = (part.split() for part in shlex.join(words[3:]).partition("'>'"))
        if "fit" in args and "--help" not in args:
            last_step += "--ckpt_path" in args
            args += [*SHORT, "--trainer.max_steps", str(last_step if "--ckpt_path" in args else 2)]
        if "plan" in args:
            args += ["--no_measure"]  # planning/test_plan.py measures
        monkeypatch.setattr("sys.stdin", io.StringIO("To be\n"))  # for an interactive session
        done = run(*shlex.split(" ".join(args)))
        assert done.code == 0, f"{command}: {done.err}"
        assert done.out, command
        if "predict" in args:
            assert "python -m" not in done.out  # only generated text
    runs = {"char", "char-2", "char-3", "char_muon", "wide", "wide-2", "slower", "finetuned", "bpe"}
    runs |= {"gpt2-small", "mine", "scaling", "tutorial_char", "debug"}
    runs |= {"gpt2"} if HAS_GPT2_ENCODING else set()
    assert {path.name for path in Path("checkpoints").iterdir()} == runs
    for script in (block for text in DOCS.values() for block in code_blocks(text, "python")):
        exec(script, {})  # the Python API, and an exported folder in transformers


@pytest.mark.slow
def test_tensorboard_serves_a_run(finished: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    command = [str(program), "--logdir", str(finished.parent), "--port", str(port)]
    server = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url, tags = f"http://127.0.0.1:{port}/data/plugin/scalars/tags", ""
        deadline = time.monotonic() + 60
        while "val/perplexity" not in tags and time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                tags = urllib.request.urlopen(url, timeout=5).read().decode()
            except OSError:
                continue
        assert "val/perplexity" in tags
    finally:
        server.terminate()
        server.wait()


def test_readme_script_trains_and_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("ROMEO: Half a league, half a league, half a league onward.\n" * 300)
    (script,) = code_blocks(README, "python")
    short = script.replace("max_steps=1700", "max_steps=4").replace("interval=425", "interval=2")
    assert "max_steps=4" in short
    assert "interval=2" in short
    done = run_process(code=short)
    assert done.returncode == 0, done.stderr
    assert "ROMEO:" in done.stdout
    assert [*Path("best").glob("*.ckpt")]


def test_documented_tags_are_logged(finished: Path) -> None:
    documented = set(re.findall(r"`((?:train|val|throughput|learning_rate)/\w+|epoch)`", DOCS["runs"]))
    documented -= {"throughput/mfu", "learning_rate/muon"}  # of a GPU, and of Muon
    assert documented == set(events(finished).Tags()["scalars"])


def test_troubleshooting_quotes_messages_of_the_program() -> None:
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "lit_gpt_scratch").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # strings that continue on the next line
    messages = re.findall(r"^\| `(.*?)` \|", DOCS["troubleshooting"], flags=re.M)
    assert len(messages) > 10
    for message in messages:
        constant = max(re.split(r"\.\.\.|\bN\b|[\d()]+|No space left on device", message), key=len).strip(
            " :"
        )
        assert constant in joined, message
