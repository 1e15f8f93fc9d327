import os

import pytest

from jaxrobust.data.listing import files_stamp


@pytest.fixture
def folder(tmp_path):
    """A set whose class is a link to a folder elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"1")
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "set" / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "set"


def test_what_is_rewritten_in_place_is_noticed(folder):
    picture = folder.parent / "elsewhere" / "1.png"
    found = [files_stamp(folder)]
    picture.write_bytes(b"22")
    found.append(files_stamp(folder))
    status = picture.stat()
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found.append(files_stamp(folder))
    picture.rename(picture.with_name("2.png"))
    found.append(files_stamp(folder))
    assert len(set(found)) == 4
    assert files_stamp(str(folder)) == found[-1]


def test_links_upwards_and_to_nowhere_are_no_files(folder):
    before = files_stamp(folder)
    (folder / "train" / "broken.png").symlink_to(folder / "nowhere")
    (folder.parent / "elsewhere" / "upwards").symlink_to(folder)
    assert files_stamp(folder) == before


def test_of_some_files_only_they_decide(folder):
    files = [folder / "train" / "cat" / "1.png"]
    assert files_stamp(folder, files) == files_stamp(folder)
    before = files_stamp(folder, files)
    (folder / "train" / "dog.png").write_bytes(b"1")
    assert files_stamp(folder, files) == before != files_stamp(folder)
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        files_stamp(folder, [folder / "2.png"])
