"""The ledger in a Redis Cluster of three nodes: `python -m bench.scaling.cluster`.

Three trials. All keys of a deployment in one slot (the prefix `{maskq}`); a slot for each model, with
the keys of the whole deployment in a slot of their own; and what kombu, pub/sub and redis-py's cluster
client do. Prints what worked, what failed with which error, and what a job costs.
"""

from __future__ import annotations

import argparse
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import kombu
from redis import Redis, RedisCluster
from redis.crc import key_slot

from bench.scaling.deployment import Size, register_workers
from bench.scaling.processor import us_each
from bench.scaling.turns import do_jobs
from maskq.ledger import Ledger, calls, keys
from maskq.ledger.calls import metrics
from maskq.ledger.scripts import script
from maskq_standalone.ports import LOOPBACK, free_port
from maskq_standalone.servers.redis import RedisServer, find

TAGGED: Final = "{maskq}"
MODEL: Final = "model-000"
SLOTS: Final = 16384
NODES: Final = 3
SCRIPTS: Final = Path(calls.__file__).parents[1] / "lua"
# Keys of the whole deployment, in one slot of their own if every model has its slot.
OF_A_MODEL: Final = re.compile(r"\{model\}")


class Node(RedisServer):
    """A node of a cluster."""

    def __init__(self, directory: Path, password: str) -> None:
        self.bus_port = free_port()
        super().__init__(directory, password=password, binary=find(pinned=True))

    def child_stdin(self) -> bytes:
        lines = (
            f"cluster-enabled yes\ncluster-config-file {self.directory}/nodes.conf\n"
            f"cluster-port {self.bus_port}\n"
        )
        return super().child_stdin() + lines.encode()


@contextmanager
def cluster() -> Iterator[list[Node]]:
    """Three primaries that share the slots."""
    password = secrets.token_urlsafe()
    with ExitStack() as stack:
        nodes = []
        for _ in range(NODES):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            node = Node(folder, password)
            node.start()
            stack.callback(node.stop)
            nodes.append(node)
        clients = [stack.enter_context(Redis.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients):
            first, last = SLOTS * number // NODES, SLOTS * (number + 1) // NODES
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            met = (LOOPBACK, nodes[number].port, nodes[number].bus_port)
            clients[0].execute_command("CLUSTER", "MEET", *met)
        deadline = time.monotonic() + 60
        while any(
            b"cluster_state:ok" not in one.execute_command("CLUSTER", "INFO") for one in clients
        ):
            if time.monotonic() > deadline:
                raise RuntimeError("the nodes did not form a cluster within a minute")
            time.sleep(0.1)
        yield nodes


def owner(nodes: list[Node], prefix: str) -> Node:
    """The node of a prefix's slot."""
    slot = key_slot(prefix.encode())
    return nodes[slot * NODES // SLOTS]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=3000)
    chosen = options.parse_args()
    with cluster() as nodes:
        one_slot(nodes, chosen.jobs)
        slot_of_a_model(nodes)
        others(nodes)


def one_slot(nodes: list[Node], jobs: int) -> None:
    """Everything of a deployment in one slot, hence on one node and one core."""
    print(f"one slot, prefix {TAGGED}:")
    home = owner(nodes, TAGGED)
    ledger = Ledger(home.url, TAGGED)
    register_workers(ledger, Size())
    do_jobs(ledger, MODEL, [None] * 100)
    us = us_each(ledger.redis, lambda: do_jobs(ledger, MODEL, [None] * jobs), jobs)
    print(f"  {jobs} jobs, {us:.0f} µs a job on its node, whatever the number of nodes")
    tried("sweep", lambda: ledger.run(calls.sweep(lease_s=60)))
    tried("metrics", lambda: ledger.run(metrics.deployment_metrics()))
    ledger.close()
    other = next(node for node in nodes if node is not home)
    stranger = Ledger(other.url, TAGGED)
    tried("a script sent to another node", lambda: stranger.run(calls.sweep(lease_s=60)))
    stranger.close()


def slot_of_a_model(nodes: list[Node]) -> None:
    """A slot for each model: which scripts stay within it."""
    patterns = keys.patterns()
    needs = {
        path.stem: {*re.findall(r"\bkeys\.(\w+)", script(path.stem).text)}
        for path in SCRIPTS.glob("*.lua")
        if "ARGV, 2" in path.read_text(encoding="utf-8")
    }
    crossing = {
        name: sorted(one for one in used if not OF_A_MODEL.search(patterns[one].text))
        for name, used in needs.items()
        if any(OF_A_MODEL.search(patterns[one].text) for one in used)
    }
    hot = ("submit", "claim", "finish", "renew", "release", "cancel")
    mixed = [name for name, used in crossing.items() if used]
    print("a slot for each model:")
    print(f"  {len(mixed)} of {len(needs)} scripts use keys of a model and of the deployment")
    print(f"  of the hot path: {', '.join(name for name in hot if name in mixed)}")
    print(f"  submit also uses: {', '.join(crossing['submit'])}")


def others(nodes: list[Node]) -> None:
    """What is not a script of ours."""
    print("kombu, pub/sub and redis-py's cluster client:")
    home = owner(nodes, TAGGED)
    tagged = {"global_keyprefix": f"{TAGGED}:"}
    tried("kombu at the node of a tagged queue", lambda: through_kombu(home, f"{TAGGED}.demo", {}))
    tried(f"the same with {tagged}", lambda: through_kombu(home, "demo", tagged))
    for number, node in enumerate(nodes):
        work = partial(through_kombu, node, "maskq.demo", {})
        tried(f"kombu at node {number}, queue maskq.demo", work)
    client = RedisCluster.from_url(home.url)
    text = script("get").text
    for keys_of_it in ((), (TAGGED,)):
        call = partial(client.eval, text, len(keys_of_it), *keys_of_it, TAGGED, "x")
        what = f"redis-py's cluster client, 30 scripts with {len(keys_of_it)} keys"
        tried(what, lambda call=call: [call() for _ in range(30)])  # type: ignore[misc]
    client.close()
    tried("PUBLISH reaches a subscriber at another node", lambda: published(nodes))


def through_kombu(node: Node, queue: str, options: dict[str, str]) -> None:
    """One message there and back."""
    with kombu.Connection(node.url, transport_options=options) as connection:
        simple = connection.SimpleQueue(queue)
        simple.put({"n": 1})
        simple.get(timeout=2).ack()
        simple.close()


def published(nodes: list[Node]) -> None:
    with (
        Redis.from_url(nodes[0].url) as sender,
        Redis.from_url(nodes[1].url) as receiver,
        receiver.pubsub() as channel,
    ):
        channel.subscribe("maskq:wake:1")
        channel.get_message(timeout=5)
        sender.publish("maskq:wake:1", "x")
        if channel.get_message(timeout=5) is None:
            raise RuntimeError("no message")


def tried(what: str, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001
        print(f"  FAILS {what}: {type(error).__name__}: {error}")
    else:
        print(f"  works {what}")


if __name__ == "__main__":
    main()
