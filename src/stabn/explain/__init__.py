"""Where and when a network looked, for people and for programs."""
