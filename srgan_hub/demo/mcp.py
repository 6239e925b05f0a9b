"""MCP server whose tools take lists of files, and return images and JSON.

Gradio's own (6.31) refers to a schema that is missing for lists, and returns several results as one Python tuple.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradio.mcp import GradioMCPServer
from gradio_client.utils import is_file_obj_with_meta

MAX_IMAGE_BYTES = 5_000_000  # of an image that is part of the answer; larger ones are links alone


class McpServer(GradioMCPServer):
    """MCP server of the demo's endpoints."""

    def get_input_schema(
        self, tool_name: str, parameters: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], list[list[str | int]]]:
        """Return the schema of a tool's arguments, and the positions of files in them."""
        schema, positions = super().get_input_schema(tool_name, parameters)
        for each in schema["properties"].values():
            if each.get("type") == "array" and each["items"].pop("$ref", None):
                each.pop("$defs")
        return schema, positions

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list[list[str | int]]) -> Any:
        """Replace the addresses of files in a tool's arguments by file objects."""
        positions = list(filedata_positions)
        for name, *rest in filedata_positions:
            if rest == ["items"] and isinstance(files := value.get(name), list):
                positions += [[name, index] for index in range(len(files))]
        return super().convert_strings_to_filedata(value, positions)

    @staticmethod
    def pop_returned_state(components: Sequence[Any], data: Any) -> Any:
        """Return a tool's files, and a dict of its other values by their labels."""
        (values,) = data if len(data) == 1 < len(components) else (data,)
        files, others = [], {}
        for component, value in zip(components, values, strict=True):
            found = [each for each in (value if isinstance(value, list) else [value]) if is_file_obj_with_meta(each)]
            files += found
            if not found and value is not None:
                others[component.label] = value
        return [*files, others]

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """Return the files as images with links, and the other values as JSON."""
        *files, others = data
        text = json.dumps(others, ensure_ascii=False)
        return [*super().postprocess_output_data(files, root_url), self.types.TextContent(type="text", text=text)]

    @staticmethod
    def get_image(file_path: str) -> Any:
        """Open an image that is small enough to be part of the answer."""
        small = Path(file_path).is_file() and Path(file_path).stat().st_size <= MAX_IMAGE_BYTES
        return GradioMCPServer.get_image(file_path) if small else None
