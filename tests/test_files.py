import hashlib
import subprocess
import sys
import threading
import time

import ml_dtypes
import numpy as np
import pytest

from jaxrobust.core import files, logs
from jaxrobust.core.digests import digest
from jaxrobust.core.named import complete, did_you_mean


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    path = tmp_path / "folder" / "map.bin"
    for content in (b"first", b"second"):
        with files.written_whole(path) as temporary:
            temporary.write_bytes(content)
            assert not path.exists() or path.read_bytes() == b"first"

    def fail(path, content):
        with files.written_whole(path) as temporary:
            if content:
                temporary.write_bytes(content)
            raise KeyboardInterrupt

    for failing, content in ((path, b"half"), (tmp_path / "other.bin", None)):
        with pytest.raises(KeyboardInterrupt):
            fail(failing, content)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_bytes() == b"second"


def test_what_a_killed_writer_leaves_is_overwritten(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from jaxrobust.core import files\n"
        "with files.written_whole(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "settings.json"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert [file.name for file in tmp_path.iterdir()] == [".settings.json.tmp"]
    files.write_json(path, {"steps": 3})
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
    assert files.read_json(path) == {"steps": 3}


def test_half_a_line_is_no_line(tmp_path):
    path = tmp_path / "records.jsonl"
    assert files.read_lines(path) == []
    files.write_lines(path, ["± 1", "", "3"])
    assert path.read_bytes() == "± 1\n\n3\n".encode()
    with path.open("ab") as file:
        file.write(b'{"index": 1\xff')
    assert files.read_lines(path) == ["± 1", "", "3"]


def test_the_digest_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(256)) * 5000)
    settings = {"norm": "l2", "epsilon": 0.5, "sizes": (3, 4)}
    for parts, content in (
        ([], b""),
        (["± ", b"\0\xff"], b"\xc2\xb1 \0\xff"),
        ([path, "end"], path.read_bytes() + b"end"),
        ([settings], b'{"epsilon": 0.5, "norm": "l2", "sizes": [3, 4]}'),
        ([np.int16([[1, 2]])], b"int16 (1, 2)\1\0\2\0"),
        ([np.int16([[1, 9], [2, 9]])[:, 0]], b"int16 (2,)\1\0\2\0"),
        ([np.ones(1, ml_dtypes.bfloat16)], b"bfloat16 (1,)\x80\x3f"),
    ):
        assert digest(*parts) == hashlib.sha256(content).hexdigest()


def test_a_misspelt_name_is_told_the_nearest():
    names = ["resnet50", "resnet101", "vgg11"]
    assert did_you_mean("vit", names) == ""
    assert did_you_mean("resnet10", names) == " (did you mean 'resnet101' or 'resnet50'?)"
    with pytest.raises(ValueError, match=r"^'sampels' is no option of mean \(did you mean 'samp"):
        complete("mean", lambda image, *, samples: None, {"sampels": 3})


def test_progress_counts_its_steps(capsys):
    progress = logs.Progress("stylised", 10, steps="batches", images=2, every=0.05)
    progress.step()
    assert capsys.readouterr().err == ""
    time.sleep(0.1)
    progress.step(3)
    line = capsys.readouterr().err
    assert line.startswith("stylised  4/10 batches  ")
    rate = float(line.split("  ")[2].removesuffix(" images/s"))
    assert 0 < rate <= 3 * 2 / 0.1  # of the steps after the first
    progress.close("done")
    assert capsys.readouterr().err == "done\n"


