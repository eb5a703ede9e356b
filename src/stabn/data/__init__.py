"""Frames and labels, without any model: video file -> clip -> sample -> batch."""
