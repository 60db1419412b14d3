"""Pictures that the imaging tests draw themselves."""

import numpy as np
from PIL import Image, ImageDraw


def drawing(width=320, height=240, *, seed=0):
    """A coloured picture with areas, outlines and some grain: enough structure for every measure."""
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in random.integers(120, 250, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        w, h = int(random.integers(width // 12, width // 3)), int(random.integers(height // 12, height // 3))
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour, outline="black")
    return picture


def subject_scene(width, height, box, *, grain=4, seed=0):
    """Pale grain with one bright detailed subject that fills `box` (left, top, right, bottom)."""
    random = np.random.default_rng(seed)
    pixels = (215 + random.normal(0, grain, (height, width, 1))).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = np.array(drawing(right - left, bottom - top, seed=seed))
    return Image.fromarray(pixels)
