"""Text from the tokens of one continuation, as they are generated."""

from lit_gpt_scratch.data.tokenizers import Tokenizer

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # decoded text of bytes that are not a whole character


class Detokenizer:
    """Decode tokens one at a time into whole characters, up to a stop string.

    Incomplete characters are held back until later tokens complete them, and text that may begin a stop
    string is held back until later tokens show whether it does.

    Args:
        tokenizer: The tokenizer.
        stop: Strings that end the text and are left out of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        self.text = ""  # text that `feed` and `finish` have returned
        self.stopped = False  # True once a stop string was found
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens: list[int] = []  # tokens since the last one that ended a character
        self._n_decoded = 0  # characters of `_tokens` that were decoded before
        self._held = ""  # decoded text that may begin a stop string

    def feed(self, token: int) -> str:
        """Add a token and return the text that is no longer held back, which may be empty."""
        self._tokens.append(token)
        decoded = self._tokenizer.decode(self._tokens)
        complete = decoded.removesuffix(INCOMPLETE)  # U+FFFD before the end is from invalid bytes
        text = self._held + complete[self._n_decoded :]
        self._n_decoded = len(complete)
        if complete == decoded:
            self._tokens, self._n_decoded = [], 0
        found = [start for string in self._stop if (start := text.find(string)) >= 0]
        self.stopped = bool(found)
        n_held = max((overlap(text, string) for string in self._stop), default=0)
        end = min(found, default=len(text) - n_held)
        self._held = text[end:]
        self.text += text[:end]
        return text[:end]

    def finish(self) -> str:
        """Return the text that is still held back; call it once, after the last token."""
        rest = "" if self.stopped else self._held + self._tokenizer.decode(self._tokens)[self._n_decoded :]
        self.text += rest
        return rest


def overlap(text: str, string: str) -> int:
    """Return the length of the longest proper prefix of `string` that `text` ends with."""
    lengths = range(min(len(text), len(string) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(string[:n])), 0)
