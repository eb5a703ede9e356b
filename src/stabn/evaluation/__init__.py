"""How good a network is, what it gets wrong, and whether a correction helped."""
