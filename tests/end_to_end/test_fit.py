"""`fit`: output, files, metrics and learning."""

import math
import re
import sys
from pathlib import Path
from threading import Thread

import pytest
import torch
import yaml

from helpers.checkpoints import best_checkpoint, last_checkpoint
from helpers.command_line import ROOT, TINY, Run
from helpers.events import events
from helpers.marks import needs_compiler
from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.corpus import HAMLET, load_corpus
from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.training import module


def test_run_folder_has_the_documented_files(finished: Path) -> None:
    names = {path.name.split(".out.")[0] for path in finished.iterdir()}
    documented = "best.ckpt last.ckpt config.yaml samples.md curves.png events hparams.yaml"
    assert names == {*documented.split()}
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_every_metric_at_its_steps(finished: Path) -> None:
    logged = events(finished)
    steps = {tag: [point.step for point in logged.Scalars(tag)] for tag in logged.Tags()["scalars"]}
    evaluations, logs = [0, 14, 29, 39], list(range(4, 40, 5))  # Lightning counts steps from 0
    assert steps == {
        "val/loss": evaluations,
        "val/perplexity": evaluations,
        "val/bits_per_byte": evaluations,
        "val/gap": evaluations,
        "train/eval_loss": evaluations,
        "train/loss": logs,
        "train/grad_norm": logs,
        "learning_rate/decay": logs,
        "learning_rate/no_decay": logs,
        "throughput/tokens_per_second": logs,
        "epoch": sorted([*evaluations[1:], *logs]),
    }
    assert [point.step for point in logged.Tensors("samples/text_summary")] == [0, 15, 30, 40]


def test_logged_metrics_are_consistent(finished: Path) -> None:
    logged = events(finished)
    value = {tag: [point.value for point in logged.Scalars(tag)] for tag in logged.Tags()["scalars"]}
    for i, loss in enumerate(value["val/loss"]):
        assert value["val/perplexity"][i] == pytest.approx(math.exp(loss), rel=1e-5)
        bits_per_byte = loss / math.log(2)  # ASCII: one byte per token
        assert value["val/bits_per_byte"][i] == pytest.approx(bits_per_byte, rel=1e-5)
        assert value["val/gap"][i] == pytest.approx(loss - value["train/eval_loss"][i], abs=1e-6)
    assert value["val/loss"][0] == pytest.approx(math.log(CharTokenizer(HAMLET).vocab_size), abs=0.1)
    assert value["train/loss"][-1] < value["train/loss"][0] - 0.3
    assert all(norm > 0 for norm in value["train/grad_norm"])


@torch.no_grad()
def test_validation_loss_is_the_mean_over_all_tokens(finished: Path) -> None:
    """The first character of the validation text has no prediction."""
    checkpoint = last_checkpoint(finished)
    ids = torch.from_numpy(CharTokenizer(HAMLET).encode(HAMLET).astype("int64"))
    val = ids[int(0.9 * len(ids)) :]
    gpt, total = load(finished / "last.ckpt").gpt.cpu(), 0.0
    for first in range(0, len(val) - 1, 32):
        start = min(first, len(val) - 33)  # the last window is moved back to full length
        loss = torch.nn.functional.cross_entropy(
            gpt(val[None, start : start + 32])[0], val[start + 1 : start + 33], reduction="none"
        )
        total += float(loss[first - start :].sum())
    assert checkpoint["evaluation"]["val/loss"] == pytest.approx(total / (len(val) - 1), abs=1e-5)


def test_checkpoint_has_tokenizer_corpus_and_architecture(finished: Path) -> None:
    checkpoint = best_checkpoint(finished)
    assert checkpoint["TextDataModule"]["tokenizer"] == CharTokenizer(HAMLET).to_dict()
    assert checkpoint["TextDataModule"]["corpus"] == load_corpus("hamlet").fingerprint()
    assert checkpoint["hyper_parameters"]["n_embd"] == 32
    assert checkpoint["evaluation"]["step"] == checkpoint["global_step"]


