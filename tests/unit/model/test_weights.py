"""pull, convert and resolve: a checkpoint is fetched once, pinned, checked, and then found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskq_worker.model import ModelError
from maskq_worker.model.checkpoint.files import weights_root
from maskq_worker.model.checkpoint.folder import resolve, served_name
from maskq_worker.model.checkpoint.weights import HuggingFaceHub, convert, pull

MODEL = "Intel/dpt-large-ade"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
CONFIG = {"model_type": "dpt", "architectures": ["DPTForSemanticSegmentation"]}


class LocalHub:
    """A hub of files in a folder; `main` and `refs/pr/8` are its revisions."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.commits = {"main": COMMIT, COMMIT: COMMIT, "refs/pr/8": OTHER_COMMIT}
        self.hashes: dict[str, str] = {}
        self.fetched: list[str] = []

    def list(self, model: str, revision: str) -> tuple[str, Mapping[str, str | None]]:
        assert model == MODEL
        names = [path.name for path in self.files.iterdir()]
        return self.commits[revision], {name: self.hashes.get(name) for name in names}

    def fetch(self, model: str, commit: str, name: str, directory: Path) -> None:
        assert (model, commit in self.commits.values()) == (MODEL, True)
        self.fetched.append(name)
        (directory / name).write_bytes((self.files / name).read_bytes())


def tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.tensor([1.5, -2.5])}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What a hub's repository holds, without weights."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "README.md").write_text("a card")
    return folder


@pytest.fixture
def hub(files: Path) -> LocalHub:
    """The same with safetensors."""
    save_file(tensors(), files / "model.safetensors")
    return LocalHub(files)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own and an empty one of the hub's client."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert weights_root() == tmp_path / "cache" / "maskq" / "weights"
    return weights_root()