def test_a_long_step_is_seen(capsys):
    with logs.Progress("evaluation", 2, steps="batches", images=8, every=0.1) as outer:
        time.sleep(0.4)
        first = capsys.readouterr().err.splitlines()
        outer.step()
        capsys.readouterr()
        # Of two, the one that is at work has the line.
        with logs.Progress("inner", 1, every=0.1) as inner:
            time.sleep(0.4)
            inner.close("inner done")
            time.sleep(0.3)
        within = capsys.readouterr().err.splitlines()
        with logs.Progress("another process's", 1, every=0.1, active=False):
            time.sleep(0.3)
        assert capsys.readouterr().err == ""
        time.sleep(0.4)
        last = capsys.readouterr().err.splitlines()
    assert set(first) == {"evaluation  0/2 batches  0:00 since the start"}
    assert set(within) == {"inner  0/1 images  0:00 since the start", "inner done"}
    assert all(line.startswith("evaluation  1/2 batches  0:0") for line in last)
    assert all(line.endswith(" since the last") for line in last)
    assert last
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_what_fails_ends_its_line(capsys):
    with pytest.raises(ValueError, match="it fails"), logs.Progress("a", 1, every=0.05):
        raise ValueError("it fails")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_metrics_of_a_resumed_run_follow_its_checkpoint(tmp_path):
    writer = logs.MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0 / step})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed
    writer = logs.MetricsWriter(tmp_path, step=2)
    writer.write(3, {"loss": 0.25})
    writer.close()
    assert files.read_log(path) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]


def test_a_damaged_log_is_not_in_the_way(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    writer = logs.MetricsWriter(tmp_path)
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": 0.5})
    writer.close()
    first, second, third, fourth = path.read_text().splitlines()
    older = '{"step": 2, "loss": 0.25}'  # without a checksum
    wrong = [second.replace("0.5", "0.7"), "[]", "", "{}", '{"step": null}', third[:9] + "\xff"]
    path.write_text("\n".join([first, older, *wrong, fourth, third[:20]]))
    logs.MetricsWriter(tmp_path, step=4).close()
    said = "metrics.jsonl must hold what was written there, but its crc32 is of something else"
    assert said in caplog.text
    assert "6 of its lines are damaged and left out." in caplog.text
    assert files.read_log(path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25},
        {"step": 4, "loss": 0.5},
    ]


DAMAGE = {
    "empty": (b"", "must hold an object in JSON, got something else"),
    "cut off": (b'{"steps": 3', "must hold an object in JSON, got something else"),
    "no text": (b"\xff\xfe\0", "must hold an object in JSON, got something else"),
    "deep": (b"[" * 100_000, "must hold an object in JSON, got something else"),
    "a list": (b"[3]", "must hold an object in JSON, got list"),
    "a number": (b"3", "must hold an object in JSON, got int"),
    "without a key": (b"{}", "must hold steps of type int, got none"),
    "of another type": (b'{"steps": "3"}', "must hold steps of type int, got str"),
    "another number": (
        b'{"steps": 7, "crc32": "e6bc6ba3"}',
        "must hold what was written there",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(damage, tmp_path, caplog):
    content, sentence = DAMAGE[damage]
    path = tmp_path / "settings.json"
    files.write_json(path, {"steps": 3})
    assert files.read_json(path, steps=int) == {"steps": 3}
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"settings\.json {sentence}") as caught:
        files.read_json(path, steps=int)
    assert "\n" not in str(caught.value)
    assert files.read_note(path, steps=int) is None
    assert f"{caught.value} It is left out and made anew." in caplog.text
    path.unlink()
    assert files.read_note(path, steps=int) is None
    assert len(caplog.messages) == 1


def test_every_flipped_bit_of_a_small_file_is_noticed(tmp_path):
    path = tmp_path / "settings.json"
    content = {"right": "0110", "top5": 3, "rate": 0.25}
    files.write_json(path, content)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = files.read_json(path)
        except ValueError:
            continue
        # What is left: another kind of space, or the checksum's own name.
        assert content.items() <= found.items()


def test_who_holds_a_lock_is_named(tmp_path, capsys):
    code = (
        "import sys\n"
        "from jaxrobust.core import files\n"
        "with files.alone(sys.argv[1], 'works here'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    lock = tmp_path / "folder" / "lock"
    command = [sys.executable, "-c", code, str(lock)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        said = rf"^Process {other.pid} on \S+, since [-\d]+ [:\d]+, works here: only one may at a"
        with (
            pytest.raises(ValueError, match=said),
            files.alone(lock, "works here", wait=False),
        ):
            pass
        timer = threading.Timer(0.5, other.kill)  # it ends with the process
        timer.start()
        with files.alone(lock, "works here"):
            assert timer.finished.is_set()
    error = capsys.readouterr().err
    assert error.startswith(f"Process {other.pid} on ")
    assert error.endswith(" works here: waiting for it to end.\n")
