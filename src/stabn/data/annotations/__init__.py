"""Data sets as others keep them: one module per family of formats, each from files to a `Listing`."""
