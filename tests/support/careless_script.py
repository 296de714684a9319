"""A script that counts, saves as badly as scripts do, and resumes from the highest file that it finds.

`brake` (a file) slows it down; `tear` makes it leave half a file behind and hang on it; `fail` makes it raise.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

out, knobs, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
out.mkdir(exist_ok=True)
saved = sorted(out.glob("count-*.json"))
count = json.loads(saved[-1].read_text())["count"] if saved else 0
with (out / "starts.jsonl").open("a") as record:
    record.write(json.dumps({"step": count, "files": [path.name for path in saved]}) + "\n")
print(f"starting at {count}", flush=True)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
while count < last:
    time.sleep(1.5 if (knobs / "brake").exists() else 0.05)
    if (knobs / "fail").exists():
        raise ZeroDivisionError("careless")
    count += 1
    if (knobs / "tear").exists():
        torn = (out / f"count-{count:06d}.json").open("w")
        torn.write('{"count"')
        torn.flush()
        os.fsync(torn.fileno())
        (knobs / "torn").touch()
        time.sleep(600)
    (out / f"count-{count:06d}.json").write_text(json.dumps({"count": count}))
child.kill()