def assert_same(path: Path, expected: dict[str, torch.Tensor]) -> None:
    stored = load_file(path)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_pull_pins_the_commit_and_records_what_it_fetched(hub: LocalHub, root: Path) -> None:
    pulled = pull(MODEL, hub=hub)

    assert pulled.directory == root / "Intel--dpt-large-ade" / COMMIT
    assert (pulled.model, pulled.revision, pulled.requested) == (MODEL, COMMIT, "main")
    assert pulled.converted_from is None
    names = {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert set(pulled.files) == names  # no more than is needed
    weights = (pulled.directory / "model.safetensors").read_bytes()
    assert pulled.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    record = json.loads((pulled.directory / "maskq.json").read_text())
    assert record["files"] == pulled.files
    assert record["revision"] == COMMIT
    assert {path.name for path in pulled.directory.iterdir()} == names | {"maskq.json"}


def test_pull_brings_settings_that_stand_in_processor_config(hub: LocalHub) -> None:
    (hub.files / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        pull(MODEL, hub=hub)
    nested = {"image_processor": {"size": 64}, "processor_class": "Processor"}
    (hub.files / "processor_config.json").write_text(json.dumps(nested))
    pulled = pull(MODEL, hub=hub)
    assert "processor_config.json" in pulled.files
    assert resolve(MODEL).directory == pulled.directory


def test_what_was_pulled_is_found_by_its_hub_id(hub: LocalHub) -> None:
    pulled = pull(MODEL, hub=hub)
    checkpoint = resolve(MODEL)
    assert checkpoint.directory == pulled.directory
    assert (checkpoint.name, checkpoint.revision) == (MODEL, COMMIT)
    assert checkpoint.sha256 == pulled.files["model.safetensors"]
    assert resolve(str(pulled.directory)).name == MODEL  # and by its folder
    assert served_name(str(pulled.directory)) == MODEL


def test_without_a_revision_the_one_pulled_last_is_taken(hub: LocalHub) -> None:
    pull(MODEL, hub=hub)
    pull(MODEL, "refs/pr/8", hub=hub)
    assert resolve(MODEL).revision == OTHER_COMMIT
    assert resolve(MODEL, COMMIT).revision == COMMIT
    assert resolve(MODEL, "refs/pr/8").revision == OTHER_COMMIT  # as it was asked for
    hub.fetched.clear()
    pull(MODEL, hub=hub)
    assert hub.fetched == []  # it was there
    assert resolve(MODEL).revision == COMMIT
    with pytest.raises(ModelError, match=r"at v2 is not on this machine: .* --revision v2"):
        resolve(MODEL, "v2")


def test_a_pickle_is_converted(files: Path) -> None:
    torch.save(tensors(), files / "pytorch_model.bin")
    pulled = pull(MODEL, hub=LocalHub(files))
    assert pulled.converted_from == "pytorch_model.bin"
    assert_same(pulled.directory / "model.safetensors", tensors())
    assert not list(pulled.directory.glob("*.bin"))
    assert resolve(MODEL).revision == COMMIT


def test_safetensors_are_preferred_to_a_pickle(hub: LocalHub) -> None:
    (hub.files / "pytorch_model.bin").write_bytes(b"never read")
    assert pull(MODEL, hub=hub).converted_from is None
    assert "pytorch_model.bin" not in hub.fetched


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_several_files(files: Path, kind: str) -> None:
    stem, suffix = kind.split(".")
    weight_map = {}
    for number, (name, tensor) in enumerate(tensors().items(), start=1):
        part = f"{stem}-0000{number}-of-00002.{suffix}"
        weight_map[name] = part
        if suffix == "bin":
            torch.save({name: tensor}, files / part)
        else:
            save_file({name: tensor}, files / part)
    (files / f"{kind}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    directory = pull(MODEL, hub=LocalHub(files)).directory

    if suffix == "bin":
        assert_same(directory / "model.safetensors", tensors())
        assert not list(directory.glob("pytorch_model*"))
    else:
        assert sorted(path.name for path in directory.glob("model-*")) == sorted(
            weight_map.values()
        )
    assert len(resolve(MODEL).sha256) == 64


def test_an_index_cannot_name_files_elsewhere(files: Path) -> None:
    index = {"weight_map": {"a.weight": "../../evil.safetensors"}}
    (files / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside its own folder"):
        pull(MODEL, hub=LocalHub(files))


def test_a_pull_that_fails_leaves_nothing(hub: LocalHub, root: Path) -> None:
    hub.hashes["model.safetensors"] = "0" * 64
    with pytest.raises(ModelError, match="arrived damaged"):
        pull(MODEL, hub=hub)
    assert [path for path in root.rglob("*") if path.is_file()] == []
    with pytest.raises(ModelError, match="not on this machine"):
        resolve(MODEL)


def test_another_architecture_is_refused_before_its_weights_are_fetched(hub: LocalHub) -> None:
    (hub.files / "config.json").write_text(
        json.dumps({"model_type": "vit", "architectures": ["ViT"]})
    )
    with pytest.raises(ModelError, match="holds ViT"):
        pull(MODEL, hub=hub)
    assert "model.safetensors" not in hub.fetched


def test_a_repository_without_weights(files: Path) -> None:
    with pytest.raises(ModelError, match=f"{MODEL} at {COMMIT} has no pytorch_model.bin"):
        pull(MODEL, hub=LocalHub(files))


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ModelError) as caught:
        pull(MODEL)
    assert str(caught.value) == (
        f"{MODEL} could not be fetched: no route to host; check that the hub can be reached from "
        "here"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RepositoryNotFoundError", "the hub has no model"),
        ("GatedRepoError", "accept its terms"),
        ("RevisionNotFoundError", "has no revision v9"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    from huggingface_hub import errors

    kind = getattr(errors, name)

    def refuse(*_: object, **__: object) -> None:
        raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ModelError, match=said):
        pull(MODEL, "v9")


def test_what_is_no_hub_id_is_not_asked_for() -> None:
    for model in ("dpt", "../x/y", "a/b/c", "https://example.com/a/b"):
        with pytest.raises(ModelError, match="not a hub id"):
            pull(model)


def test_the_hubs_client_is_asked_for_the_pinned_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {}
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: asked.update(k, args=a))
    HuggingFaceHub().fetch(MODEL, COMMIT, "config.json", tmp_path)
    assert asked == {"args": (MODEL, "config.json"), "revision": COMMIT, "local_dir": tmp_path}


def test_convert_writes_what_the_pickle_holds(files: Path) -> None:
    whole = torch.arange(12.0)
    odd = {
        "shared": whole,
        "same": whole,
        "view": whole[3:6],
        "turned": whole.view(3, 4).T,
        "half": torch.ones(2, dtype=torch.float16),
        "count": torch.tensor(7),
    }
    torch.save(odd, files / "pytorch_model.bin")
    target = convert(files)
    assert target == files / "model.safetensors"
    assert_same(target, odd)
    before = target.stat().st_mtime_ns
    convert(files)  # nothing left to do
    assert target.stat().st_mtime_ns == before
    assert not list(files.glob(".*"))


def test_convert_runs_no_code(files: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self) -> object:
            return os.mkdir, (str(trace),)

    torch.save({"a.weight": Evil()}, files / "pytorch_model.bin")
    with pytest.raises(ModelError, match="does not hold plain weights"):
        convert(files)
    assert not trace.exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}])
