// perplexity.mjs MODEL_DIR N_CHUNKS FILE.gguf...: every file loads in llama.cpp and gives the model's golden perplexity.
import {readGoldens, perplexity, secondHalf} from "./goldens.mjs";
import {openLlama, scoreChunks} from "./llama.mjs";
import {finish, typeOf} from "./report.mjs";

// How far the perplexity may be from the golden one, as a factor either way. Exact files differ by llama.cpp's own rounding (f16
// cache, f16 and 8-bit activations). What quantization costs is no question of correctness: a wrong scale, order or layout gives
// factors far above these, which are twice the worst that was measured on the trained models (random ones react less).
const exact = 1.01;
const allowed = {F32: exact, F16: exact, BF16: exact, lossless: exact, Q8_0: 1.02, Q6_K: 1.03, Q5_K_M: 1.05, Q5_K_S: 1.05};
const allowedOtherwise = 1.5;

const [modelDir, chunkCount, ...files] = process.argv.slice(2);
const goldens = readGoldens(modelDir);
const chunks = goldens.chunks.slice(0, Number(chunkCount));
const {first, end} = secondHalf(goldens.context);
const golden = perplexity(goldens.logprobs.slice(0, chunks.length).flatMap((row) => row.slice(first, end)));

const llama = await openLlama();
const failures = [];
for (const file of files) {
  const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
  const measured = perplexity((await scoreChunks(model, chunks)).flat());
  await model.dispose();
  const type = typeOf(file);
  const ratio = measured / golden;
  const bound = allowed[type] ?? allowedOtherwise;
  console.log(`${type.padEnd(9)} golden ${golden.toFixed(4)}  llama.cpp ${measured.toFixed(4)}  ratio ${ratio.toFixed(4)}  allowed ${bound}`);
  if (!(ratio < bound && ratio > 1 / bound)) failures.push(`${file}: perplexity ${measured}, golden ${golden}, allowed factor ${bound}`);
}
finish(failures, files);
