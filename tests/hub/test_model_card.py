"""Model cards of exported models."""

from pathlib import Path

from helpers.command_line import Run
from lit_gpt_scratch.api import load
from lit_gpt_scratch.hub.model_card import model_card
from lit_gpt_scratch.training.checkpoint import read_checkpoint


def test_model_card_has_no_secrets_and_names_the_first_weights(run: Run, finished: Path) -> None:
    assert run("fit", "--init_from", finished, "--trainer.max_steps", "1", "--run_dir", "r").code == 0
    checkpoint = read_checkpoint("r/last.ckpt")
    checkpoint["TextDataModule"]["corpus"]["name"] = "https://me:password@example.org/a.txt?signature=s"
    card = model_card(checkpoint, load("r"), "gpt2", "mine")
    assert "| corpus | https://example.org/a.txt: 606 characters" in card
    assert "| initial weights | run/last.ckpt |" in card
    assert "password" not in card
    assert "signature" not in card
