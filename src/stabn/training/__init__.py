"""Training and fine-tuning, on Lightning."""
