"""Download images from public web addresses."""

import asyncio
import hashlib
from pathlib import Path
from urllib.parse import unquote

import httpx
import safehttpx

MAX_REDIRECTS, TIMEOUT_SECONDS = 5, 20.0


async def fetch(url: str, directory: Path, *, max_bytes: int) -> Path:
    """Download a public http(s) address into a subdirectory; private and loopback addresses are never contacted.

    Raises:
        ValueError: The address is not public, cannot be reached within `TIMEOUT_SECONDS`, or returns no file of at most
            `max_bytes`.
    """
    try:
        content, name = await asyncio.wait_for(_download(url, max_bytes), TIMEOUT_SECONDS)
    except (asyncio.TimeoutError, httpx.TimeoutException):
        raise ValueError(f"'{url}' cannot be fetched: no answer within {TIMEOUT_SECONDS:.0f} seconds.") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise ValueError(f"'{url}' cannot be fetched: {error or type(error).__name__}.") from error
    path = directory / hashlib.sha256(content).hexdigest() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def _download(url: str, max_bytes: int) -> tuple[bytes, str]:
    address = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        if address.scheme not in ("http", "https"):
            raise ValueError(f"'{url}' cannot be fetched: not an http or https address.")
        try:
            ip = await safehttpx.async_validate_url(address.host)
        except ValueError:
            raise ValueError(f"'{url}' cannot be fetched: not a public address.") from None
        # The transport connects to the address that was checked, whatever the name resolves to then.
        transport = safehttpx.AsyncSecureTransport(ip)
        async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", address) as response:
            if response.has_redirect_location:
                address = address.join(response.headers["location"])
                continue
            if response.status_code != 200:
                raise ValueError(f"'{url}' cannot be fetched: the server answers with status {response.status_code}.")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > max_bytes:
                    raise ValueError(f"'{url}' cannot be fetched: larger than {max_bytes / 1e6:.3g} MB.")
            name = "".join(each for each in unquote(Path(address.path).name) if each.isalnum() or each in " ._-()")
            return bytes(content), name.strip(" .")[-100:] or "image"
    raise ValueError(f"'{url}' cannot be fetched: more than {MAX_REDIRECTS} redirects.")
