"""Write ``docs/configuration.md`` from the pydantic models, so that it says what the code does.

    python docs/make_configuration.py            # write it
    python docs/make_configuration.py --check    # exit 1 where the page is not what would be written

A key's meaning is its line under "Attributes:" in the model's docstring; the few that share a line with another key
have theirs in ``SHARED_LINES``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cxr_models.suppression.inpainter_training import InpainterTrainConfig
from data_catalog.sources import SOURCES as KINDS
from data_catalog.sources import SourceSpec
from flows.config import RunConfig, make_config
from flows.settings import Settings

PAGE = Path(__file__).parent / "configuration.md"

TOP = {"sources", "model_name", "workers", "mix_conventions", "device"}
SHARED_LINES = {
    "RunConfig.sources": "What to read. The command line's `--source`; see below how a file writes it.",
    "PreprocessConfig.gaussian_sigma": 'Standard deviation for `denoise = "gaussian"`, in pixels of the image.',
    "PreprocessConfig.median_kernel": 'Side of the window for `denoise = "median"`, in pixels; odd.',
    "AugmentConfig.aspect": "Ratio of the sides within exp(+- this).",
    "AugmentConfig.brightness": "Offset within +- this.",
    "AugmentConfig.contrast": "Factor within exp(+- this).",
    "TrainConfig.epochs": "Passes over the training rows.",
}

HEAD = """\
# Configuration

<!-- Made by docs/make_configuration.py from the pydantic models. Do not edit: change the models and run it again. -->

`cxr run` takes a preset (`--preset demo` or `--preset full`), a seed, and a TOML file with the values that are to be
other than the preset's:

```bash
cat > small.toml <<'END'
[phantom]
patients = 16

[train]
epochs = 40
END
cxr run --config small.toml --home small-home
```

A file names only what it changes. A key that does not exist, or a value out of its range, ends the command with exit
code 2 and says which. The values in use are written to `config.json` in the run's folder. A change of any value gives a
run folder of its own, and only the steps that the value matters to are computed again.
"""

PRESETS_HEAD = """\
## Presets

`demo` fits two CPU cores, `full` a GPU. Values that depend on the preset or on the data:
"""

SOURCES = """\
In a file, sources are written as tables; they replace those of the command line. Epochs and `model_name` of the preset
still follow from the command line: better give sources there. `kind` is one of {kinds}.
`path` may be left out for `phantom`, which then means the built-in cohort.

```toml
[[sources]]
kind = "pairs"
path = "/data/my-radiographs"
```
"""

INPAINTER = """\
## `cxr train-inpainter`

Starts from the recipe of the bundled inpainter (`cxr_models/weights/cxr-rib-inpainter/recipe.toml`); `--config` goes
over it. `sources`, `workers`, `device`, `[phantom]`, `[simulate]` and `[split]` are those above; `model_name` is
`cxr-rib-inpainter`, of phantoms alone `cxr-rib-inpainter-phantom`. A stage's `rounds` and `steps` say how long it
trains: steps of the optimiser are their product.
"""

ENVIRONMENT = """\
## Environment

Where state lives and which servers are used is not part of a run's configuration. It is read from the environment, in
`flows/settings.py` alone; `--home` wins over `CXR_HOME`.

| variable | type | default | meaning |
|---|---|---|---|
| `CXR_HOME` | path | `./cxr-home` | everything that is written goes under this folder |
| `CXR_MLFLOW_TRACKING_URI`, else `MLFLOW_TRACKING_URI` | text | `mlflow.db` in the home | MLflow server or database |
| `PREFECT_API_URL` | text | none | Prefect server; see below |
| `CXR_DATA` | path | none | a folder with data sets, which `cxr doctor` lists |

