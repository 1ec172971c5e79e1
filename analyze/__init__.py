"""The command `python -m analyze`. Its imports take seconds, in which Ctrl-C is one line too."""

from conf.interrupts import end_at_interrupts

end_at_interrupts(__name__)
