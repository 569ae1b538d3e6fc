// Collects the page and LiteRT.js in one folder for any static web server: node build.js [folder]

import { cp, mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "public"));
const packages = join(here, "node_modules", "@litertjs");

const PAGE = ["index.html", "style.css", "app.js", "classifier.js", "pixels.js", "scores.js"];
// With threads; without threads, for pages that are not cross-origin isolated; and for browsers without relaxed SIMD.
const RUNTIMES = ["litert_wasm_threaded_internal", "litert_wasm_internal", "litert_wasm_compat_internal"];

const copies = [
  ...PAGE.map((name) => [join(here, name), name]),
  [join(packages, "core", "dist", "index.js"), "litert/core.js"],
  [join(packages, "wasm-utils", "dist", "index.js"), "litert/wasm-utils.js"],
  ...RUNTIMES.flatMap((name) => [`${name}.js`, `${name}.wasm`]).map((name) => [
    join(packages, "core", "wasm", name),
    `litert/wasm/${name}`,
  ]),
];

await mkdir(join(target, "litert", "wasm"), { recursive: true });
await Promise.all(copies.map(([from, to]) => cp(from, join(target, to))));
