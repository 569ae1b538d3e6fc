// Converts a photo to the pixels of a network's input, like se_keras.preprocess in Python.
//
// A canvas would downscale a photo with the browser's own filter, and predictions would differ from Python's and
// between browsers. The resampling below is the antialiased resampling of Python. Small differences remain: browsers
// decode JPEG with another library than Python, which differs by about one level, and the browser first downscales
// photos of more than LARGEST pixels on their shorter side to that size, to save memory on phones.

const LARGEST = 2048;

// Weight at a distance in pixels, and the distance beyond which it is zero.
const FILTERS = {
  bilinear: { weight: (distance) => 1 - distance, support: 1 },
  bicubic: {
    // Keys' kernel with a = -0.5.
    weight: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2),
    support: 2,
  },
};

/**
 * Decodes a photo file or captures the current frame of a video.
 *
 * The photo is turned upright according to its EXIF data. Color profiles are ignored, as in Pillow.
 */
export function decode(source) {
  return createImageBitmap(source, { imageOrientation: "from-image", colorSpaceConversion: "none" });
}

/**
 * Returns the central crop of an image in the size of a network's input.
 *
 * @param {ImageBitmap} bitmap - The image. If it already has the size of the input, its pixels are returned unchanged.
 * @param {{height: number, width: number, crop: number, interpolation: string}} input - Size in pixels; share of the
 *     shorter side that the crop keeps, in (0, 1]; "bilinear" or "bicubic".
 * @returns {Promise<ImageData>} RGBA, 0 to 255, opaque.
 */
export async function inputPixels(bitmap, { height, width, crop, interpolation }) {
  if (bitmap.width === width && bitmap.height === height) return read(bitmap, 0, 0, width, height);

  const image = await limited(bitmap);
  const scale = Math.max(Math.floor(height / crop) / image.height, Math.floor(width / crop) / image.width);
  const filter = FILTERS[interpolation] ?? FILTERS.bicubic;
  const columns = taps(image.width, Math.max(Math.floor(image.width * scale + 1e-6), width), width, filter);
  const rows = taps(image.height, Math.max(Math.floor(image.height * scale + 1e-6), height), height, filter);

  const left = columns[0].start;
  const top = rows[0].start;
  const region = read(image, left, top, end(columns) - left, end(rows) - top);
  const narrow = resampleColumns(region.data, region.width, region.height, columns, left);
  return new ImageData(resampleRows(narrow, width, rows, top), width, height);
}

function limited(bitmap) {
  const factor = LARGEST / Math.min(bitmap.width, bitmap.height);
  if (factor >= 1) return bitmap;
  return createImageBitmap(bitmap, {
    resizeWidth: Math.round(bitmap.width * factor),
    resizeHeight: Math.round(bitmap.height * factor),
    resizeQuality: "high",
  });
}

function read(bitmap, left, top, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.drawImage(bitmap, -left, -top);
  return context.getImageData(0, 0, width, height);
}

/** Returns the source pixels and their weights for each pixel of the central crop along one axis. */
function taps(length, resized, cropped, { weight, support }) {
  const step = length / resized;
  const stretch = Math.max(step, 1); // antialiasing: when downscaling, the filter grows with the step
  const offset = roundHalfToEven((resized - cropped) / 2);
  return Array.from({ length: cropped }, (_, i) => {
    const center = (i + offset + 0.5) * step;
    const start = Math.max(Math.floor(center - support * stretch + 0.5), 0);
    const stop = Math.min(Math.floor(center + support * stretch + 0.5), length);
    const weights = Float64Array.from({ length: stop - start }, (_, k) => {
      const distance = Math.abs(start + k + 0.5 - center) / stretch;
      return distance < support ? weight(distance) : 0;
    });
    const sum = weights.reduce((total, value) => total + value, 0);
    return { start, weights: weights.map((value) => value / sum) };
  });
}

const end = (list) => Math.max(...list.map(({ start, weights }) => start + weights.length));

function resampleColumns(data, width, height, columns, left) {
  const result = new Uint8ClampedArray(height * columns.length * 4);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { start, weights } of columns) {
      to = accumulate(result, to, data, (y * width + start - left) * 4, 4, weights);
    }
  }
  return result;
}

function resampleRows(data, width, rows, top) {
  const result = new Uint8ClampedArray(rows.length * width * 4);
  let to = 0;
  for (const { start, weights } of rows) {
    for (let x = 0; x < width; x++) {
      to = accumulate(result, to, data, ((start - top) * width + x) * 4, width * 4, weights);
    }
  }
  return result;
}

/** Writes one weighted sum of opaque pixels, `stride` apart; returns the position of the next. */
function accumulate(result, to, data, from, stride, weights) {
  let red = 0;
  let green = 0;
  let blue = 0;
  for (let k = 0; k < weights.length; k++, from += stride) {
    red += weights[k] * data[from];
    green += weights[k] * data[from + 1];
    blue += weights[k] * data[from + 2];
  }
  // Rounds half up, like Pillow; a Uint8ClampedArray alone would round half to even.
  result[to] = Math.floor(red + 0.5);
  result[to + 1] = Math.floor(green + 0.5);
  result[to + 2] = Math.floor(blue + 0.5);
  result[to + 3] = 255;
  return to + 4;
}

/** Rounds like Python's round(). */
function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
