"""XMP packets: change, remove and find properties, whatever their prefix, as attributes or elements."""

from collections.abc import Callable
from typing import Any
from xml.dom import Node, expatbuilder
from xml.parsers.expat import ExpatError

EXIF = "http://ns.adobe.com/exif/1.0/"
TIFF = "http://ns.adobe.com/tiff/1.0/"
_USUAL = {"exif": EXIF, "tiff": TIFF}  # prefixes that some programs do not declare


def edit(packet: bytes, change: Callable[[str, str], str | None]) -> bytes:
    """Change a packet.

    Args:
        packet: XMP as UTF-8.
        change: Returns the new value of a property, or None to remove it, from its name with the namespace in front
            and its value, which is empty for a structure.

    Raises:
        ValueError: The packet is no XML; a `UnicodeDecodeError` if it is no UTF-8.
    """
    packet.decode()
    try:
        document: Any = expatbuilder.parseString(packet.strip(b"\0\t\n\r "), namespaces=False)
    except ExpatError as error:
        raise ValueError(str(error)) from error
    pending = [(document, _USUAL)]
    while pending:
        parent, namespaces = pending.pop()
        for element in [node for node in parent.childNodes if node.nodeType == Node.ELEMENT_NODE]:
            attributes = dict(element.attributes.items())
            declared = {name[6:]: uri for name, uri in attributes.items() if name.startswith("xmlns")}
            scope = {**namespaces, **declared} if declared else namespaces
            is_text = all(node.nodeType in (Node.TEXT_NODE, Node.CDATA_SECTION_NODE) for node in element.childNodes)
            old = "".join(node.data for node in element.childNodes) if is_text else ""
            new = change(_full_name(element.tagName, scope), old)
            if new is None and parent is not document:
                parent.removeChild(element)
                continue
            if is_text and new != old:
                element.childNodes[:] = [document.createTextNode(new)]
            for name, value in attributes.items():
                if name.partition(":")[0] in ("xmlns", "xml"):
                    continue
                if (new := change(_full_name(name, scope), value)) is None:
                    element.removeAttribute(name)
                elif new != value:
                    element.setAttribute(name, new)
            pending.append((element, scope))
    return "".join(node.toxml() for node in document.childNodes).encode()


def properties(packet: bytes) -> dict[str, str]:
    """Return the values of properties by their names with the namespace in front. ValueError as for `edit`."""
    found: dict[str, str] = {}

    def add(name: str, value: str) -> str:
        found.setdefault(name, value)
        return value

    edit(packet, add)
    return found


def _full_name(name: str, namespaces: dict[str, str]) -> str:
    prefix, colon, local = name.rpartition(":")
    return namespaces.get(prefix, prefix + colon) + local
