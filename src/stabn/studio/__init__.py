"""The studio: a local web application in which people see what a network looked at, and correct it."""
