import os
import pty
import shlex
import subprocess
import sys
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ray_head import ROOT

from mammoflow import lake, recipes
from mammoflow.errors import LakeError
from mammoflow.lake import Artefact, Lake, locks, schema
from mammoflow.pipeline import build, care


@pytest.fixture(params=["local", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(locks, "_SETTLE", {True: 0.0, False: 0.0})
    folder = tmp_path / "lake"
    return Lake(
        {"local": str(folder), "file": folder.as_uri(), "memory": f"memory://{uuid.uuid4().hex}"}[request.param]
    )


def fill(root: Lake) -> dict[str, Artefact]:
    """Write images, two sets of patches, a trunk on one of them, and a search that was broken off."""
    images = root.artefact("images", "x-288x224", 1)
    made = {
        "images": images,
        "s1": root.artefact("patches", "x-S1", images),
        "s10": root.artefact("patches", "x-S10", images),
        "trunk": root.artefact("trunks", "vgg", 1),
        "search": root.artefact("search", "demo", 1),
    }
    lake.write_bytes(images.file("shards", "train-a.parquet"), b"1234")
    lake.write_bytes(images.file("ledger", "train-a.json"), b"12")
    lake.write_bytes(made["search"].file("work", "state.json"), b"{}")
    images.finish({"images": 3})
    made["s1"].finish({}, [images])
    made["s10"].finish({}, [images])
    made["trunk"].finish({}, [made["s10"]])
    return made


def keys(entries: list[care.Entry]) -> list[str]:
    return [entry.key for entry in entries]


def lock(artefact: Artefact, **changed: object) -> None:
    """Leave a lock as another process would."""
    with locks.hold(artefact.url, print):
        holder = locks.holder(artefact.url)
    assert holder
    lake.write_json(artefact.file(locks.FILE), {**asdict(holder), **changed})


def test_the_survey_says_what_is_there(root: Lake) -> None:
    assert care.survey(root) == []
    made = fill(root)
    lake.write_bytes(lake.join(root.root, "images", "notes.txt"), b"not ours")
    lake.write_bytes(lake.join(root.root, "mlflow", "mlflow.db"), b"nor this")
    found = {entry.key: entry for entry in care.survey(root)}
    assert list(found) == [made[name].key for name in ("images", "s1", "s10", "trunk", "search")]
    images, trunk, search = (found[made[name].key] for name in ("images", "trunk", "search"))
    assert (images.state, images.files, images.shards) == ("complete", 3, 1)
    assert images.size == 6 + len(lake.read_bytes(made["images"].file(lake.DONE)))
    assert (images.version, images.inputs, images.finished[:2]) == (schema.VERSION, (), "20")
    assert trunk.inputs == (made["s10"].key,)
    assert images.artefact == made["images"]
    assert (search.state, search.version, search.size) == ("incomplete", None, 2)


def test_users_go_before_what_they_were_made_from(root: Lake) -> None:
    made = fill(root)
    entries = care.survey(root)
    assert keys(care.users_of(entries, [made["images"].key])) == [made[n].key for n in ("trunk", "s10", "s1")]
    assert keys(care.users_of(entries, [made["s1"].key])) == []
    with pytest.raises(LakeError, match=f"used by {made['trunk'].key}.*--with-users"):
        care.plan_removal(entries, [made["s10"].key], with_users=False)
    plan = care.plan_removal(entries, [made["s10"].key], with_users=True)
    assert keys(plan) == [made["trunk"].key, made["s10"].key]
    for entry in plan:
        care.remove(entry, print)
    assert not lake.exists(made["s10"].url)
    left = care.survey(root)
    assert keys(left) == [made[name].key for name in ("images", "s1", "search")]
    assert [entry.state for entry in left] == ["complete", "complete", "incomplete"]


def test_a_name_may_be_short_but_must_mean_one(root: Lake) -> None:
    images = fill(root)["images"]
    entries = care.survey(root)
    for name in (images.key, images.url, f"{images.url}/", images.fingerprint, images.key.partition("/")[2]):
        assert care.find(entries, name).artefact == images
    twin = replace(entries[0], artefact=replace(images, stage="phantoms"))
    with pytest.raises(LakeError, match=f"2 artefacts are called .*name one of: phantoms.*{images.key}"):
        care.find([twin, *entries], images.fingerprint)
    with pytest.raises(LakeError, match=f"no artefact is called 'vgg'.*{images.key}"):
        care.find(entries, "vgg")
    with pytest.raises(LakeError, match="no artefact is named"):
        care.plan_removal(entries, [], with_users=False)


def test_what_is_being_built_or_may_be_read_by_a_build_stays(root: Lake) -> None:
    made = fill(root)
    lock(made["search"], place="another machine")
    entries = care.survey(root)
    assert entries[-1].state == "being built"
    with pytest.raises(LakeError, match=rf"{made['search'].key} is being built; stop its job.*lock\.json"):
        care.plan_removal(entries, [made["search"].key], with_users=False)
    with pytest.raises(LakeError, match=f"{made['search'].key} is being built and may read"):
        care.plan_removal(entries, [made["trunk"].key], with_users=False)
    lock(made["s1"], place="another machine")
    with pytest.raises(LakeError, match="is being built by now"):
        care.remove(next(entry for entry in entries if entry.key == made["s1"].key), print)
    assert made["s1"].done


def test_the_lock_of_a_process_that_died_here_is_no_hindrance(root: Lake) -> None:
    search = fill(root)["search"]
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    lock(search, pid=int(gone.stdout))
    (plan,) = care.plan_removal(care.survey(root), [search.key], with_users=False)
    assert plan.state == "incomplete"
    care.remove(plan, print)
    assert not lake.exists(search.url)


class Killed(BaseException):
    """What a kill is to a process."""


def test_a_removal_killed_anywhere_leaves_nothing_that_looks_complete(
    root: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = lake.remove, fill(root)
    steps, finished = 0, False
    while not finished:
        images = fill(root)["images"]
        left = steps

        def remove(url: str) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(url)

        (entry,) = [entry for entry in care.survey(root) if entry.artefact == images]
        with monkeypatch.context() as patch:
            patch.setattr(lake, "remove", remove)
            try:
                care.remove(entry, print)
                finished = True
            except Killed:
                steps += 1
        files = lake.list_files(images.file("shards")) + lake.list_files(images.file("ledger"))
        assert not images.done or len(files) == 2, f"killed after {steps} steps it looks complete"
        if not finished:
            real(images.file(locks.FILE))
            if care.survey(root)[0].state == "half removed":
                care.finish_removal(images)
                assert lake.list_files(images.url) == []
                assert not lake.exists(images.file("shards", "train-a.parquet"))
            else:
                assert len(files) in (2, 0), "what is not marked as half removed is whole, or empty"
    assert steps >= 5
    assert made["trunk"].done


def age(artefact: Artefact, version: int | None) -> None:
    """Rewrite `done.json` as another version of the layout would: flat, and without a version where that is None."""
    record = artefact.record()
    flat = {**record.facts, "inputs": list(record.inputs), "finished": record.finished}
    lake.write_json(artefact.file(lake.DONE), flat if version is None else {**flat, "schema": version})


@pytest.mark.parametrize(("version", "named"), [(None, 1), (1, 1), (99, 99)])
def test_another_version_of_the_layout_is_an_error_that_names_the_remedy(
    root: Lake, version: int | None, named: int
) -> None:
    made = fill(root)
    age(made["s10"], 2)
    lake.check_versions(made.values())
    age(made["s1"], version)
    with pytest.raises(
        LakeError, match=rf"{made['s1'].key} \(version {named}\).*reads version 2 or 3 of patches"
    ) as raised:
        lake.check_versions(made.values())
    assert ("newer mammoflow" in str(raised.value)) == (named > schema.VERSION)
    command = str(raised.value).partition("(python ")[2].partition(")")[0]
    assert shlex.split(command) == ["jobs/lake.py", "remove", made["s1"].key, "--with-users", "--lake", root.root]


def test_data_of_an_older_layout_are_used_and_its_models_are_not(root: Lake) -> None:
    made = fill(root)
    for name in ("images", "s1", "s10", "trunk"):
        age(made[name], 2)
    lake.check_versions([made["images"], made["s1"], made["s10"]])
    with pytest.raises(LakeError, match=rf"{made['trunk'].key} \(version 2\).*reads version 3 of trunks; remove"):
        lake.check_versions(made.values())


def test_damage_is_said_and_can_be_removed(root: Lake) -> None:
    s1 = fill(root)["s1"]
    lake.write_bytes(s1.file(lake.DONE), b"{")
    with pytest.raises(LakeError, match=f"damaged.*remove {s1.key} with jobs/lake.py"):
        s1.record()
    (plan,) = care.plan_removal(care.survey(root), [s1.key], with_users=False)
    assert plan.state == "damaged"


def test_a_job_that_meets_an_older_artefact_stops_before_it_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(recipes.smoke(), lake=str(tmp_path))
    with pytest.raises(LakeError, match="not complete"):
        build.find(["images"], config)
    images = build.locate(config, Lake(str(tmp_path))).images
    lake.write_json(images.file(lake.DONE), {"images": {}})
    for start in (lambda: build.ensure("images", config), lambda: build.find(["images"], config)):
        with pytest.raises(LakeError, match=rf"{images.key} \(version 1\)"):
            start()
    assert "build" not in capsys.readouterr().out
    retry = replace(config, compute=replace(config.compute, retry_quarantined=True))
    with pytest.raises(LakeError, match=rf"{images.key} \(version 1\)"):
        build.ensure("images", retry)


def job(*words: str, **given: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/lake.py", *words]
    return subprocess.run(command, cwd=ROOT, text=True, timeout=120, check=False, **given)  # type: ignore[call-overload]


@pytest.mark.slow
def test_the_job_lists_shows_and_removes(tmp_path: Path) -> None:
    made = fill(Lake(str(tmp_path)))
    where = ("--lake", str(tmp_path))
    quiet = {"capture_output": True, "stdin": subprocess.DEVNULL}
    listed = job("list", *where, **quiet).stdout
    assert all(artefact.key in listed for artefact in made.values())
    assert "1 not complete" in listed
    assert f"python jobs/lake.py remove {made['search'].key}" in listed

    shown = job("show", made["images"].fingerprint, *where, **quiet).stdout
    assert f"used by    {made['s10'].key}\n" in shown
    assert f"used by    {made['trunk'].key}  (through others)" in shown
    assert "layout version 3" in shown
    assert f"made from  {made['s10'].key}\n" in job("show", made["trunk"].key, *where, **quiet).stdout

    refused = job("remove", made["s10"].key, "--yes", *where, **quiet)
    assert (refused.returncode, "--with-users" in refused.stderr) == (1, True)
    unasked = job("remove", made["s10"].key, "--with-users", *where, **quiet)
    assert unasked.returncode == 1
    assert f"remove  {made['trunk'].key}" in unasked.stdout
    assert "add --yes" in unasked.stderr
    assert made["s10"].done

    for answer, left in (("n", True), ("y", False)):
        ours, theirs = pty.openpty()
        os.write(ours, f"{answer}\n".encode())
        asked = job("remove", made["s10"].key, "--with-users", *where, stdin=theirs, stdout=subprocess.PIPE)
        os.close(theirs)
        os.close(ours)
        assert asked.returncode == 0
        assert ("nothing was removed" in asked.stdout) == left
        assert (made["s10"].done, made["trunk"].done) == (left, left)
    assert made["images"].done
    done = job("remove", made["images"].key, made["search"].key, "--with-users", "--yes", *where, **quiet)
    assert done.returncode == 0, done.stderr
    assert care.survey(Lake(str(tmp_path))) == []
