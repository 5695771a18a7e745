"""Inside tests/world.sh: makes the lab, says so in its notes, and holds it until it is told to end."""

import json
import os
import pathlib
import signal
import sys

import net
import place


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lab = place.Lab()
    (lab.dir / "bashrc").write_text("PS1='\\h:\\w\\$ '\n")
    try:
        lab.make(lambda words: print(f"== {words}", flush=True))
        ready = pathlib.Path(os.environ["KIDOBAN_LAB"]) / "ready.json"
        fresh = ready.with_suffix(".new")
        fresh.write_text(json.dumps({"world": str(lab.dir), "hosts": ", ".join(net.NAMES), "password": place.PASSWORD,
                                     "line": net.address("ordinary", 4), "mx": net.address("mx", 4)}))
        fresh.rename(ready)
        while True:
            signal.pause()
    finally:
        lab.__exit__(*sys.exc_info())


if __name__ == "__main__":
    main()
