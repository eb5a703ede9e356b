"""Tabletop: a generated benchmark in which only *when* and *in which order* things happen tells the classes apart.

A clip of 24 to 48 frames at 12 frames a second shows a table. Somewhere in it, for 12 to 18 frames, a hand does one of
fourteen things to an object. Before and after, other objects slide, rise, fall, appear and vanish, an empty hand may
wave, the camera shakes and the light changes; all of that is drawn from random streams that never see the label.
Participants enter with the act and leave with it, so frames outside it carry no trace of the class. Up / down, left /
right, on / off and cover / uncover are each other played backwards: the same frames in another order.

On disk it is a Something-Something v2 data set of H.264 files, plus the truth about every frame (`truth.jsonl`). On
request a shortcut is planted in it (`stabn.data.tabletop.shortcut`).
"""
