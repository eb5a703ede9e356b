"""Runs side by side: who takes part, what they answer for the same clips, and the page that shows it."""
