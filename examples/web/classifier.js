// Runs a .tflite classifier in LiteRT.js.

import { getWebGpuDevice, loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";

import { classCount, probabilitiesOf } from "./scores.js";

// LiteRT.js reports a failed run only here, and returns whatever was in the output's memory.
const faults = [];
const printErr = (line) => (line.startsWith("ERROR") ? faults.push(line) : console.debug(line));

const TYPES = { float32: Float32Array, uint8: Uint8Array };

/**
 * Starts LiteRT.js; call it once.
 *
 * @param {string} wasmFolder - URL of the folder of its wasm files.
 * @returns {Promise<{threads: boolean, gpu: boolean}>} Whether it runs on several threads, and whether there is a GPU.
 */
export async function startRuntime(wasmFolder) {
  // Threads share memory, which browsers allow only on pages that two headers isolate from others: see serve.py.
  const threads =
    globalThis.crossOriginIsolated && (await supportsFeature("threads")) && (await supportsFeature("relaxedSimd"));
  globalThis.Module = { printErr }; // Emscripten's settings
  await loadLiteRt(wasmFolder, { threads });
  return { threads, gpu: getWebGpuDevice() !== null };
}

/**
 * Fetches model.tflite and, if it exists, its description model.json.
 *
 * @param {string} folder - URL of their folder, with a trailing slash.
 * @returns {Promise<{bytes: Uint8Array, sidecar: object}>} The model and its description, {} if there is none.
 */
export async function fetchModel(folder) {
  const [model, sidecar] = await Promise.all([fetch(`${folder}model.tflite`), fetch(`${folder}model.json`)]);
  if (!model.ok) {
    throw new Error(
      "There is no model.tflite next to this page. Create one with `make web`, or copy your own there.",
    );
  }
  const bytes = new Uint8Array(await model.arrayBuffer());
  if (new TextDecoder("latin1").decode(bytes.subarray(4, 8)) !== "TFL3") {
    throw new Error(`model.tflite is not a TFLite model, or is damaged (${bytes.length} bytes).`);
  }
  const text = sidecar.ok ? await sidecar.text() : "{}";
  try {
    return { bytes, sidecar: JSON.parse(text) };
  } catch (error) {
    throw new Error(`model.json is damaged: ${error.message}. Export the model again.`);
  }
}

/** A compiled model with its description. */
export class Classifier {
  /**
   * @param {{bytes: Uint8Array, sidecar: object}} model - From `fetchModel`.
   * @param {"wasm"|"webgpu"} accelerator - Where to run it.
   * @returns {Promise<Classifier>} A classifier after a warm-up, because the first run is slower.
   */
  static async compile({ bytes, sidecar }, accelerator) {
    const compiled = await loadAndCompile(bytes, {
      accelerator,
      // LiteRT's default on a GPU is half precision, in which large activations of some networks overflow.
      gpuOptions: { precision: "fp32" },
    }).catch((error) => {
      throw explained(error);
    });
    try {
      // Without this check, an unsupported model would run on the CPU, and the page would name the wrong processor.
      if (accelerator === "webgpu" && !(compiled.options.accelerator === "webgpu" && compiled.isFullyAccelerated)) {
        throw new Error("The GPU cannot run every operation of this model, so it stays on the CPU.");
      }
      const classifier = new Classifier(compiled, sidecar);
      const { height, width } = classifier.input;
      await classifier.classify(new ImageData(width, height));
      return classifier;
    } catch (error) {
      compiled.delete();
      throw error;
    }
  }

  constructor(compiled, sidecar) {
    this.compiled = compiled;
    this.sidecar = sidecar;
    this.accelerator = compiled.options.accelerator;
    this.input = inputOf(compiled.getInputDetails()[0], sidecar.input ?? {});
    this.classes = classCount(compiled.getOutputDetails()[0].shape.at(-1), sidecar.output);
    this.classNames = classNamesOf(this.classes, sidecar.class_names ?? []);
  }

  /**
   * @param {ImageData} pixels - RGBA, 0 to 255, in the size of the input.
   * @returns {Promise<{probabilities: Float32Array, milliseconds: number}>} One probability per class, and the time
   *     from copying the input into the runtime to copying the output out of it.
   */
  async classify(pixels) {
    const { dtype, range, shape } = this.input;
    const data = inputData(pixels.data, dtype, range);
    faults.length = 0;
    const start = performance.now();
    const tensor = new Tensor(data, shape);
    try {
      const outputs = await this.compiled.run(tensor);
      try {
        const scores = await outputs[0].data();
        if (faults.length > 0) throw new Error(`LiteRT.js cannot run this model: ${faults.join(" ")}`);
        return { milliseconds: performance.now() - start, probabilities: probabilitiesOf(scores, this.sidecar.output) };
      } finally {
        outputs.forEach((output) => output.delete());
      }
    } finally {
      tensor.delete();
    }
  }

  delete() {
    this.compiled.delete();
  }
}

/** Returns the most probable classes, most probable first. */
export function topClasses(probabilities, classNames, count = 5) {
  return Array.from(probabilities, (probability, i) => ({ label: classNames[i], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, count);
}

function explained(error) {
  if (!/(Element type|DType) .* is not supported/.test(error.message)) {
    return new Error(`LiteRT.js cannot load model.tflite, which may be damaged: ${error.message}.`);
  }
  return new Error(
    `LiteRT.js supports only float32 and uint8 inputs and outputs; this model has others (${error.message}) ` +
      "Export it with a float32 or uint8 input and output.",
  );
}

function inputOf({ shape, dtype }, { height, width, range = [0, 255], crop_pct: crop = 1, interpolation = "bicubic" }) {
  const dimensions = [...shape];
  if (dimensions.length !== 4 || dimensions[0] !== 1 || dimensions[3] !== 3 || !(dtype in TYPES)) {
    throw new Error(
      "The model's input must be one RGB image, float32 or uint8, of shape (1, height, width, 3); " +
        `received ${dtype} of shape (${dimensions.join(", ")}).`,
    );
  }
  if (range === null && dtype === "float32") {
    throw new Error(
      "model.json does not state the range of the pixels, because the model does not normalize them itself. Put " +
        "se_keras.layers.ImagePreprocessing in front of the model, and export it again.",
    );
  }
  const [, modelHeight, modelWidth] = dimensions;
  if ((height ?? modelHeight) !== modelHeight || (width ?? modelWidth) !== modelWidth) {
    throw new Error(
      `model.json describes an input of ${height} × ${width} pixels, and model.tflite has one of ` +
        `${modelHeight} × ${modelWidth}. They belong to different models; export yours again.`,
    );
  }
  return { height: modelHeight, width: modelWidth, shape: dimensions, dtype, range, crop, interpolation };
}

function classNamesOf(classes, names) {
  if (names.length === classes) return names;
  if (names.length > 0) {
    throw new Error(`model.json names ${names.length} classes, and model.tflite has ${classes}. Export it again.`);
  }
  return Array.from({ length: classes }, (_, i) => `Class ${i}`);
}

/** Converts RGBA pixels to the range of the network's input; a uint8 input takes the pixels unchanged. */
function inputData(rgba, dtype, [low, high]) {
  const data = new TYPES[dtype]((rgba.length / 4) * 3);
  const factor = dtype === "uint8" ? 1 : (high - low) / 255;
  const offset = dtype === "uint8" ? 0 : low;
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    data[to++] = rgba[from] * factor + offset;
    data[to++] = rgba[from + 1] * factor + offset;
    data[to++] = rgba[from + 2] * factor + offset;
  }
  return data;
}
