"""Explanations of single videos: records, heat maps, contact sheets and films."""
