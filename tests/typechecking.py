"""The type checker that runs under the tests: as Python's own type hints mean it, an int is a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
