"""Run a command and append the peak resident memory of it alone, in bytes, to a file.

``python peak.py FILE COMMAND...`` stands between git and a filter: git's own peak, which holds a whole smudged file,
would hide the filter's. A process inherits the peak of the one that started it (Linux keeps it across ``exec``), so
this one imports nothing it can do without.
"""

import os
import sys

pid = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "a") as file:
    file.write(f"{usage.ru_maxrss * 1024}\n")
sys.exit(os.waitstatus_to_exitcode(status))