def test_convert_refuses_what_is_not_a_table_of_weights(files: Path, content: object) -> None:
    torch.save(content, files / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"table of weights|not a tensor"):
        convert(files)


def test_convert_needs_something_to_convert(files: Path) -> None:
    with pytest.raises(ModelError, match=r"has no pytorch_model\.bin"):
        convert(files)
    (files / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match="does not hold plain weights"):
        convert(files)


def test_a_folder_is_served_under_its_own_name(hub: LocalHub, tmp_path: Path) -> None:
    folder = hub.files.rename(tmp_path / "my-dpt")
    checkpoint = resolve(str(folder))
    assert (checkpoint.directory, checkpoint.name, checkpoint.revision) == (folder, "my-dpt", None)
    assert served_name(f"{folder}/") == "my-dpt"
    with pytest.raises(ModelError, match="MASKQ_MODEL_REVISION is abc"):
        resolve(str(folder), "abc")


def test_a_model_that_is_nowhere_says_what_to_do() -> None:
    with pytest.raises(ModelError) as caught:
        resolve(MODEL)
    assert str(caught.value) == (
        "Intel/dpt-large-ade is not on this machine: run `maskq weights pull Intel/dpt-large-ade` "
        "where the hub can be reached, or set MASKQ_MODEL to a folder in the hub's layout or to "
        "`demo`"
    )
    with pytest.raises(ModelError, match="there is no folder '/nowhere/dpt'"):
        resolve("/nowhere/dpt")
    assert served_name(MODEL) == MODEL


def cached(hub_cache: Path, files: Path) -> Path:
    """Lay `files` out as the hub's client caches them."""
    repository = hub_cache / "models--Intel--dpt-large-ade"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return files.rename(snapshot)


def test_the_hubs_own_cache_is_looked_into(hub: LocalHub, tmp_path: Path) -> None:
    snapshot = cached(tmp_path / "hub", hub.files)
    for revision in (None, "main", COMMIT):
        checkpoint = resolve(MODEL, revision)
        assert checkpoint.directory == snapshot
        assert (checkpoint.name, checkpoint.revision) == (MODEL, COMMIT)
    with pytest.raises(ModelError, match="not on this machine"):
        resolve(MODEL, OTHER_COMMIT)


def test_a_cached_pickle_is_not_loaded(files: Path, tmp_path: Path) -> None:
    torch.save(tensors(), files / "pytorch_model.bin")
    cached(tmp_path / "hub", files)
    with pytest.raises(ModelError, match=f"`maskq weights pull {MODEL}`"):
        resolve(MODEL)


def test_the_demo_is_found_beside_the_stack(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "maskq_standalone"
    (package / "demo").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('a worker never imports the stack')")
    folder = hub.files.rename(package / "demo" / "checkpoint")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(__import__("sys").modules, "maskq_standalone", raising=False)

    checkpoint = resolve("demo")
    assert (checkpoint.directory, checkpoint.name) == (folder, "demo")
    assert served_name("demo") == "demo"


def test_a_worker_without_the_stack_has_no_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match="the demo checkpoint is not installed"):
        resolve("demo")


def test_a_chosen_name_goes_before_a_folder_s(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    assert served_name(str(folder), "day") == "day"


def test_a_folder_without_a_name_that_a_job_can_ask_for_needs_a_chosen_one() -> None:
    with pytest.raises(ModelError, match="MASKQ_MODEL_NAME"):
        served_name("/")
    assert served_name("/", "day") == "day"
