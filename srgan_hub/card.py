"""The model card, rendered from model_card.md."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

LIBRARY_NAME = "srgan-hub"
PIPELINE_TAG = "image-to-image"
TAGS = ["super-resolution", "image-super-resolution", "srgan", "pytorch"]

# In the wheel the template lies in the package, in a checkout at the top.
_TEMPLATES = (Path(__file__).parent / "model_card.md", Path(__file__).parent.parent / "model_card.md")


def make_card(
    config: dict[str, Any],
    *,
    name: str = "srgan",
    license: str = "apache-2.0",
    datasets: list[str] | None = None,
    base_model: str | None = None,
    origin: str = "",
    training: str = "",
    scores: str = "",
    eval_results: list[Any] | None = None,
) -> ModelCard:
    """Render a model's card.

    Args:
        config: what config.json holds.
        name: the model's name, or its Hub id.
        license: the identifier of the weights' licence on the Hub.
        datasets: Hub ids of the data.
        base_model: Hub id or name of the model that it was fine-tuned from.
        origin: Markdown: where the weights come from, with attribution and licence.
        training: Markdown: data and recipe.
        scores: Markdown: a table with its protocol.
        eval_results: ``huggingface_hub.EvalResult`` entries for the card's model-index.
    """
    data = ModelCardData(
        model_name=name.split("/")[-1],
        library_name=LIBRARY_NAME,
        pipeline_tag=PIPELINE_TAG,
        tags=[*TAGS],
        license=license,
        datasets=datasets,
        base_model=base_model,
        eval_results=eval_results,
    )
    template = next(path for path in _TEMPLATES if path.is_file())
    return ModelCard.from_template(
        data,
        template_str=template.read_text(encoding="utf-8"),
        model_name=name,
        config=config,
        base_model=base_model,
        license=license,
        origin=origin,
        training=training,
        scores=scores,
    )
