"""Progress bars on standard error."""

import sys
import time

import pytest

from lit_gpt_scratch.data import progress_bar


@pytest.mark.parametrize(
    ("is_watched", "delay_seconds", "is_shown"),
    [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)],
)
def test_bar_is_shown_on_a_terminal_after_a_delay(
    is_watched: bool,
    delay_seconds: float,
    is_shown: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have imported it
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_watched)
    monkeypatch.setattr(progress_bar, "DELAY_SECONDS", delay_seconds)
    with progress_bar.progress_bar("reading", 4_000_000, "B") as advance:
        for _ in range(4):
            time.sleep(0.12)  # longer than the bar's refresh interval of 0.1 s
            advance(10**6)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("reading" in err and "M/4.00M" in err) == is_shown
    assert bool(err) == is_shown
    assert "\n" not in err  # the bar is erased at its end


def test_printing_above_a_delayed_bar_does_not_show_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar.progress_bar("reading", 4):
        progress_bar.print_above_bar("a line", sys.stdout)
    out, err = capsys.readouterr()
    assert out == "a line\n"
    assert "reading" not in err


def test_status_line_is_erased(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_bar.status_line("loading"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar.status_line("loading"):
        assert capsys.readouterr().err == "loading"
    assert capsys.readouterr().err == "\r       \r"
