"""Pictures as a viewer shows them: upright, of any depth, on white where nothing is."""

import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from dfim.data.images import decode
from tests.data.helpers import refused

RAMP = np.arange(256).reshape(16, 16)  # every level of grey once
NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def decoded(image, path, **how):
  path.write_bytes(image) if isinstance(image, bytes) else image.save(path, **how)
  return decode.picture(path, 16)


def pgm(pixels):
  return b"P5\n16 16\n65535\n" + pixels.astype(">u2").tobytes()


def tiff(pixels, bits, sign, photometric):
  """A grey TIFF whose tags are given: `sign` 1 unsigned, 2 signed; `photometric` 0 white is 0."""
  height, width = pixels.shape
  data = pixels.tobytes()
  tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
  tags += [(277, 1), (278, height), (279, len(data)), (339, sign)]
  entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
  head = b"II*\0" + struct.pack("<I", 8 + len(data))
  return head + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def png(depth, colour, raw, key):
  """Two rows `raw` of two pixels, of which the colour `key` is transparent."""
  chunk = lambda kind, data: (
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  )
  head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, depth, colour, 0, 0, 0))
  key = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
  body = chunk(b"IDAT", zlib.compress(2 * (b"\0" + raw))) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + head + key + body


DEEP = {  # by file: a picture whose levels of grey are `RAMP`
  "16 bits.png": Image.fromarray((257 * RAMP).astype(np.uint16)),
  "16 bits.tif": Image.fromarray((257 * RAMP).astype(np.uint16)),
  "16 bits.pgm": pgm(257 * RAMP),
  "16 of 32 bits.tif": Image.fromarray((257 * RAMP).astype(np.int32)),
  "fractions.tif": Image.fromarray((RAMP / 255).astype(np.float32)),
  "floats.tif": Image.fromarray(RAMP.astype(np.float32)),
  "floats of 16 bits.tif": Image.fromarray((257 * RAMP).astype(np.float32)),
  "signed.tif": tiff(np.rint(RAMP * (32767 / 255)).astype("<i2"), 16, 2, 1),
  "white is 0.tif": tiff((65535 - 257 * RAMP).astype("<u2"), 16, 1, 0),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_keep_their_levels(name, tmp_path):
  found = decoded(DEEP[name], tmp_path / name)
  np.testing.assert_array_equal(found, np.repeat(RAMP[..., None], 3, -1))


def test_the_bits_of_a_tiff_count(tmp_path):
  white = np.full((16, 24), 0xFF, np.uint8)  # 16 pixels of 12 bits in a row
  columns = lambda count: struct.pack("<HHII", 256, 4, 1, count)
  data = tiff(white, 12, 1, 1).replace(columns(24), columns(16))
  assert decoded(data, tmp_path / "a.tif").min() == 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_opaque_8_bit_pictures_are_as_pil_converts_them(mode, tmp_path):
  image = Image.fromarray(NOISE).convert(mode)
  found = decoded(image, tmp_path / "a.tif")
  np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


def test_hidden_colours_are_white_and_half_hidden_ones_between(tmp_path):
  pixels = np.zeros((16, 16, 4), np.uint8)
  pixels[..., 0], pixels[8:, :, 3] = 255, 51  # red, of which a fifth is seen in the lower half
  found = decoded(Image.fromarray(pixels), tmp_path / "a.png")
  assert found[:8].min() == 255
  assert np.all(found[8:] == [255, 204, 204])


@pytest.mark.parametrize("mode", ["LA", "PA", "P"])
def test_every_kind_of_transparency_counts(mode, tmp_path):
  alpha = np.zeros((16, 16), np.uint8)
  alpha[:, 8:] = 255  # black, and the left half is not there
  image = Image.new("RGB", (16, 16)).convert("L" if mode == "LA" else "P")
  image.putalpha(Image.fromarray(alpha))
  image = image.convert("RGBA").quantize(4) if mode == "P" else image
  assert image.mode == mode
  found = decoded(image, tmp_path / ("a.tif" if mode == "PA" else "a.png"))
  assert found[:, :8].min() == 255 and found[:, 8:].max() == 0


@pytest.mark.parametrize(
  "depth, colour, raw, key, seen",
  [
    (1, 0, b"\x80", [1], 0),
    (8, 0, b"\x09\x33", [9], 51),
    (16, 0, b"\x12\x34\x33\x33", [0x1234], 51),
    (8, 2, b"\x12\x34\x56\x33\x33\x33", [0x12, 0x34, 0x56], 51),
    (16, 2, b"\x12\x00\x34\x00\x56\x01\x33\x33\x33\x33\x33\x33", [0x1200, 0x3400, 0x5601], 51),
  ],
)
def test_the_colour_key_of_a_png_hides_its_colour_alone(depth, colour, raw, key, seen, tmp_path):
  (tmp_path / "a.png").write_bytes(png(depth, colour, raw, key))
  assert decode.picture(tmp_path / "a.png", 2)[0].tolist() == [[255] * 3, [seen] * 3]


FLIPPED = NOISE.transpose(1, 0, 2)
TURNED = [NOISE, np.fliplr(NOISE), np.rot90(NOISE, 2), np.flipud(NOISE)]
TURNED += [FLIPPED, np.rot90(NOISE, -1), np.rot90(FLIPPED, 2), np.rot90(NOISE)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation, suffix, tmp_path):
  exif = Image.Exif()
  exif[0x112] = orientation
  found = decoded(Image.fromarray(NOISE), tmp_path / f"a{suffix}", exif=exif)
  np.testing.assert_array_equal(found, TURNED[orientation - 1])


@pytest.mark.parametrize("value", [-1.0, np.nan, 7e4])
def test_pixels_that_are_no_grey_are_refused_with_their_place(value, tmp_path):
  pixels = RAMP.astype(np.float32)
  pixels[3, 5] = value
  with refused("data.path", tmp_path / "a.tif", f"{value} at row 3, column 5"):
    decoded(Image.fromarray(pixels), tmp_path / "a.tif")


def test_whatever_pil_writes_and_reads_is_read(tmp_path):
  lossy = {".avif", ".avifs", ".blp", ".gif", ".jpg", ".jpe", ".jpeg", ".jfif", ".mpo", ".webp"}
  made = 0
  for suffix, kind in Image.registered_extensions().items():
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(NOISE)
    try:
      (image.convert("1") if kind in ("MSP", "XBM") else image).save(path)
      with Image.open(path) as saved:
        saved.load()
        wanted = np.asarray(saved.convert("RGB"))
    except (OSError, ValueError, KeyError):  # one of the two is not done
      continue
    assert suffix in decode.suffixes()
    found = decode.picture(path, wanted.shape[0])
    np.testing.assert_array_equal(found, wanted)
    assert suffix in lossy or kind in ("MSP", "XBM", "ICNS") or np.array_equal(found, NOISE)
    made += 1
  assert made > 20


def test_damaged_files_and_programs_by_the_name_of_a_picture_are_refused(tmp_path):
  for content in (b"junk", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"):
    with refused("data.path", tmp_path / "a.png"):
      decoded(content, tmp_path / "a.png")
  assert not {".eps", ".h5", ".mpg", ".pdf", ".txt", ""} & set(decode.suffixes())


def test_pictures_are_cut_to_their_square_and_shown_despite_a_damaged_exif_block(tmp_path):
  wide = np.zeros((10, 30, 3), np.uint8)
  wide[:, 10:20] = 255
  Image.fromarray(wide).save(tmp_path / "wide.png")
  found = decode.picture(tmp_path / "wide.png", 5)
  assert found.shape == (5, 5, 3) and found.min() == 255
  found = decoded(Image.fromarray(NOISE), tmp_path / "a.png", exif=b"Exif\0\0MM\0junk")
  np.testing.assert_array_equal(found, NOISE)
