"""Video file -> clip: decoding, with times, errors and damage noticed."""
