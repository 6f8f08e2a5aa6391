#include "verify/drift/chunked_text.h"

#include <algorithm>
#include <optional>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/model/model_kind.h"
#include "verify/drift/perplexity.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

}  // namespace

ChunkedText load_text(const ModelSource& model, const TextOptions& options) {
  require_model(model);
  std::string text = read_text_file(options.file, kMaxTextBytes);
  if (text.ends_with('\n')) text.pop_back();
  ChunkedText result;
  result.tokenizer = make_tokenizer(model.metadata());
  const std::optional<int32_t> bos = result.tokenizer->adds_bos() ? result.tokenizer->bos_id() : std::nullopt;
  try {
    if (text.empty()) throw Error(ErrorKind::kUsage, "the text is empty");
    const std::vector<int32_t> tokens = result.tokenizer->encode(text, true, false);
    result.n_text_tokens = static_cast<int64_t>(tokens.size());
    result.chunks = make_chunks(tokens, options.ctx, options.max_chunks, bos);
    result.text_tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(result.chunks.size()) * options.ctx);
  } catch (Error& error) {
    error.file(options.file.string());
    throw;
  }
  return result;
}

uint64_t default_evaluation_memory() { return std::min(uint64_t{8} << 30, available_memory_bytes() / 4 * 3); }

}  // namespace quern
