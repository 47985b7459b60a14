"""Errors that a user can mend: the message is one line, says what is wrong and what to do."""

from farout.command_names import as_typed


def one_line(text: str) -> str:
    """Text with line breaks as blanks, and what no terminal shows (or which it obeys) as escapes."""
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip()) if "\n" in text else text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in joined)


def shorten(value: object, length: int = 80) -> str:
    """A value as a message shows it."""
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


class FaroutError(Exception):
    """A user-facing error. The command line prints its message alone and exits with status 2.

    The message is one line, also where it names a file whose name is not, and names commands as they are typed here.
    """

    def __str__(self) -> str:
        return one_line(as_typed(super().__str__()))


class ConfigError(FaroutError):
    """An option that does not exist, does not fit the others, or has a value of the wrong kind."""


class MissingDataError(FaroutError):
    """A data set (or a file of one) that is not in the store and that no pack can provide."""


class UnwritableError(FaroutError):
    """A file that the disk does not take: full, read-only, or somebody else's."""


class OutOfBudget(FaroutError):
    """The time that was given is spent; what is done is saved, and the same command goes on from it."""


class Pruned(FaroutError):
    """A sweep saw that others do better on the holdout, and ended the training of this job; no failure."""


def printable(name: object, limit: int = 400) -> str:
    """A file's name as one line can show it: what is no text, or breaks the line, as escapes; long ones cut."""
    text = "".join(c if c.isprintable() else _escaped(c) for c in str(name))
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
