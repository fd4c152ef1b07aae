"""The picture of the loss around images, from slices made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from unmask.errors import UnmaskError
from unmask.report import write
from unmask.report.plots.landscape import landscape, slices
from unmask.report.run_folder import RunFolder

ALONG = np.arange(-5, 16) / 10
AUDIT = {"candidate_views": [], "parts": [], "findings": [], "lint": [], "budget": "quick"}


def keep(builder: Any, loss: Any, slope: Any, scale: float = 4.0, index: int = 1) -> Path:
    """A run whose adaptive attack kept one slice, whose ``loss`` (21,) does not depend on the random direction."""
    builder.case("flat", ("plain", "adaptive"), audit=AUDIT)
    builder.record("flat", "clean", [1, 1], role="clean", images=True)
    builder.record("flat", "plain", [1, 1], role="plain", images=True)
    record = builder.record("flat", "adaptive", [1, 0], images=True)
    told = {
        "slice_index": np.array([index]),
        "slice_scale": np.array([scale], np.float32),
        "slice_loss": np.tile(np.asarray(loss) / scale, (1, 15, 1)).astype(np.float16),
        "slice_slope": np.asarray(slope, np.float32)[None],
    }
    path = builder.path / str(record.file)
    save_file({**load_file(path), **told}, path)
    return Path(builder.write())


def test_the_prediction_starts_at_the_image_and_adds_up_the_slopes(builder: Any) -> None:
    run = RunFolder.read(keep(builder, 2 * ALONG - 1, np.where(ALONG[:-1] < 0.55, 3, 1)))
    (one,) = slices(run, run.cases[0])
    assert (one.index, one.label) == (1, 1)
    np.testing.assert_allclose(one.along, ALONG)
    np.testing.assert_allclose(one.line, 2 * ALONG - 1, atol=4e-3)
    assert one.predicted[one.at(0)] == pytest.approx(-1, abs=4e-3)
    assert one.predicted[one.at(-0.5)] == pytest.approx(-1 - 1.5, abs=4e-3)
    assert one.predicted[one.at(1)] == pytest.approx(-1 + 6 * 0.3 + 4 * 0.1, abs=4e-3)


def test_the_page_has_the_picture_and_the_same_in_words(builder: Any) -> None:
    folder = keep(builder, 2 * ALONG - 1, np.zeros(20))
    write(folder)
    page = (folder / "report.html").read_text()
    words = "Example 1: from -1.00 at the image to 1.00 at the adversarial image; its gradient predicts -1.00."
    assert f'aria-label="Loss landscape. {words}"' in page
    figure = page[page.index("Loss landscape.") :]
    figure = figure[: figure.index("</figure>")]
    for said in ("predicted by the gradient", "adversarial image", "example 1, class one", "var(--adaptive)"):
        assert said in figure
    assert "#0" not in figure, "every colour is one of the page"
    assert len(figure) < 60_000


@pytest.mark.parametrize("loss", [ALONG - 2, ALONG + 1, 0 * ALONG, 1e30 * (ALONG - 0.5)])
def test_a_loss_on_one_side_of_the_boundary_can_be_drawn(builder: Any, loss: Any) -> None:
    run = RunFolder.read(keep(builder, loss, np.zeros(20), scale=max(float(np.abs(loss).max()), 1e-30)))
    assert landscape(run, run.cases[0]) is not None


def test_a_model_without_a_gradient_is_said_to_have_none(builder: Any) -> None:
    run = RunFolder.read(keep(builder, ALONG - 1, np.full(20, np.nan)))
    found = landscape(run, run.cases[0])
    assert found is not None
    assert found.text.endswith("at the adversarial image; it has no gradient.")


def test_runs_without_slices_have_no_picture(builder: Any) -> None:
    builder.case("bare", ("plain", "adaptive"), audit=AUDIT)
    builder.record("bare", "clean", [1, 1], role="clean", images=True)
    builder.record("bare", "adaptive", [1, 0], images=True)
    folder = Path(builder.write())
    write(folder)
    assert "Loss landscape" not in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["script"] == "", "nor a script, of an earlier version"


def test_a_slice_of_an_example_that_was_not_attacked_is_refused_in_one_line(builder: Any) -> None:
    with pytest.raises(UnmaskError, match=r"is broken \(in slice_"):
        write(keep(builder, ALONG, np.zeros(20), index=7))
