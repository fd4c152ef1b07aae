from __future__ import annotations

import unmask
from benchmarks.zoo import ZOO
from unmask.cases import find_case


def test_a_model_that_torch_refuses_to_differentiate_is_searched_through_a_view() -> None:
    """What the plain attack would need is not there, so that it leaves what it finds; the place is named."""
    model = ZOO["Overwritten"].build(find_case("plain-digits").load()).eval()
    report = unmask.audit(model, "digits", unmask.Linf(0.15), n=16, budget="quick")
    assert report.masking == "masked"
    assert "root = torch.sqrt(x + 0.01)" in report.findings[0].where
    assert report.accuracy.plain is not None
    assert report.accuracy.plain.value >= 0.9
    assert report.accuracy.adaptive.value == 0.0
    (about,) = [attack.description for attack in report.attacks if attack.name == "plain"]
    assert "modified by an inplace operation" in about
