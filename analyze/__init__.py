"""The command `python -m analyze`. Ctrl-C ends it with one line also during its imports, which take seconds."""

from conf.interrupts import end_at_interrupts

end_at_interrupts(__name__)
