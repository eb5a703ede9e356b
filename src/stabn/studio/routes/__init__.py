"""Requests become calls of the studio's parts."""
