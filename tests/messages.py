"""Messages are tested by what they name, so that their wording may change."""

import re


def names(*values: object) -> str:
    """A pattern for a message that names all of these values, in any order."""
    return "".join(f"(?=.*{re.escape(str(value))})" for value in values)
