"""`timesformer export`: a model in the format of another runtime."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.model import Source
from timesformer_cli.cli.options.views import RecipeOptions
from timesformer_cli.errors import UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.jobs.export import Verification
    from timesformer_cli.jobs.export.spec import ExportSpec

HELP = """Export a model to the format of another runtime, and verify it against PyTorch.

Formats: onnx (ONNX Runtime and other ONNX tools), openvino, pt2 (torch.export), aoti (a program that AOTInductor
compiles for this kind of machine), hub (transformers). An export is a folder with labels, recipe, checksums, and an
example that does not need this package. predict and evaluate take it as --model.

Before the folder gets its final name, the exported model and PyTorch run the same views of a clip and of noise. If the
results differ by more than rounding, the folder is named FOLDER.unverified, and the exit code is 1. --check repeats the
comparison later.
"""

_FORMAT = "Format"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The format, and its options."""

    format: Annotated[
        Literal["onnx", "openvino", "pt2", "aoti", "hub"] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Format to write: onnx, openvino, pt2, aoti or hub.",
            rich_help_panel=_FORMAT,
        ),
    ] = None
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="Precision of weights and arithmetic: fp32, fp16 or bf16; frames and outputs stay float32.",
            rich_help_panel=_FORMAT,
        ),
    ] = "fp32"
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(
            "--quantize",
            metavar="int8",
            help="Store weights as 8-bit integers, a quarter of the size.",
            rich_help_panel=_FORMAT,
        ),
    ] = None
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FOLDER",
            help="Quantize activations too, with ranges measured on the videos in this folder.",
            rich_help_panel=_FORMAT,
        ),
    ] = None
    input: Annotated[
        Literal["frames", "pixels"],
        typer.Option(
            "--input",
            metavar="KIND",
            help="Model input: frames (normalised floats), or pixels (RGB bytes that the model normalises itself).",
            rich_help_panel=_FORMAT,
        ),
    ] = "frames"
    output: Annotated[
        Literal["logits", "probabilities", "embedding"],
        typer.Option(
            "--output",
            metavar="KIND",
            help="Model output: logits, probabilities, or embedding (which gives no labels).",
            rich_help_panel=_FORMAT,
        ),
    ] = "logits"
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", help="ONNX opset version, by default 18.", rich_help_panel=_FORMAT),
    ] = None
    external_data: Annotated[
        bool,
        typer.Option(
            "--external-data", help="Store the ONNX weights in a file beside the graph.", rich_help_panel=_FORMAT
        ),
    ] = False

    @property
    def spec(self) -> "ExportSpec":
        """Raises UsageError for options that cannot be combined, or missing packages."""
        from timesformer_cli.jobs.export.spec import ExportSpec, check_packages

        assert self.format is not None
        spec = ExportSpec(
            format=self.format,
            precision=self.precision,
            quantize=self.quantize,
            calibrate=self.calibrate,
            input=self.input,
            output=self.output,
            opset=self.opset,
            external_data=self.external_data,
        )
        check_packages(spec)
        return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder to write or to check."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Folder to create.", rich_help_panel=OUTPUT),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace FOLDER if it holds only the files of an export.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="PATH",
            help="Verify an exported folder again; with MODEL, verify any exported file or folder against MODEL.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the verification as JSON.", rich_help_panel=OUTPUT)] = (
        False
    )


@bundled
def export(
    *,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", show_default=False, help="Any model that predict takes as --model."),
    ] = None,
    format: Format,
    source: Source,
    recipe: RecipeOptions,
    folder: Folder,
    talk: Talk,
) -> None:
    talk.choose()
    if folder.check is not None:
        if format.format is not None or folder.out is not None:
            raise UsageError("--check verifies an existing export; leave out --format and --out")
        from timesformer_cli.jobs.export import check

        found = check(folder.check, None if model is None else source.resolve(model, recipe), tell=console.note)
        _print(found, folder.check, as_json=folder.as_json)
        return
    if model is None or format.format is None or folder.out is None:
        raise UsageError(
            "name a MODEL, its --format and the folder to create with --out; or verify an existing export with --check"
        )
    spec = format.spec
    from timesformer_cli.jobs.export import export as export_model

    out = folder.out
    found = export_model(source.resolve(model, recipe), spec, out, overwrite=folder.overwrite, tell=console.note)
    _print(found, out if found.passed else out.with_name(f"{out.name}.unverified"), as_json=folder.as_json)


def _print(found: "Verification", path: Path, *, as_json: bool) -> None:
    summary = {"path": str(path), **found.to_dict()}
    print(json.dumps(summary, indent=2) if as_json else _table(summary))
    if not found.passed:
        console.error(f"{path}: not verified: {found.reason}")
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def _table(summary: dict[str, Any]) -> str:
    """Lines as wide as necessary, so that numbers can be copied."""
    rows = [("views per batch", "max difference", "mean difference", "relative", "same top label")]
    rows += [
        (
            str(batch["views"]),
            _number(batch["max_difference"]),
            _number(batch["mean_difference"]),
            _number(batch["relative"]),
            "" if batch["agreement"] is None else f"{batch['agreement']} of {batch['of']}",
        )
        for batch in summary["batches"]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    seconds = f"{1000 * summary['seconds_per_view']:,.0f} ms per view"
    if summary["torch_seconds_per_view"] is not None:
        seconds += f", PyTorch {1000 * summary['torch_seconds_per_view']:,.0f} ms"
    share = "" if summary["share_of_fp32"] is None else f", {100 * summary['share_of_fp32']:.0f} % of the fp32 size"
    verdict = "verified" if summary["passed"] else "not verified"
    return "\n".join(
        [
            printable(summary["path"]),
            f"{summary['format']}, {summary['precision']}, from {summary['input']} to {summary['output']}",
            "",
            *lines,
            "",
            f"{verdict}: differences up to {summary['tolerance']:g} of the largest value are allowed",
            f"size: {summary['bytes'] / 1e6:,.1f} MB{share}",
            f"time: {seconds}",
        ]
    )