Without `PREFECT_API_URL`, a run uses the Prefect server of `cxr up` on the same home, else a private one that lives as
long as the command. The MLflow address is that of the registry too.
"""
VARIABLES = {"home", "mlflow_tracking_uri", "prefect_api_url", "data"}


def page() -> str:
    """The whole page.

    Raises:
        ValueError: a key, or a variable, that nothing is said about.
    """
    if set(Settings.model_fields) != VARIABLES:
        raise ValueError(
            f"Expected Settings to have {VARIABLES}, but got {set(Settings.model_fields)}: see ENVIRONMENT"
        )
    kinds = ", ".join(f"`{kind}`" for kind in sorted(KINDS))
    parts = [
        HEAD,
        PRESETS_HEAD,
        *presets(),
        "",
        "## Top level",
        "",
        *table(RunConfig, TOP),
        "",
        SOURCES.format(kinds=kinds),
    ]
    for name, model in sections(RunConfig):
        parts += section("##", name, model)
    parts += [INPAINTER, *section("###", "inpainter", InpainterTrainConfig)]
    for name, model in sections(InpainterTrainConfig, "inpainter."):
        parts += section("###", name, model)
    return "\n".join([*parts, ENVIRONMENT])


def section(level: str, name: str, model: type[BaseModel]) -> list[str]:
    """Heading, first sentence and table of one TOML section."""
    summary = (inspect.getdoc(model) or "").splitlines()[0].replace("``", "`")
    return [f"{level} `[{name}]`", "", f"{summary} ({_where(model)})", "", *table(model), ""]


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(TOML section, model) of every nested model, outer ones first."""
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield f"{prefix}{name}", field.annotation
            yield from sections(field.annotation, f"{prefix}{name}.")


def table(model: type[BaseModel], only: set[str] | None = None) -> list[str]:
    """A row per key of ``model`` that is no section itself."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    said = meanings(model)
    nested = {name for name, _ in sections(model) if "." not in name}
    if only is not None and set(model.model_fields) - nested != only:
        raise ValueError(f"Expected the top level to have {only}, but got {set(model.model_fields) - nested}")
    for name, field in model.model_fields.items():
        if name in nested:
            continue
        meaning = SHARED_LINES.get(f"{model.__name__}.{name}") or said.get(name)
        if not meaning:
            raise ValueError(f"Expected a line on `{name}` in the docstring of {model.__name__} or in SHARED_LINES")
        lines.append(
            f"| `{name}` | {_type(field)} | {_value(field.get_default(call_default_factory=True))} | {_said(meaning)} |"
        )
    return lines


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Key -> what the docstring, or that of what the model extends, says of it under "Attributes:"."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        found |= _own_meanings(base)
    return found


def _own_meanings(model: type[BaseModel]) -> dict[str, str]:
    _, _, text = (inspect.getdoc(model) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", "\n" + text.rstrip()):
        match = re.match(r"\s*([a-z0-9_]+(?:, [a-z0-9_]+)*): (.+)", entry, re.DOTALL)
        if match:
            for name in match.group(1).split(", "):
                found[name] = " ".join(match.group(2).split()).replace("``", "`")
    return found


def presets() -> list[str]:
    """Values in which the four combinations of preset and kind of data differ."""
    real = (SourceSpec("dicom", "."),)
    columns = {
        "demo, phantoms": _flat(make_config((), "demo").model_dump(mode="json")),
        "demo, radiographs": _flat(make_config(real, "demo").model_dump(mode="json")),
        "full, phantoms": _flat(make_config((), "full").model_dump(mode="json")),
        "full, radiographs": _flat(make_config(real, "full").model_dump(mode="json")),
    }
    lines = [f"| key | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for key in columns["demo, phantoms"]:
        values = [_value(values[key]) for values in columns.values()]
        if key != "sources" and len(set(values)) > 1:
            lines.append(f"| `{key}` | {' | '.join(values)} |")
    return lines


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _where(model: type[BaseModel]) -> str:
    return f"`{model.__name__}` in `{model.__module__.replace('.', '/')}.py`"


def _type(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, name):,}"
        for rule in field.metadata
        for name, sign in signs.items()
        if hasattr(rule, name)
    ]
    bounds += [f"at least {rule.min_length}" for rule in field.metadata if hasattr(rule, "min_length")]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin in (Union, UnionType):
        return " or ".join("none" if part is NoneType else _type_name(part) for part in inner)
    if origin is tuple:
        return (
            f"list of {_type_name(inner[0])}" if Ellipsis in inner else f"list of {len(inner)}: {_type_name(inner[0])}"
        )
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return " or ".join(f'`"{member.value}"`' for member in kind)
    names = {int: "integer", float: "number", str: "text", bool: "true or false", SourceSpec: "source"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _value(value: Any) -> str:
    if value is PydanticUndefined:
        return "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, SourceSpec):
        return f"{value.kind}={value.path}" if value.path else value.kind
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return f"{value}"


def _said(meaning: str) -> str:
    text = meaning.replace("|", "\\|")
    return text[0].upper() + text[1:] if text[0].islower() and not re.match(r"[a-z]+_", text) else text


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page is stale")
    check = parser.parse_args(arguments).check
    made = page()
    if check:
        stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made
        if stale:
            print(f"{PAGE} is not what the models say. Run: python docs/make_configuration.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
