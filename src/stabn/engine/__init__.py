"""Device, precision, memory layout, and Lightning's trainer."""
