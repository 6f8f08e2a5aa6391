// reference_ids.mjs ENCODER PACKAGE VOCAB_SIZE GIVEN...: ids of the tokenizer in npm package PACKAGE on more than a megabyte of mixed
// text that begins with the files GIVEN: those that ENCODER (encode_with_folder.cc) gives, against Hugging Face's own implementation,
// which is in Rust, and the JavaScript one.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import {TokenizerLoader} from "@lenml/tokenizers";
import {Tokenizer} from "tokenizers";
import {mixedText} from "./mixed_text.mjs";
import {finish} from "./report.mjs";

const [encoder, packageName, vocabSize, ...given] = process.argv.slice(2);
const folder = path.resolve("node_modules", packageName, "models");
const readJson = name => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));
const javascript = TokenizerLoader.fromPreTrained({tokenizerJSON: readJson("tokenizer.json"), tokenizerConfig: readJson("tokenizer_config.json")});
const rust = Tokenizer.fromFile(path.join(folder, "tokenizer.json"));

const work = fs.mkdtempSync(path.join(process.cwd(), "reference-ids-"));
process.on("exit", () => fs.rmSync(work, {recursive: true, force: true}));

function encode(text) {
  const file = path.join(work, "text.txt");
  fs.writeFileSync(file, text);
  return execFileSync(encoder, [folder, vocabSize, file], {maxBuffer: 1 << 28, encoding: "utf8"}).trimEnd().split("\n").map(Number);
}

const failures = [];
function compare(name, text, expected) {
  const found = encode(text);
  const differs = expected.findIndex((id, i) => found[i] !== id);
  if (differs >= 0 || found.length !== expected.length) {
    const around = ids => JSON.stringify(javascript.decode(ids.slice(Math.max(0, differs - 3), differs + 4)));
    failures.push(`${packageName}, ${name}: ${found.length} ids for ${expected.length}, the first difference at ${differs}: ` +
                  `${found[differs]} in ${around(found)}, expected ${expected[differs]} in ${around(expected)}`);
  }
  console.log(`${packageName}, ${name}: ${Buffer.byteLength(text)} bytes, ${expected.length} ids`);
}

const begin = given.map(file => fs.readFileSync(file, "utf8")).join("\n");
const plain = mixedText(begin, 1.2e6, 88172645463325252n, false);
compare("JavaScript", plain, javascript.encode(plain, {add_special_tokens: false}));
const disputed = mixedText(begin, 1.2e6, 88172645463325253n, true);
compare("Rust", disputed, (await rust.encode(disputed, null, {addSpecialTokens: false})).getIds());
finish(failures, [packageName]);
