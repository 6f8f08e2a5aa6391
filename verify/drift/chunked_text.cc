#include "verify/drift/chunked_text.h"

#include <algorithm>
#include <optional>

#include "formats/arch/key_reader.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/model/model_kind.h"
#include "verify/drift/perplexity.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

void refuse_utf16(std::string_view text) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    throw Error(ErrorKind::kFormat, "is UTF-16, texts are read as UTF-8 (iconv -f UTF-16 -t UTF-8 makes one of it)");
}

// What an editor may have done to a text that others measure on as well.
std::vector<std::string> warnings_of(const std::string& file, std::string_view text) {
  std::vector<std::string> warnings;
  const auto warn = [&](const char* what) {
    warnings.push_back(printable(file) + " " + what + ": figures cannot be compared with those of the text without");
  };
  if (text.starts_with(kByteOrderMark)) warn("begins with a byte order mark, which is measured too");
  if (text.find("\r\n") != std::string_view::npos) warn("has line ends of Windows (CR LF), and every CR is measured too");
  return warnings;
}

}  // namespace

std::string context_warning(const Metadata& metadata, int64_t n_ctx) {
  const int64_t trained = outline_hparams(metadata).context_length;
  if (trained <= 0 || n_ctx <= trained) return "";
  return "chunks of " + std::to_string(n_ctx) + " tokens are longer than the context of " + std::to_string(trained) +
         " that the model was trained for: what it loses behind it is not the fault of a build";
}

ChunkedText load_text(const ModelSource& model, const TextOptions& options) {
  require_model(model);
  std::string text = read_text_file(options.file, kMaxTextBytes);
  if (text.ends_with('\n')) text.pop_back();
  ChunkedText result;
  result.tokenizer = make_tokenizer(model.metadata());
  const std::optional<int32_t> bos = result.tokenizer->adds_bos() ? result.tokenizer->bos_id() : std::nullopt;
  try {
    refuse_utf16(text);
    result.warnings = warnings_of(options.file.filename().string(), text);
    if (const std::string warning = context_warning(model.metadata(), options.ctx); !warning.empty()) result.warnings.push_back(warning);
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
