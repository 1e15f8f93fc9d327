import pytest

from jaxrobust.core import cpu_lowering
from jaxrobust.experiments.benchmarks import lowering as benchmark_lowering
from jaxrobust.models import resnet


@pytest.mark.slow
def test_every_formulation_is_left_out_in_turn(monkeypatch, capsys):
    def create():
        return resnet.ResNet((1,), small_images=True, width=4, num_classes=10)

    monkeypatch.setitem(benchmark_lowering.NETWORKS, "tiny", (create, 8, 2))
    measured = benchmark_lowering.measure("tiny", rounds=2)
    assert list(measured) == list(benchmark_lowering.WORKS)
    for ratios in measured.values():
        assert list(ratios) == list(benchmark_lowering.VARIANTS)
        assert ratios[benchmark_lowering.EVERYTHING] == 1.0
        assert min(ratios.values()) > 0
    left_out = [variant.removeprefix("no ") for variant in benchmark_lowering.VARIANTS[1:-2]]
    assert left_out == list(cpu_lowering.FORMULATIONS)
    monkeypatch.setattr(benchmark_lowering, "measure", lambda *_: measured)
    capsys.readouterr()
    benchmark_lowering.main(["--networks", "alexnet@224"])
    lines = capsys.readouterr().out.splitlines()
    assert "oneDNN" in lines[0]
    assert [line.split("  ")[0] for line in lines[3:]] == list(benchmark_lowering.VARIANTS[1:])
