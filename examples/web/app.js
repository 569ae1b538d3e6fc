// The page: classifies a photo or the camera's frames and shows the five most probable classes.

import { Classifier, fetchModel, startRuntime, topClasses } from "./classifier.js";
import { decode, inputPixels } from "./pixels.js";

const RUNS = 5;
const BUDGET = 500; // milliseconds, for the repeated runs of one photo
const FRAMES = 15;

const element = (id) => document.getElementById(id);
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1 });

let model; // the fetched model
let classifier; // the model compiled for the chosen processor
let pixels; // the input from the displayed photo
let stream; // the camera while it is on

// One task at a time: the model must not be replaced while it runs.
let work = Promise.resolve();
const inTurn = (task) => (work = work.then(task).catch(showError));

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function showStatus(text) {
  element("status").textContent = text;
  element("status").classList.remove("error");
}

function showError(error) {
  console.error(error);
  element("status").textContent = error.message;
  element("status").classList.add("error");
}

function showAnswer(probabilities) {
  const top = topClasses(probabilities, classifier.classNames);
  const list = element("answer");
  while (list.children.length < top.length) list.append(answerRow());
  top.forEach(({ label, probability }, i) => {
    const row = list.children[i];
    row.querySelector(".label").textContent = label;
    row.querySelector(".label").title = label;
    row.querySelector("data").value = probability;
    row.querySelector("data").textContent = percent.format(probability);
    row.querySelector(".bar span").style.width = `${100 * probability}%`;
  });
  return top[0];
}

function answerRow() {
  const row = document.createElement("li");
  row.innerHTML =
    '<span class="label"></span><data></data><div class="bar" aria-hidden="true"><span style="width: 0"></span></div>';
  return row;
}

function showLatency(milliseconds, digits = milliseconds < 10 ? 1 : 0) {
  element("latency").textContent = `${milliseconds.toFixed(digits)} ms`;
}

function showInput(seen) {
  const canvas = element("input");
  canvas.width = seen.width;
  canvas.height = seen.height;
  canvas.getContext("2d").putImageData(seen, 0, 0);
  element("seen").hidden = false;
}

function showNetwork() {
  const { input, classes } = classifier;
  element("size").textContent = `${input.width} × ${input.height}`;
  element("classes").textContent = classes.toLocaleString("en");
  element("bytes").textContent = `${(model.bytes.length / 1e6).toFixed(1)} MB`;
}

async function classifyPhoto() {
  if (!pixels) return showStatus("Choose a photo, or use the camera.");
  showInput(pixels);
  const first = await classifier.classify(pixels);
  const { label, probability } = showAnswer(first.probabilities);
  const times = [first.milliseconds];
  for (let spent = times[0]; times.length < RUNS && spent < BUDGET; spent += times.at(-1)) {
    times.push((await classifier.classify(pixels)).milliseconds);
  }
  showLatency(median(times));
  showStatus(`Most probably ${label} (${percent.format(probability)}).`);
}

async function openPhoto(file) {
  stopCamera();
  const bitmap = await decode(file).catch(() => {
    throw new Error(`“${file.name}” cannot be read as an image. Try a JPEG, PNG or WebP file.`);
  });
  URL.revokeObjectURL(element("photo").src);
  element("photo").src = URL.createObjectURL(file);
  element("photo").alt = `Your photo, ${file.name}`;
  showSource("photo");
  pixels = await inputPixels(bitmap, classifier.input);
  bitmap.close();
  await classifyPhoto();
}

function showSource(shown) {
  for (const id of ["hint", "photo", "video"]) element(id).hidden = id !== shown;
  element("drop").classList.toggle("full", shown !== "hint");
}

async function toggleCamera() {
  if (stream) {
    stopCamera();
    return showStatus("The camera is off.");
  }
  stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch((error) => {
    throw new Error(`The camera cannot be used: ${error.message}.`);
  });
  pixels = undefined;
  const video = element("video");
  video.srcObject = stream;
  await video.play();
  showSource("video");
  element("camera").textContent = "Stop camera";
  // Not announced: the predictions change too often for screen readers, which can read the list at any time.
  showStatus("The camera is on.");
  followCamera(stream);
}

function stopCamera() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = undefined;
  element("video").srcObject = null;
  element("camera").textContent = "Use camera";
  showSource("hint");
}

async function followCamera(own) {
  const times = [];
  while (stream === own) {
    await inTurn(async () => {
      if (stream !== own) return;
      const bitmap = await decode(element("video"));
      const seen = await inputPixels(bitmap, classifier.input);
      bitmap.close();
      const { probabilities, milliseconds } = await classifier.classify(seen);
      times.splice(0, times.length - FRAMES + 1);
      times.push(milliseconds);
      showInput(seen);
      showAnswer(probabilities);
      showLatency(median(times));
    });
    await new Promise(requestAnimationFrame);
  }
}

async function chooseProcessor(accelerator) {
  element("processors").disabled = true;
  showStatus(accelerator === "webgpu" ? "Preparing the GPU …" : "Preparing the CPU …");
  try {
    const next = await Classifier.compile(model, accelerator);
    classifier?.delete();
    classifier = next;
    showNetwork();
    if (stream) showStatus("The camera is on.");
    else await classifyPhoto();
  } finally {
    document.querySelector(`[name=accelerator][value=${classifier?.accelerator ?? "wasm"}]`).checked = true;
    element("processors").disabled = !classifier;
  }
}

function listen() {
  const drop = element("drop");
  element("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) inTurn(() => openPhoto(file));
    target.value = ""; // allows choosing the same file again
  });
  for (const type of ["dragenter", "dragover"]) {
    drop.addEventListener(type, () => drop.classList.add("over"));
  }
  for (const type of ["dragleave", "drop"]) {
    drop.addEventListener(type, () => drop.classList.remove("over"));
  }
  // On the whole page, because a browser navigates to a photo dropped outside the box.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) inTurn(() => openPhoto(file));
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    const [file] = clipboardData.files;
    if (file) inTurn(() => openPhoto(file));
  });
  element("camera").addEventListener("click", () => inTurn(toggleCamera));
  for (const choice of document.querySelectorAll("[name=accelerator]")) {
    choice.addEventListener("change", ({ target }) => inTurn(() => chooseProcessor(target.value)));
  }
}

async function start() {
  const [runtime, fetched] = await Promise.all([startRuntime("./litert/wasm/"), fetchModel("./")]);
  model = fetched;
  element("wasm-note").textContent = runtime.threads ? "WebAssembly, several threads" : "WebAssembly, one thread";
  if (!runtime.gpu) {
    document.querySelector("[value=webgpu]").disabled = true;
    element("webgpu-note").textContent = "this browser offers no WebGPU here";
  }
  await chooseProcessor("wasm");
  element("file").disabled = false;
  element("camera").disabled = !navigator.mediaDevices;
  listen();
}

inTurn(start);
