"""Kernels as a file: what comes in is what went out, or nothing is written."""

import hashlib
import json
import zipfile

import pytest

from splat_numba.errors import ArgumentError, FormatError
from splat_numba.runtime.cache import CacheEntry, archive, contents

NAMES = [f"attention_{word}_0123456789ab-{number:016x}.code" for number, word in enumerate(("one", "two", "three"))]


@pytest.fixture
def folder(tmp_path):
    """A folder with three entries, one of which is damaged, and files that are no kernels."""
    found = tmp_path / "cache" / "numba-0"
    found.mkdir(parents=True)
    for name in NAMES:
        assert CacheEntry(found / name).write(name.encode() * 100)
    (found / NAMES[2]).write_bytes(b"damage")
    (found / "attention_one_0123456789ab.py").write_text("text")
    (found / "note.txt").write_text("not ours")
    return found


@pytest.fixture
def exported(folder, tmp_path):
    path = tmp_path / "kernels.zip"
    return path, archive.export_kernels(contents.kept(folder), path)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewritten(path, change, method=zipfile.ZIP_STORED):
    """The file with its parts changed, a dict from names to bytes."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def test_what_comes_in_is_what_went_out_and_is_there_once(exported, tmp_path):
    path, moved = exported
    assert (moved.count, moved.sha256) == (2, digest(path))  # not the damaged one
    other = tmp_path / "other"
    other.mkdir()
    assert archive.import_kernels(other, path, moved.sha256.upper() + "\n").count == 2
    assert sorted(one.name for one in other.iterdir()) == sorted(NAMES[:2])
    assert [CacheEntry(other / name).read() for name in NAMES[:2]] == [name.encode() * 100 for name in NAMES[:2]]
    assert archive.import_kernels(other, path, moved.sha256).count == 0


def test_a_file_that_cannot_be_written_whole_is_not_left(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.json, "dumps", full)  # after the kernels
    with pytest.raises(OSError, match="No space"):
        archive.export_kernels(contents.kept(folder), tmp_path / "kernels.zip")
    assert not (tmp_path / "kernels.zip").exists()


def test_a_file_with_another_hash_is_refused(exported, tmp_path):
    path, moved = exported
    for wrong in ("0" * 64, "", moved.sha256[:-1], "é" * 64, "\udcff"):
        with pytest.raises(ArgumentError, match=r"^sha256 wanted as that of .*, got another: .* copy both anew"):
            archive.import_kernels(tmp_path, path, wrong)
    assert not [*tmp_path.glob("*.code")]


def with_manifest(change):
    def changed(parts):
        manifest = json.loads(parts[archive.MANIFEST])
        change(manifest)
        parts[archive.MANIFEST] = json.dumps(manifest).encode()

    return changed


def renamed(name):
    def change(parts):
        parts[name] = parts.pop(NAMES[0])
        with_manifest(lambda manifest: manifest["entries"][0].update(name=name))(parts)

    return change


def fresh_hash(parts):
    """Another program's bytes, which the manifest has the hash of, but the cache has not."""
    parts[NAMES[0]] = b"x" * 64 + b"\nevil"
    with_manifest(
        lambda manifest: manifest["entries"][0].update(size=69, sha256=hashlib.sha256(parts[NAMES[0]]).hexdigest())
    )(parts)


