"""What a Figma job may ask for: strict models in camelCase. No field is accepted that does nothing."""

from datetime import datetime
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from worker.figma.references import VERSION, FileReference, file_reference, node_id
from worker.payloads import Model, Payload

MOST_NODES = 1000
MOST_RENDERS = 1000  # nodes × formats × scales: their rows and the result go through one body of 1 MiB
TEMPLATE_FIELDS = ("name", "page", "nodeId", "format", "ext", "scale", "scaleSuffix")


def _checked(text: str) -> str:
    file_reference(text)
    return text


FileText = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_checked)]
NodeId = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(node_id)]
NodeIds = Annotated[list[NodeId], Field(max_length=MOST_NODES)]
Glob = Annotated[str, Field(min_length=1, max_length=300)]
Globs = Annotated[list[Glob], Field(max_length=100)]
Version = Annotated[str, Field(pattern=VERSION)]


def _template(text: str) -> str:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError("has a brace that does not close") from error
    for _, name, spec, conversion in parts:
        if name is not None and (name not in TEMPLATE_FIELDS or spec or conversion):
            raise ValueError(f"knows {', '.join(f'{{{field}}}' for field in TEMPLATE_FIELDS)} only")
    return text


class FigmaOptions(Payload):
    """What all jobs on a file have."""

    file: FileText  # a key, or any pasted address
    version: Version | None = None  # not given: the present one, kept through the job

    @property
    def reference(self) -> FileReference:
        found = file_reference(self.file)
        return FileReference(found.key, found.node_id, self.version or found.version)


class Select(Model):
    """Nodes by globs, case-sensitive; `*` stands for anything, slashes too. A list left out matches all."""

    pages: Globs = []
    names: Globs = []  # of the node's own name, or of its whole path Page/Frame/Name
    types: Annotated[list[Annotated[str, Field(pattern=r"^[A-Z_]{1,50}$")]], Field(max_length=30)] = [
        "FRAME",
        "COMPONENT",
        "INSTANCE",
        "SECTION",
    ]
    components: Globs = []  # names of components and component sets, wherever they stand
    published_only: bool = False  # of `components`: those in the published library


class ExportOptions(FigmaOptions):
    """`figma.export`."""

    node_ids: NodeIds = []
    select: Select | None = None
    formats: Annotated[list[Literal["png", "jpg", "svg", "pdf"]], Field(min_length=1, max_length=4)] = ["png"]
    scales: Annotated[list[Annotated[float, Field(ge=0.01, le=4)]], Field(min_length=1, max_length=8)] = [1]
    name_template: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_template)] = (
        "{name}{scaleSuffix}.{ext}"
    )
    contents_only: bool = True
    use_absolute_bounds: bool = False
    svg_outline_text: bool = True
    svg_include_id: bool = False
    svg_simplify_stroke: bool = True
    svg_sanitize: bool = True  # scripts, handlers and links out of the file are taken away
    on_missing: Literal["skip", "fail"] = "skip"
    force: bool = False  # renders anew what an earlier job has made

    @property
    def wanted(self) -> list[str]:
        """Ids without repetition, in the order given; the address's own node where there is nothing else."""
        ids = list(dict.fromkeys(self.node_ids))
        if not ids and self.select is None and (only := self.reference.node_id):
            return [only]
        return ids

    @property
    def kinds(self) -> list[tuple[str, float]]:
        """Format and scale of each render of a node. Vectors have no pixels: one of each, at scale 1."""
        pairs = [
            (name, scale if name in ("png", "jpg") else 1.0)
            for name in dict.fromkeys(self.formats)
            for scale in dict.fromkeys(float(scale) for scale in self.scales)
        ]
        return list(dict.fromkeys(pairs))

    def render_options(self) -> dict[str, Any]:
        """What changes the bytes of a picture, besides node, format and scale."""
        return self.model_dump(
            by_alias=True,
            include={
                "contents_only", "use_absolute_bounds", "svg_outline_text", "svg_include_id",
                "svg_simplify_stroke", "svg_sanitize",
            },
        )  # fmt: skip

    def contradiction(self) -> tuple[str, str] | None:
        if not self.wanted and self.select is None:
            return "nodeIds", "give nodeIds, select, or an address with node-id"
        if self.node_ids and self.select is not None:
            return "select", "does not go with nodeIds"
        if len(self.wanted) * len(self.kinds) > MOST_RENDERS:
            return "nodeIds", f"asks for more than {MOST_RENDERS} pictures (nodes × formats × scales)"
        return None


class FileOptions(FigmaOptions):
    """`figma.file`: a snapshot of the file's JSON."""

    node_ids: NodeIds = []
    depth: int | None = Field(default=None, ge=1, le=100)
    geometry: bool = False  # with vector paths
    branch_data: bool = False


class TokensOptions(FigmaOptions):
    """`figma.tokens`."""

    source: Literal["auto", "variables", "styles"] = "auto"
    outputs: Annotated[list[Literal["dtcg", "css"]], Field(min_length=1, max_length=2)] = ["dtcg", "css"]
    modes: Globs = []  # not given: all


class FillsOptions(FigmaOptions):
    """`figma.fills`: the pictures that people placed into the file."""

    image_refs: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,128}$")]], Field(max_length=MOST_NODES)
    ] = []
    in_node_ids: NodeIds = []
    on_missing: Literal["skip", "fail"] = "skip"


class CommentsOptions(FigmaOptions):
    """`figma.comments`."""

    since: Annotated[AwareDatetime | None, Field(strict=False)] = None
    include_resolved: bool = True
    as_md: bool = True

    def contradiction(self) -> tuple[str, str] | None:
        if self.version is not None:
            return "version", "comments have no versions"
        return None


def instant(text: str) -> datetime:
    """A moment as Figma writes it, RFC 3339."""
    return datetime.fromisoformat(text)
