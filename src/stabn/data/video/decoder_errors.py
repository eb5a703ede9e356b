"""Set up FFmpeg's decoders so that they report damage instead of showing it.

What they notice, and what nobody can: docs/data-faults.md.
"""

import av
from av.sidedata.sidedata import Type

_ONE_EACH = ("h264", "hevc", "libdav1d", "av1")
_BOUNDED = {"max_pixels": str(2**27)}  # of a frame, 400 MB as RGB: a damaged header may claim any size
# Errors that FFmpeg would conceal with pieces of other frames. Not for H.264, where it takes the incomplete frames at
# the beginning of a video that was cut for errors, too.
_STRICT = {"err_detect": "crccheck+explode"}


def configure_stream(stream: av.VideoStream) -> None:
    """Let the decoder of a stream report damage, and use several threads for large frames only."""
    # measured: threads double the time of a small clip, and data loaders already run one process per core
    stream.thread_type = "AUTO" if stream.width * stream.height >= 1280 * 720 else "NONE"
    stream.codec_context.options = _BOUNDED | ({} if stream.codec_context.name == "h264" else _STRICT)


def choose_decoder(stream: av.VideoStream, first: av.Packet) -> av.VideoCodecContext:
    """The decoder of a stream: for VP9 libvpx, since FFmpeg's own shows most damage of it as frames.

    Both show the same frames of intact files, in about the same time.

    Args:
        stream: as `configure_stream` left it, nothing of it decoded yet.
        first: the first packet.
    """
    own = stream.codec_context
    if own.name != "vp9" or "libvpx-vp9" not in av.codecs_available:
        return own
    frames = first.decode()
    own.flush_buffers()
    # only the decoder that the file opened knows it
    if any(frame.side_data.get(Type.DISPLAYMATRIX) for frame in frames):  # type: ignore[call-overload]
        return own
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = _BOUNDED
    if own.thread_type.name == "NONE":
        decoder.thread_count = 1
    return decoder


class MissingFrames:
    """Counts frames that a decoder skips without an error: their packets were sent, but no frame of such a time came.

    Only where every packet is one visible frame. Frames that belong before the first one shown may be missing: where a
    video was cut, they depend on what was cut off.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        is_known = stream.codec_context.name in _ONE_EACH and container.format.name.startswith(("mov", "matroska"))
        self._times: set[int] | None = set() if is_known else None
        self._first: int | None = None

    def add_packet(self, packet: av.Packet) -> None:
        """A packet is sent to the decoder."""
        if self._times is not None and packet.size and packet.pts is not None and not packet.is_discard:
            self._times.add(packet.pts)

    def add_frame(self, frame: av.VideoFrame) -> None:
        """The decoder has returned a frame."""
        if self._first is None:
            self._first = frame.pts
        if frame.pts is None or frame.interlaced_frame:  # two packets may be the two fields of a frame
            self._times = None
        if self._times is not None:
            self._times.discard(frame.pts)

    def count(self) -> int:
        """How many frames are missing."""
        return sum(time > self._first for time in self._times or () if self._first is not None)