def test_best_checkpoint_has_the_lowest_validation_loss(finished: Path) -> None:
    losses = {point.step: point.value for point in events(finished).Scalars("val/loss") if point.step}
    best = best_checkpoint(finished)
    assert best["global_step"] == min(losses, key=losses.__getitem__) + 1
    assert best["evaluation"]["val/loss"] == pytest.approx(min(losses.values()), abs=1e-6)


def test_samples_are_written_with_step_and_loss(finished: Path) -> None:
    samples = (finished / "samples.md").read_text()
    losses = [point.value for point in events(finished).Scalars("val/loss")]
    for step, loss in zip([0, 15, 30, 40], losses, strict=True):
        assert f"## Step {step}, val loss {loss:.4f}\n" in samples


def test_summary_describes_the_run_and_the_next_commands(run: Run) -> None:
    done = run("fit", *TINY, "--trainer.max_steps", "4", "--eval_every", "2", "--run_dir", "runs/mine")
    assert done.code == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("corpus  hamlet, 606 characters, sha256 ")
    assert lines[1] == "tokens  545 to train on, 61 to validate on, vocabulary 39"
    assert "parameters: 2 layers, 2 heads, 32 wide, block 32" in lines[2]
    assert lines[4] == "run     4 steps, 256 tokens a step, 1.88 epochs, in runs/mine"
    assert lines[5].startswith("warning 10 steps of warmup leave none of 4 for decay")
    assert [line.split(" · ")[0] for line in lines if line.startswith("step")] == [
        "step 0/4",
        "step 2/4",
        "step 4/4",
    ]
    assert f"untrained: within 0.1 of ln 39 = {math.log(39):.4f}, a pure guess" in lines[6]
    assert "python -m lit_gpt_scratch predict --ckpt_path runs/mine" in done.out
    assert "tensorboard --logdir runs" in done.out
    assert "python -m lit_gpt_scratch fit --ckpt_path runs/mine --trainer.max_steps 8" in done.out


def test_last_step_is_evaluated_and_saved(run: Run) -> None:
    assert run("fit", *TINY, "--trainer.max_steps", "7", "--eval_every", "5", "--run_dir", "r").code == 0
    last = last_checkpoint("r")
    assert last["global_step"] == last["evaluation"]["step"] == 7


@pytest.mark.slow
def test_max_time_ends_the_run_with_an_evaluation(run: Run) -> None:
    limits = ["--trainer.max_time", "00:00:00:01", "--trainer.max_steps", "-1", "--model.decay_steps", "100"]
    limits += ["--eval_every", "1000000", "--save_every", "1000000"]
    assert run("fit", *TINY, *limits, "--run_dir", "r").code == 0
    last = last_checkpoint("r")
    assert last["global_step"] == last["evaluation"]["step"] > 0
    again = run("fit", "--ckpt_path", "r")  # for another second
    assert again.code == 0
    assert again.out.endswith("fit --ckpt_path r\n")
    assert last_checkpoint("r")["global_step"] > last["global_step"]


def test_run_does_not_overwrite_another_run(run: Run) -> None:
    args = ["fit", *TINY, "--trainer.max_steps", "1", "--run_dir", "r"]
    assert run(*args).err == ""
    before = Path("r/last.ckpt").read_bytes()
    assert "r exists: this run is written to r-2" in run(*args).err
    assert "r exists: this run is written to r-3" in run(*args).err
    assert Path("r/last.ckpt").read_bytes() == before


def test_config_yaml_reproduces_the_run(run: Run, finished: Path) -> None:
    assert run("fit", "--config", finished / "config.yaml", "--run_dir", "again").code == 0
    one, again = (last_checkpoint(folder) for folder in (finished, Path("again")))
    assert all(torch.equal(tensor, again["state_dict"][name]) for name, tensor in one["state_dict"].items())


