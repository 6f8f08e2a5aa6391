// How the scripts of this folder report.
import path from "node:path";

// The type or recipe at the end of a file name by the GGUF naming convention: "Q4_K_M" of "Mini-Q4_K_M.gguf", "lossless" of
// "Mini-lossless-MXFP4.gguf", "dynamic-2bit" of "Mini-dynamic-2bit.gguf".
export function typeOf(file) {
  const words = path.basename(file, ".gguf").split("-");
  if (words.at(-2) === "dynamic") return words.slice(-2).join("-");
  return words.at(-2) === "lossless" ? "lossless" : words.at(-1);
}

// Ends the process at once: llama.cpp's threads need no orderly end, and no check that looked at nothing may pass.
export function finish(failures, looked) {
  for (const failure of failures) console.error(`FAILED ${failure}`);
  if (looked.length === 0) console.error("FAILED nothing to look at");
  process.exit(failures.length === 0 && looked.length > 0 ? 0 : 1);
}
