"""What every bot here says: one line of JSON for each thing that it saw, for the test to read."""

import json


def say(step, got=None):
    print(json.dumps({"step": step, "got": got}), flush=True)
