"""Text out of tokens as they come: no character is cut, and nothing of a stop string is shown."""

from lit_gpt_scratch.data.tokenizer import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoding makes of bytes that are no whole character


class TextStream:
    """The text of one row.

    Tokens may end inside a character, and stop strings may begin in one token and end in another: what is not
    yet sure is held back.
    """

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        """Begin after the prompt.

        Args:
            tokenizer: What the tokens mean.
            stop: Strings at which the text ends; they do not belong to it.
        """
        self.text = ""  # all that is sure
        self.ended = False  # by a stop string
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens: list[int] = []  # since the last one that ended with a character
        self._n_taken = 0  # characters of theirs that were sure
        self._held = ""  # what a stop string may begin with

    def feed(self, token: int) -> str:
        """Take one more token, and return the text that is sure by now."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        whole = text.removesuffix(UNFINISHED)  # but for the last, what is no character will be none
        fresh = whole[self._n_taken :]
        self._n_taken = len(whole)
        if whole == text:
            self._tokens.clear()
            self._n_taken = 0
        return self._take(self._held + fresh)

    def finish(self) -> str:
        """The tokens have ended: return the rest."""
        rest = "" if self.ended else self._held + self._tokenizer.decode(self._tokens)[self._n_taken :]
        self._tokens.clear()
        self._n_taken = 0
        self._held = ""
        self.text += rest
        return rest

    def _take(self, text: str) -> str:
        found = [at for string in self._stop if (at := text.find(string)) >= 0]
        if found:
            self.ended, sure = True, min(found)
        else:
            sure = len(text) - max((_overlap(text, string) for string in self._stop), default=0)
        self._held = text[sure:]
        self.text += text[:sure]
        return text[:sure]


def _overlap(text: str, string: str) -> int:
    """Length of the longest beginning of `string`, but all of it, with which `text` ends."""
    lengths = range(min(len(text), len(string) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(string[:n])), 0)
