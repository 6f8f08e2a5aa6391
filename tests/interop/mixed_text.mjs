// Text of what tokenizers disagree about, the same for the same arguments: given prose and code, then random
// pieces, with or without the characters on which JavaScript's and Rust's regular expressions differ.

// Scripts with and without spaces, signs, full-width forms, letters outside the BMP.
const ranges = [
  [0x20, 0x7e], [0xa0, 0x17e], [0x370, 0x3ff], [0x400, 0x4ff], [0x590, 0x5ff], [0x600, 0x6ff], [0x900, 0x97f], [0xe00, 0xe5b],
  [0x1100, 0x11ff], [0x1e00, 0x1eff], [0x2000, 0x206f], [0x20a0, 0x20bf], [0x2100, 0x21ff], [0x2460, 0x24ff], [0x2580, 0x25ff],
  [0x3000, 0x30ff], [0x3400, 0x34ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xf900, 0xfaff], [0xfb00, 0xfb06], [0xff00, 0xffef],
  [0x1d400, 0x1d7ff], [0x1f300, 0x1f64f], [0x1f900, 0x1f9ff], [0x20000, 0x2a6d6],
];
const marks = [0x300, 0x301, 0x302, 0x303, 0x308, 0x30a, 0x323, 0x327, 0x328, 0x345, 0x5b0, 0x64b, 0x93c, 0x20d0, 0xfe0f];
const blanks = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u2003", " \n", "\n ", "\t\t", "    "];
const emoji = ["👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇯🇵🇫🇷", "❤️", "😶‍🌫️"];
const words = `the of and I'm we've they'll DON'T He'd it's x'RE naïve café Straße int main() { return 0; } for(i=0;i<n;++i)
 std::vector<int> => != === /* */ // #include <stdio.h> https://example.org/a?b=c&d=e 12345 3.14159 1,000,000 0xDEADBEEF CamelCaseWord
 snake_case_word HTTPServer iPhone '''quoted''' "text" ... --- *** ___ (a) [b] <d> </e> 東京 日本語テキスト 你好世界 안녕하세요 Привет
 مرحبا שלום नमस्ते สวัสดี ½ ² ① Ⅷ ٣ ３`.split(/\s+/);
const specials = ["<|endoftext|>", "<|im_start|>", "<think>", "</think>", "<tool_call>", "<｜User｜>", "<｜begin▁of▁sentence｜>",
  "<|eot_id|>", "<|begin_of_text|>", "<|start|>", "<|", "|>"];

// JavaScript's \s has U+FEFF and not U+0085, and its (?i:s) has no U+017F; the Rust implementation, and ours, have it the other way.
// U+212A is the like of U+017F for k.
const disputed = ["\u0085", "\ufeff", "\u017f", "\u212a", "it'\u017f"];
const isDisputed = new Set(disputed.map(text => text.codePointAt(0)));

function* randomNumbers(seed) {
  for (let state = BigInt(seed); ;) {
    state ^= (state << 13n) & 0xffffffffffffffffn;
    state ^= state >> 7n;
    state ^= (state << 17n) & 0xffffffffffffffffn;
    yield Number(state & 0xffffffffn);
  }
}

export function mixedText(given, minBytes, seed, withDisputed) {
  const numbers = randomNumbers(seed);
  const below = n => numbers.next().value % n;
  const pick = list => list[below(list.length)];
  const character = () => {
    for (;;) {
      const [first, last] = pick(ranges);
      const code = first + below(last - first + 1);
      const text = String.fromCodePoint(code);
      if (!isDisputed.has(code) && /\P{Cn}/u.test(text)) return text;  // assigned: Unicode versions differ on the others
    }
  };
  const repeat = (n, make) => Array.from({length: n}, make).join("");
  const makers = [
    [45, () => pick(words) + (below(3) ? " " : pick(blanks))],
    [20, () => repeat(1 + below(8), character)],
    [7, () => repeat(1 + below(4), () => String.fromCharCode(97 + below(26)) + repeat(1 + below(2), () => String.fromCodePoint(pick(marks))))],
    [5, () => String.fromCodePoint(pick([below(32), 0x7f]))],
    [3, () => " ".repeat(1 + below(200))],
    [2, () => "\n".repeat(1 + below(20)) + " ".repeat(below(30))],
    [3, () => pick(emoji)],
    [3, () => String(below(1e9)).repeat(1 + below(3))],
    [2, () => pick(specials)],
    [2, () => pick([..."=-*#~_"]).repeat(1 + below(100))],
    [8, () => pick(withDisputed && below(4) === 0 ? disputed : blanks)],
  ];
  const weighted = makers.flatMap(([weight, make]) => Array(weight).fill(make));
  const parts = [given];
  for (let bytes = Buffer.byteLength(given); bytes < minBytes;) {
    const part = pick(weighted)();
    bytes += Buffer.byteLength(part);
    parts.push(part);
  }
  return parts.join("");
}
