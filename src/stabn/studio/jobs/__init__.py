"""Fine-tuning started from the studio: a process of its own, and its outcome."""
