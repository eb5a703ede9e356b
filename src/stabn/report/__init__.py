"""Every HTML page: runs compared, and a run before and after its corrections."""
