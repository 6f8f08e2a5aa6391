// What these tests need of llama.cpp, through node-llama-cpp as npm installed it.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import {secondHalf} from "./goldens.mjs";

export async function openLlama() {
  return await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});
}

// log p of each token in the second half of the chunk, as llama.cpp computes it (f16 cache, no flash attention).
export async function scoreChunks(model, chunks) {
  const contextSize = chunks[0].length;
  const {first, end} = secondHalf(contextSize);
  const context = await model.createContext({contextSize, batchSize: contextSize, flashAttention: false});
  const sequence = context.getSequence();
  const result = [];
  for (const tokens of chunks) {
    await sequence.clearHistory();
    const wanted = {generateNext: {probabilities: true}};
    const evaluated = await sequence.controlledEvaluate(tokens.map((token, i) => (i >= first && i < end ? [token, wanted] : token)));
    result.push(Array.from({length: end - first}, (_, i) => Math.log(evaluated[first + i].next.probabilities.get(tokens[first + i + 1]))));
  }
  await context.dispose();
  return result;
}
