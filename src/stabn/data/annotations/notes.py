"""Notes on tables of clips."""

import logging
from functools import cache

from stabn.files import is_first_process

logger = logging.getLogger(__name__)


@cache
def note_once(message: str) -> None:
    """Log a note, once per process though several steps of a verb read the same table."""
    if is_first_process():
        logger.warning("note: %s", message)
