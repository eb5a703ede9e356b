"""On what the work runs: device, precision, memory layout, Lightning's trainer."""
