#include "verify/drift/drift_job.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/model/model_facts.h"
#include "quantize/simulated_source.h"
#include "verify/drift/base_file.h"
#include "verify/drift/reference_file.h"

namespace quern {

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
    const ReferenceInfo info{.model = shown_name(report_.original), .bos_first = text.tokenizer->adds_bos()};
    write_reference_file(path, *original_, info, overwrite);
  } else {
    write_base_file(path, *original_, text.text_tokens, overwrite);
  }
}

void DriftJob::add(const ModelSource& build, std::string name, uint64_t size_bytes, Progress& progress) {
  ModelDrift drift = measure_drift(build, options_, *reference_, progress);
  report_.rows.push_back({std::move(name), size_bytes, bits_per_weight(build), std::move(drift)});
  build_bytes_read_ += build.bytes_read();
}

void DriftJob::add_simulated(const PlannedBuild& build, const TensorEncoder& encoder, Progress& progress) {
  QUERN_CHECK(source_ != nullptr);
  const SimulatedSource simulated(*source_, build.types, encoder, nullptr);
  ModelDrift drift = measure_drift(simulated, options_, *reference_, progress);
  report_.rows.push_back({build.name, build.size_bytes, bits_per_weight(simulated), std::move(drift)});
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

void check_comparable(std::span<const std::string> paths, int64_t n_vocab) {
  for (const std::string& path : paths) {
    try {
      check_vocabulary(*open_model(path), n_vocab);
    } catch (Error& e) {
      e.file(path);
      throw;
    }
  }
}

std::optional<DType> lossy_type(const ModelSource& original) {
  for (const LogicalTensor& tensor : original.tensors()) {
    if (traits(tensor.source_type).block_weights > 1 && tensor.source_type != DType::MXFP4) return tensor.source_type;
  }
  return std::nullopt;
}

}  // namespace quern
