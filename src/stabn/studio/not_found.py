"""The error for an id from a request that names nothing."""


class NotFoundError(LookupError):
    """There is no clip, frame or job of this id; the web application answers with status 404."""
