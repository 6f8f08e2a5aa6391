// perplexity.mjs MODEL_DIR N_CHUNKS FILE.gguf...: every file loads in llama.cpp and gives the model's golden perplexity.
import {readGoldens, perplexity, secondHalf} from "./goldens.mjs";
import {openLlama, scoreChunks} from "./llama.mjs";
import {finish, typeOf} from "./report.mjs";

// How far the perplexity may be from the golden one, as a factor either way: [trained models, random ones]. A wrong scale, order or
// layout gives factors far above these.
// F32 and F16 show that every tensor is right: measured 1.0002 at worst, which is llama.cpp's f16 cache (1.0010 in one model where
// V4's indexer meets ties). With BF16 weights llama.cpp
// rounds activations to bf16 as well, and with 8-bit ones and below to 8 bits; a random model, whose experts are nearly tied, then
// chooses others: 1.011 at worst (mini-v4, AVX2), where trained models stay within 1.0015.
// What quantization costs is no question of correctness: the bounds are twice the worst measured, 1.030 (Q3_K_S of tiny-v4-flash) and,
// for what is noise in a random model, 1.21 (Q4_K_M of mini-qwen3).
const allowed = {
  F32: [1.002, 1.005], F16: [1.002, 1.005], BF16: [1.01, 1.02], lossless: [1.01, 1.02], Q8_0: [1.01, 1.05], otherwise: [1.06, 1.5],
  // Up to 3 bits; 1.10 is the worst of the trained models so far, random ones lose everything.
  IQ1_S: [1.25, 4], IQ1_M: [1.25, 4], TQ1_0: [1.25, 4], TQ2_0: [1.25, 4], IQ2_XXS: [1.12, 3], IQ2_XS: [1.12, 3], IQ2_S: [1.12, 3],
  IQ2_M: [1.12, 3], Q2_K: [1.12, 3], Q2_K_S: [1.12, 3], "dynamic-2bit": [1.12, 3]};

const [modelDir, chunkCount, ...files] = process.argv.slice(2);
const goldens = readGoldens(modelDir);
const chunks = goldens.chunks.slice(0, Number(chunkCount));
const {first, end} = secondHalf(goldens.context);
const golden = perplexity(goldens.logprobs.slice(0, chunks.length).flatMap((row) => row.slice(first, end)));

const isRandom = golden > goldens.vocabularySize;  // worse than guessing

const llama = await openLlama();
const failures = [];
for (const file of files) {
  const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
  const measured = perplexity((await scoreChunks(model, chunks)).flat());
  await model.dispose();
  const type = typeOf(file);
  const ratio = measured / golden;
  const bound = (allowed[type] ?? allowed.otherwise)[isRandom ? 1 : 0];
  console.log(`${type.padEnd(9)} golden ${golden.toFixed(4)}  llama.cpp ${measured.toFixed(4)}  ratio ${ratio.toFixed(4)}  allowed ${bound}`);
  if (!(ratio < bound && ratio > 1 / bound)) failures.push(`${file}: perplexity ${measured}, golden ${golden}, allowed factor ${bound}`);
}
finish(failures, files);
