#include "verify/drift/drift_job.h"

#include <algorithm>
#include <set>

#include "formats/base/error.h"
#include "formats/model/model_facts.h"
#include "quantize/simulated_source.h"
#include "verify/drift/base_file.h"
#include "verify/drift/reference_file.h"

namespace quern {
namespace {

constexpr double kForeignShare = 0.01;  // of a text's tokens; more than this are another tokenizer and not a renamed token

// The texts of a vocabulary; nullptr when the metadata has none.
const std::vector<std::string>* token_list(const Metadata& metadata) {
  const MetaValue* value = metadata.find("tokenizer.ggml.tokens");
  return value == nullptr ? nullptr : std::get_if<std::vector<std::string>>(value);
}

std::set<size_t> tokens_of(std::span<const Sequence> chunks) {
  std::set<size_t> ids;
  for (const Sequence& chunk : chunks) ids.insert(chunk.tokens.begin(), chunk.tokens.end());
  return ids;
}

// Compares what the numbers of the text stand for. Tokens that the text does not use may have any name, as tools pad vocabularies in
// different ways.
std::string compare_tokens(const std::vector<std::string>& original, const std::vector<std::string>& own,
                           std::span<const Sequence> chunks) {
  const std::set<size_t> used = tokens_of(chunks);
  const auto differs = [&](size_t id) { return id < original.size() && id < own.size() && original[id] != own[id]; };
  const auto first = std::ranges::find_if(used, differs);
  if (first == used.end()) return "";
  const auto n = static_cast<size_t>(std::ranges::count_if(used, differs));
  const std::string what = std::to_string(n) + " of the " + std::to_string(used.size()) + " tokens that the text has are others in it (" +
                           std::to_string(*first) + " is '" + printable(original[*first], 40) + "' in the original and '" +
                           printable(own[*first], 40) + "' here)";
  if (static_cast<double>(n) <= kForeignShare * static_cast<double>(used.size())) return what;
  throw Error(ErrorKind::kFormat, "has another tokenizer than the original: " + what + "; its figures would mean nothing");
}

std::string tokens_warning(const Metadata& build, const ComparisonBasis& basis) {
  const std::vector<std::string>* own = token_list(build);
  if (own == nullptr) return "";
  if (basis.tokens != nullptr) return compare_tokens(*basis.tokens, *own, basis.chunks);
  if (basis.tokens_sha256.empty() || basis.tokens_sha256 == tokens_sha256(build)) return "";
  return "its vocabulary is not the one that the reference was made with; if the tokenizer is another one, figures mean nothing";
}

}  // namespace

DriftJob::DriftJob(const ModelSource& original, std::string name, std::string text_name, const ChunkedText& text,
                   const EvalOptions& options, Progress& progress)
    : source_(&original), options_(options) {
  auto model = std::make_unique<OriginalModel>(original, options, text.chunks, true, progress);
  original_ = model.get();
  options_.memory_bytes -= std::min(options.memory_bytes / 2, model->resident_bytes());
  reference_ = std::move(model);
  report_.original = std::move(name);
  report_.text = std::move(text_name);
  report_.rows.push_back({kNoiseFloorName, 0, 0.0, original_->noise_floor()});
  report_.rows.front().drift.bytes_read = original.bytes_read();
}

DriftJob::DriftJob(std::unique_ptr<ReferenceDistribution> reference, std::string name, const EvalOptions& options)
    : reference_(std::move(reference)), options_(options) {
  report_.original = std::move(name);
}

void DriftJob::save_reference(const std::filesystem::path& path, const ChunkedText& text, OutputFile::Overwrite overwrite) {
  QUERN_CHECK(original_ != nullptr);
  const std::string extension = path.extension().string();
  if (extension == ".h5" || extension == ".hdf5") {
    const ReferenceInfo info{.model = shown_name(report_.original),
                             .bos_first = text.tokenizer->adds_bos(),
                             .tokens_sha256 = tokens_sha256(source_->metadata())};
    write_reference_file(path, *original_, info, overwrite);
  } else {
    write_base_file(path, *original_, text.text_tokens, overwrite);
  }
}

void DriftJob::add(const ModelSource& build, std::string name, uint64_t size_bytes, Progress& progress) {
  try {
    ModelDrift drift = measure_drift(build, options_, *reference_, progress);
    report_.rows.push_back({name, size_bytes, bits_per_weight(build), std::move(drift)});
  } catch (Error& error) {
    throw error.file(name);
  }
  build_bytes_read_ += build.bytes_read();
}

void DriftJob::add_simulated(const PlannedBuild& build, const TensorEncoder& encoder, Progress& progress) {
  QUERN_CHECK(source_ != nullptr);
  const SimulatedSource simulated(*source_, build.types, encoder, nullptr);
  ModelDrift drift = measure_drift(simulated, options_, *reference_, progress);
  report_.rows.push_back({build.name, build.size_bytes, bits_per_weight(*source_, build), std::move(drift)});
}

const DriftReport& DriftJob::report() {
  const std::vector<Sequence>& chunks = reference_->chunks();
  report_.n_ctx = std::ssize(chunks.front().tokens);
  report_.n_chunks = std::ssize(chunks);
  report_.bytes_read = (source_ != nullptr ? source_->bytes_read() : 0) + build_bytes_read_;
  return report_;
}

EvalPlan plan_original(const ModelSource& original, const ChunkedText& text, const EvalOptions& options) {
  std::vector<Sequence> both = text.chunks;
  both.insert(both.end(), text.chunks.begin(), text.chunks.end());
  return Evaluator(original, options).plan(both);
}

std::unique_ptr<ReferenceDistribution> open_reference(const std::filesystem::path& path, const std::filesystem::path& build) {
  if (!is_base_file(path)) return std::make_unique<ReferenceFile>(path);
  const std::unique_ptr<ModelSource> opened = open_model(build);
  const auto tokenizer = make_tokenizer(opened->metadata());
  return std::make_unique<BaseFile>(path, tokenizer->adds_bos() ? tokenizer->bos_id() : std::nullopt);
}

ComparisonBasis basis_of(const ModelSource& original, const ChunkedText& text) {
  return {vocabulary_size(original), token_list(original.metadata()), "", text.chunks};
}

ComparisonBasis basis_of(const ReferenceDistribution& reference) {
  return {reference.n_vocab(), nullptr, reference.tokens_sha256(), reference.chunks()};
}

std::vector<std::string> check_comparable(std::span<const std::string> paths, const ComparisonBasis& basis) {
  std::vector<std::string> warnings;
  for (const std::string& path : paths) {
    try {
      const std::unique_ptr<ModelSource> build = open_model(path);
      check_vocabulary(*build, basis.n_vocab);
      for (const std::string& warning :
           {tokens_warning(build->metadata(), basis), context_warning(build->metadata(), std::ssize(basis.chunks.front().tokens))}) {
        if (!warning.empty()) warnings.push_back(printable(shown_name(path)) + ": " + warning);
      }
    } catch (Error& e) {
      e.file(path);
      throw;
    }
  }
  return warnings;
}

std::string worse_than_chance(const DriftStatistics& statistics, int64_t n_vocab) {
  const auto chance = static_cast<double>(n_vocab);
  if (!(statistics.ppl.value > chance && statistics.ppl_original.value <= chance)) return "";
  return "predicts worse than chance, which no rounding does: its tokenizer is another one, or the file is broken";
}

std::optional<DType> lossy_type(const ModelSource& original) {
  for (const LogicalTensor& tensor : original.tensors()) {
    if (traits(tensor.source_type).block_weights > 1 && tensor.source_type != DType::MXFP4) return tensor.source_type;
  }
  return std::nullopt;
}

}  // namespace quern