@pytest.mark.usefixtures("no_network")
def test_run_without_network_warns_and_trains_on_the_offline_corpus(run: Run) -> None:
    small = ["--data.offline_corpus", "hamlet", "--model.block_size", "16", "--trainer.max_steps", "1"]
    done = run("fit", "--config", ROOT / "configs" / "char.yaml", *small, "--run_dir", "r")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert "TRAINING ON THE EMBEDDED hamlet INSTEAD" in done.err
    assert last_checkpoint("r")["TextDataModule"]["corpus"]["name"] == "hamlet"
    assert run("validate", "--ckpt_path", "r").code == 0  # reads hamlet, without a download


def test_callbacks_are_configured_in_yaml(run: Run) -> None:
    settings = {"step_control": {"max_norm": None}, "samples": {"prompt": "To be", "max_new_tokens": 3}}
    Path("extra.yaml").write_text(yaml.safe_dump(settings))
    assert run("fit", *TINY, "--config", "extra.yaml", "--trainer.max_steps", "1", "--run_dir", "r").code == 0
    kept = yaml.safe_load(Path("r/config.yaml").read_text())
    assert kept["step_control"]["max_norm"] is None
    assert kept["samples"]["prompt"] == "To be"
    sample = Path("r/samples.md").read_text().split("\n\n")[1]
    assert sample.startswith("    To be")
    assert len(sample.replace("\n    ", "\n")) <= 4 + len("To be") + 3


def test_gradient_clipping_bounds_the_update(run: Run) -> None:
    """The logged norm is the one before clipping."""
    args = ["fit", *TINY, "--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1"]
    assert run(*args, "--run_dir", "free", "--step_control.max_norm", "null").code == 0
    assert run(*args, "--run_dir", "bound", "--step_control.max_norm", "1e-9").code == 0
    free, bound = (events(Path(name)).Scalars("train/grad_norm")[0].value for name in ("free", "bound"))
    assert free == pytest.approx(bound, rel=1e-6)
    assert free > 0.1
    momenta = [
        last_checkpoint(name)["optimizer_states"][0]["state"][0]["exp_avg"] for name in ("free", "bound")
    ]
    assert momenta[1].norm() < 1e-8 < momenta[0].norm()


def test_debug_config_overfits(run: Run) -> None:
    done = run("fit", "--config", ROOT / "configs" / "debug.yaml", "--run_dir", "r")
    assert done.code == 0
    assert last_checkpoint("r")["evaluation"]["train/eval_loss"] < 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("shakespeare")
def test_char_config_learns_more_than_bigrams_in_150_steps(run: Run) -> None:
    """Bigrams have a loss of 2.45 nats."""
    args = ["--trainer.max_steps", "150", "--run_dir", "r"]
    assert run("fit", "--config", ROOT / "configs" / "char.yaml", *args).code == 0
    assert last_checkpoint("r")["evaluation"]["val/loss"] < 2.35


MODERN = ["--model.arch", "modern", "--trainer.max_steps", "6", "--eval_every", "3", "--save_every", "3"]


@pytest.mark.slow
@needs_compiler
def test_compiled_run_equals_eager_run_within_rounding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each also resumes from the other's checkpoint."""
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    assert run("fit", *TINY, *MODERN, "--compile", "true", "--run_dir", "short").code == 0
    assert graphs["unique_graphs"] == 0  # the first steps do not wait for the compiler
    monkeypatch.setattr(module, "EAGER_STEPS", 2)
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        done = run("fit", *TINY, *MODERN, "--compile", compiled, "--run_dir", name)
        assert done.code == 0, done.err
    assert "compiled (as asked)" in done.out
    assert graphs["unique_graphs"] > 0
    eager, compiled_ = (last_checkpoint(name) for name in ("eager", "compiled"))
    assert eager["state_dict"].keys() == compiled_["state_dict"].keys()
    for key, tensor in eager["state_dict"].items():
        torch.testing.assert_close(tensor, compiled_["state_dict"][key], atol=1e-4, rtol=1e-3)
    for name, compiled in (("eager", "true"), ("compiled", "false")):
        done = run("fit", "--ckpt_path", name, "--trainer.max_steps", "8", "--compile", compiled)
        assert done.code == 0, done.err
        assert run("predict", "--ckpt_path", name, "--prompt", "To", "--max_new_tokens", "5").code == 0


