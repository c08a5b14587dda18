"""A stand-in for a set that tfds has prepared."""

import importlib.util
import io

from PIL import Image
import pytest
import tensorflow_datasets as tfds

EXTRA = all(importlib.util.find_spec(m) for m in ("array_record", "grain", "importlib_resources"))
needs_extra = pytest.mark.skipif(not EXTRA, reason="pip install -e '.[tfds]'")


class Stored(tfds.core.GeneratorBasedBuilder):
  """The first of `PIXELS` as PNGs, with the labels of each split."""

  skip_registration = True

  def _info(self):
    label = tfds.features.ClassLabel(num_classes=self.CLASSES)
    features = dict(image=tfds.features.Image(shape=self.PIXELS.shape[1:]), label=label)
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(labels) for split, labels in self.SPLITS.items()}

  def _generate_examples(self, labels):
    for i, label in enumerate(labels):
      file, pixels = io.BytesIO(), self.PIXELS[i]
      Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
      yield i, dict(image=file.getvalue(), label=int(label))