FAULTS = {
    "another machine": (with_manifest(lambda one: one.update(machine="z80")), "file: wanted of machine .* of 'z80'"),
    "another version": (with_manifest(lambda one: one.update(numba="0.1")), "file: wanted of numba .* of '0.1'"),
    "another format": (with_manifest(lambda one: one.update(format=2)), "file: wanted of format 1, .* of 2"),
    "a missing line": (with_manifest(lambda one: one.pop("python")), "file: wanted as `cache export` writes it"),
    "no manifest": (lambda parts: parts.pop(archive.MANIFEST), "file: wanted as `cache export` writes it"),
    "no JSON": (lambda parts: parts.update({archive.MANIFEST: b"{"}), "file: wanted as `cache export` writes it"),
    "a list": (lambda parts: parts.update({archive.MANIFEST: b"[]"}), "file: wanted as `cache export` writes it"),
    "one too many": (lambda parts: parts.update({NAMES[2]: b"x"}), "file: wanted with the kernels of its manifest"),
    "one too few": (lambda parts: parts.pop(NAMES[1]), "file: wanted with the kernels of its manifest"),
    "no number": (
        with_manifest(lambda one: one["entries"][0].update(size=float("inf"))),
        "file: wanted as `cache export` writes",
    ),
    "a name outside": (renamed("../x-0123456789abcdef.code"), "file: wanted with the kernels of its manifest"),
    "a module": (renamed("sitecustomize.py"), "file: wanted with the kernels of its manifest"),
    "other bytes": (lambda parts: parts.update({NAMES[1]: b"x" * 10}), f"file: {NAMES[1]} wanted as its manifest says"),
    "bytes of no entry": (fresh_hash, f"file: {NAMES[0]} wanted as its manifest says"),
    "an exchange": (renamed(NAMES[2]), f"file: {NAMES[2]} wanted as its manifest says"),  # the name is hashed, too
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_written_of_a_file_that_is_not_as_it_should_be(exported, tmp_path, fault):
    """Whoever made the file has told its hash: it is looked into all the same."""
    path, _ = exported
    change, message = FAULTS[fault]
    rewritten(path, change)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(FormatError, match=f"^{message}"):
        archive.import_kernels(other, path, digest(path))
    assert not [*other.iterdir()]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_decompressors_are_not_run(exported, tmp_path, method):
    """Theirs raise errors of their own for damage, which would be tracebacks."""
    path, _ = exported
    rewritten(path, lambda _: None, method)
    with pytest.raises(FormatError, match=r"^file: wanted as `cache export` writes it, got another: it is compressed"):
        archive.import_kernels(tmp_path, path, digest(path))


def test_bytes_that_point_before_the_file_are_refused(exported, tmp_path):
    """The end of a zip file says where its parts are."""
    path, _ = exported
    content = bytearray(path.read_bytes())
    content[-6:-2] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"^file: wanted as `cache export` writes it"):
        archive.import_kernels(tmp_path, path, digest(path))


def test_what_is_written_is_what_was_hashed(exported, tmp_path, monkeypatch):
    """Somebody who may write to the file waits until its hash is known."""
    path, moved = exported
    other, compare = tmp_path / "other", archive.hmac.compare_digest
    other.mkdir()

    def compared_too_early(*hashes):
        path.write_bytes(b"evil")
        return compare(*hashes)

    monkeypatch.setattr(archive.hmac, "compare_digest", compared_too_early)
    assert archive.import_kernels(other, path, moved.sha256).count == 2
    assert [CacheEntry(other / name).read() for name in NAMES[:2]] == [name.encode() * 100 for name in NAMES[:2]]


def test_a_damaged_kernel_is_taken_anew(exported, tmp_path):
    path, moved = exported
    other = tmp_path / "other"
    other.mkdir()
    (other / NAMES[0]).write_bytes(b"damage")
    assert archive.import_kernels(other, path, moved.sha256).count == 2
    assert CacheEntry(other / NAMES[0]).read() == NAMES[0].encode() * 100


def test_a_kernel_that_is_removed_meanwhile_is_left_out(folder, tmp_path):
    """Another process has a limit on the cache's size to keep."""
    kernels = contents.kept(folder)
    (folder / NAMES[0]).unlink()
    assert archive.export_kernels(kernels, tmp_path / "kernels.zip").count == 1


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "kernels.zip"
    path.write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"^file: wanted as `cache export` writes it"):
        archive.import_kernels(tmp_path, path, digest(path))


def test_clear_removes_what_is_ours_and_leaves_the_rest(folder):
    (folder / "held.lock").write_text("")
    older = folder.parent / "numba-old"
    older.mkdir()
    (older / "attention_x_0123456789ab.py").write_text("text")
    beside = folder.parent / "notes"
    beside.mkdir()
    (beside / "note.txt").write_text("not ours")
    count, size = contents.clear(folder)
    assert count == 5
    assert size > 0
    assert contents.kept(folder) == []
    left = sorted(one.name for one in folder.parent.rglob("*") if one.is_file())
    assert left == ["held.lock", "note.txt", "note.txt"]
