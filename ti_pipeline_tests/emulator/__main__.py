"""Serves the drawn world as a local e621: `python -m ti_pipeline_tests.emulator --concept ember --posts 60`.

Prints the environment under which the real client asks it, then answers until Ctrl-C.
"""

import argparse
import signal
import threading

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline_tests.emulator.server import Emulator


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ti_pipeline_tests.emulator", description=__doc__)
    parser.add_argument("--concept", default="ember", help="a held-out character or style of the drawn world")
    parser.add_argument("--posts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    posts = demo_posts(concept=options.concept, count=options.posts, seed=options.seed)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Emulator([post.record for post in posts], {p.record["file"]["md5"]: p.data() for p in posts}) as site:
        print(f"TI_E621_URL={site.url} TI_E621_USERNAME=you", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
