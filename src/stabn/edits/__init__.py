"""Corrections of temporal attention: projects, merging, agreement, formats, simulation."""
