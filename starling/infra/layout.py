"""Where everything lies in a store. Nobody else spells a key.

nodes/<node>/intent.json                   the controller's word: launch, assignment, authorised_until, terminate
nodes/<node>/status.json                   the agent's word: alive, notice, progress, ended
runs/<run>/run.json                        the run's record, conditional writes
runs/<run>/spec.yaml, spec.<k>.yaml        what incarnation k trains, immutable
runs/<run>/verdicts/<incarnation>.json     how the incarnation ended; created once
runs/<run>/rendezvous/<incarnation>/       group formation, and the words of a script's rounds
runs/<run>/fingerprint.json                the device fingerprint the run is exact on; created once
runs/<run>/data.json                       what identifies the data the run is trained on; created once
runs/<run>/weights.json                    the weights the run began with, where model.weights names any; created once
runs/<run>/needs.json                      which states of the runs that it needs it takes over; created once
runs/<run>/checkpoints/<step>/             parts, then manifest.json
runs/<run>/snapshots/<number>.json         one snapshot of a script's folder; created once, after all its files
runs/<run>/snapshots/files/<sha256>        the files of all snapshots, content-addressed
runs/<run>/events|failures|metrics|logs/   append-only chunks
data/<dataset>/                            prepared datasets
code/<sha256>.tar.gz                       users' code, content-addressed
"""

from __future__ import annotations


def nodes_of(run: str) -> str:
    """Prefix of all nodes of a run. A node's id is `<run>.<slot>.<generation>`; run ids hold no dot."""
    return f"nodes/{run}."


def node_id(run: str, slot: int, generation: int) -> str:
    return f"{run}.{slot}.{generation}"


def intent(node: str) -> str:
    return f"nodes/{node}/intent.json"


def status(node: str) -> str:
    return f"nodes/{node}/status.json"


def run_record(run: str) -> str:
    return f"runs/{run}/run.json"


def spec(run: str, incarnation: int) -> str:
    return f"runs/{run}/spec.yaml" if incarnation == 0 else f"runs/{run}/spec.{incarnation}.yaml"


def verdict(run: str, incarnation: int) -> str:
    return f"runs/{run}/verdicts/{incarnation}.json"


def rendezvous(run: str, incarnation: int) -> str:
    return f"runs/{run}/rendezvous/{incarnation}"


def fingerprint(run: str) -> str:
    return f"runs/{run}/fingerprint.json"


def data_pin(run: str) -> str:
    return f"runs/{run}/data.json"


def weights_pin(run: str) -> str:
    return f"runs/{run}/weights.json"


def needs_pin(run: str) -> str:
    return f"runs/{run}/needs.json"


def checkpoints(run: str) -> str:
    return f"runs/{run}/checkpoints/"


def snapshots(run: str) -> str:
    """Prefix of a run's snapshots and their files."""
    return f"runs/{run}/snapshots/"


def snapshot(run: str, number: int) -> str:
    return f"{snapshots(run)}{number:08d}.json"


def snapshot_files(run: str) -> str:
    return f"{snapshots(run)}files/"


def snapshot_file(run: str, sha256: str) -> str:
    return f"{snapshot_files(run)}{sha256}"


def round_word(run: str, incarnation: int, round_number: int, word: str) -> str:
    """What the nodes of one round of a script tell each other: `start`, `ready/<rank>`, `go`, `end`, `result`, ..."""
    return f"{rendezvous(run, incarnation)}/rounds/{round_number}/{word}"


def events(run: str) -> str:
    return f"runs/{run}/events/"


def failures(run: str, incarnation: int) -> str:
    return f"runs/{run}/failures/{incarnation}/"


def metrics(run: str) -> str:
    return f"runs/{run}/metrics/"


def logs(run: str, node: str | None = None) -> str:
    return f"runs/{run}/logs/" + (f"{node}/" if node else "")


def dataset(name: str) -> str:
    return f"data/{name}/"


def code(sha256: str) -> str:
    return f"code/{sha256}.tar.gz"
