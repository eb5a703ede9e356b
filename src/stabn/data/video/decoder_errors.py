"""FFmpeg's decoders, set so that they show as little damage as possible for pictures.

What they notice, and what nobody can: docs/data-faults.md.
"""

import av

_ONE_EACH = ("h264", "hevc", "libdav1d", "av1")
_BOUNDED = {"max_pixels": str(2**27)}  # of a frame, 400 MB as RGB: a damaged header may claim any size
# Errors that FFmpeg would hide behind pieces of other frames. Not for H.264, where it takes for errors, too, what lies
# before the first whole frame of a film that was cut.
_STRICT = {"err_detect": "crccheck+explode"}


def set_up(stream: av.VideoStream) -> None:
    """Have the decoder of a stream complain, and use no more threads than are worth it."""
    # measured: threads double the time of a small clip, and data loaders already run one process per core
    stream.thread_type = "AUTO" if stream.width * stream.height >= 1280 * 720 else "NONE"
    stream.codec_context.options = _BOUNDED | ({} if stream.codec_context.name == "h264" else _STRICT)


def decoder_of(stream: av.VideoStream, first: av.Packet) -> av.VideoCodecContext:
    """What decodes a stream: for VP9 libvpx, since FFmpeg shows most damage of it as pictures.

    Both show the same frames of sound files, in about the same time.

    Args:
        stream: that was set up; nothing of it was decoded yet.
        first: its first packet.
    """
    own = stream.codec_context
    if own.name != "vp9" or "libvpx-vp9" not in av.codecs_available:
        return own
    frames = first.decode()
    own.flush_buffers()
    if any(frame.rotation for frame in frames):  # known to nobody but the decoder that the file has opened
        return own
    checking = av.CodecContext.create("libvpx-vp9", "r")
    assert isinstance(checking, av.VideoCodecContext)
    checking.options = _BOUNDED
    if own.thread_type.name == "NONE":
        checking.thread_count = 1
    return checking


class Expected:
    """Which frames must come of the packets that were sent to the decoder, which passes over some without a word.

    Told by their times, and only where every packet is one visible frame. Frames that belong before the first one
    shown may be missing: where a film was cut, they lean on what was cut off.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        is_told = stream.codec_context.name in _ONE_EACH and container.format.name.startswith(("mov", "matroska"))
        self._times: set[int] | None = set() if is_told else None
        self._first: int | None = None

    def sent(self, packet: av.Packet) -> None:
        """A packet goes to the decoder."""
        if self._times is not None and packet.size and packet.pts is not None and not packet.is_discard:
            self._times.add(packet.pts)

    def shown(self, frame: av.VideoFrame) -> None:
        """A frame has come out."""
        if self._first is None:
            self._first = frame.pts
        if frame.pts is None or frame.interlaced_frame:  # two packets may be the two fields of a frame
            self._times = None
        if self._times is not None:
            self._times.discard(frame.pts)

    def missing(self) -> int:
        """How many have not."""
        return sum(time > self._first for time in self._times or () if self._first is not None)