def test_muon_trains_the_matrices_and_adamw_the_rest(run: Run) -> None:
    done = run("fit", *TINY, *MODERN, "--model.optimizer", "muon", "--model.schedule", "linear")
    assert done.code == 0, done.err
    state = last_checkpoint("checkpoints/run")["optimizer_states"][0]
    kinds = ["muon" if "momentum" in group else "adamw" for group in state["param_groups"]]
    assert kinds == ["adamw", "adamw", "muon"]
    matrices = [len(group["params"]) for group in state["param_groups"]]
    assert matrices == [1, 2 * 4 + 1, 2 * 7]  # the embedding; norms; q, k, v, output, gate, and the MLP's two
    rates = [group["lr"] for group in state["param_groups"]]
    assert rates[2] / rates[0] == pytest.approx(0.02 / 3e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_modern_architecture_learns_a_repeated_text(run: Run, optimizer: str) -> None:
    """Two alternating words are predictable except at the beginning of a window."""
    Path("words.txt").write_text("tick tock " * 500)
    args = ["--data.corpus", "words.txt", "--model.arch", "modern", "--model.optimizer", optimizer]
    assert run("fit", *TINY, *args, "--trainer.max_steps", "120", "--eval_every", "120").code == 0
    loss = last_checkpoint("checkpoints/run")["evaluation"]["val/loss"]
    assert loss < 0.25


def test_k_best_checkpoints_are_kept(run: Run) -> None:
    args = [*TINY, "--eval_every", "2", "--best_checkpoint.save_top_k", "3", "--model.decay_steps", "400"]
    done = run("fit", *args, "--trainer.max_steps", "150", "--run_dir", "r")
    assert done.code == 0
    # The run overfits, so the best evaluations are not the last ones.
    losses = {int(step): float(loss) for step, loss in re.findall(r"step +(\d+)/.*? val (\d\S+)", done.out)}
    best = sorted((loss, step) for step, loss in losses.items() if step > 0)[:3]
    assert {path.name for path in Path("r").glob("best-*")} == {f"best-{step}.ckpt" for _, step in best}
    for _, step in best:
        checkpoint = torch.load(f"r/best-{step}.ckpt", weights_only=True)
        assert checkpoint["global_step"] == checkpoint["evaluation"]["step"] == step
    assert best_checkpoint("r")["global_step"] == best[0][1]
    resumed = run("fit", "--ckpt_path", "r", "--trainer.max_steps", "160")
    assert resumed.code == 0
    assert len(list(Path("r").glob("best-*"))) == 3


def test_terminal_shows_a_progress_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["fit", *TINY, "--trainer.max_steps", "3", "--run_dir", "r"]
    without_terminal = run(*args)
    assert without_terminal.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    on_terminal = run(*args, "--run_dir", "s")
    assert on_terminal.err.startswith("loading PyTorch ...\r")  # at once: the import takes seconds
    assert "step 3/3" in on_terminal.err
    assert on_terminal.out.count("step 3/3") == without_terminal.out.count("step 3/3") == 1


@pytest.mark.parametrize("value", ["false", "auto", '"auto"'])
def test_compile_in_yaml_is_a_boolean_or_auto(run: Run, value: str) -> None:
    Path("c.yaml").write_text(f"compile: {value}\n")
    done = run("fit", *TINY, "--config", "c.yaml", "--trainer.max_steps", "12", "--run_dir", "r")
    assert done.code == 0, done.err
    assert "not compiled" in done.out
    assert f"compile: {value.strip(chr(34))}\n" in Path("r/config.yaml").read_text()


def test_fit_runs_in_a_thread(run: Run) -> None:
    codes: list[int] = []
    thread = Thread(target=lambda: codes.append(run("fit", *TINY, "--run_dir", "r").code))
    thread.start()
    thread.join()
    assert codes == [0]
    assert Path("r/last.ckpt").is_file()
