"""A whole archive of videos becomes Parquet files with what a network answered, and when and where it looked."""
