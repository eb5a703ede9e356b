"""What cannot be learnt from: damaged, unreadable and mislabelled videos."""
