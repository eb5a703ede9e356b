"""Predictions and attention for whole archives of videos, as Parquet files."""
