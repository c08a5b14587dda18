"""From a picture's file to 8-bit RGB pixels, as a viewer shows them.

EXIF orientation is applied, colour profiles are not; transparency shows white. White of 32-bit
numbers is the least of 1 (floating numbers alone), 255 and 65535 that no pixel exceeds.
"""

import contextlib
import os
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from dfim.io import inputs

_UNREAD = {"EPS", "MPEG"}  # a program that Ghostscript would run, and films: PIL names them alone
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_KEY_SCALES = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}  # of PNG's colour key, in its own depth


def suffixes() -> frozenset[str]:
  """The suffixes of pictures, in lower case, with those of plugins that were imported."""
  formats = {*_formats(), "MPO"}  # a JPEG with more behind it
  return frozenset(s for s, kind in Image.registered_extensions().items() if kind in formats)


def picture(path: str | os.PathLike, size: int) -> np.ndarray:
  """The picture's centred square, resized: uint8 `[size, size, 3]`."""
  try:
    with Image.open(path, formats=_formats()) as image:
      return square(_rgb(image), size)
  except Exception as error:  # of a damaged or a huge picture, whatever PIL raises
    line = " ".join(str(error).split())
    raise ValueError(f"data.path: {path} cannot be read ({line}); replace it") from None


def square(image: Image.Image, size: int) -> np.ndarray:
  """The centred square `[size, size, C]`; cut first, or resizing would mix in its surroundings."""
  side = min(image.size)
  left, top = ((n - side) // 2 for n in image.size)
  cut = image.crop((left, top, left + side, top + side))
  return np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS))


def _formats() -> tuple[str, ...]:
  """The formats that PIL decodes by itself, without those that it only names."""
  Image.init()
  stub = lambda kind: isinstance(kind, type) and issubclass(kind, ImageFile.StubImageFile)
  return tuple(f for f, (kind, _) in Image.OPEN.items() if f not in _UNREAD and not stub(kind))


def _rgb(image: Image.Image) -> Image.Image:
  raw = str(image.tile[0][3]) if image.format == "PNG" and image.tile else ""  # gone once loaded
  image.load()
  with contextlib.suppress(Exception):  # of a damaged EXIF block: no orientation
    ImageOps.exif_transpose(image, in_place=True)
  if image.mode[0] in "IF":
    return _from_deep(image).convert("RGB")
  if raw in _KEY_SCALES and "transparency" in image.info:
    key = np.multiply(image.info["transparency"], _KEY_SCALES[raw]).astype(int).tolist()
    image.info["transparency"] = tuple(key) if isinstance(key, list) else key
  if not image.has_transparency_data:
    return image.convert("RGB")
  image = image.convert("RGBA")
  return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
  axes = ("row", "column")
  pixels = inputs.numbers(np.asarray(image), "pixel", (None, None), axes=axes, low=0)
  white = _white(image, pixels.max(initial=0))
  inputs.refuse_where(pixels > white, pixels, "pixel", axes, f"give {white} or less")
  grey = np.rint(pixels * (255 / white))
  if _tag(image, _PHOTOMETRIC) == 0:  # 0 is white; PIL inverts 8-bit pixels alone
    grey = 255 - grey
  if "transparency" in image.info:
    grey[pixels == image.info["transparency"]] = 255
  return Image.fromarray(grey.astype(np.uint8))


def _white(image: Image.Image, brightest: float) -> int:
  bits = _tag(image, _BITS, (0,))[0]
  if image.mode.startswith("I;16"):
    return 2 ** (bits or 16) - 1
  if image.mode == "I" and bits == 16:  # with a sign
    return 2**15 - 1
  usual = (1, 255) if image.mode == "F" else (255,)
  if image.mode == "I" and image.format in ("PPM", "PNG"):  # PIL scales them to 16 bits
    usual = ()
  return next((white for white in usual if brightest <= white), 65535)


def _tag(image: Image.Image, number: int, default: Any = None) -> Any:
  return getattr(image, "tag_v2", {}).get(number, default)
