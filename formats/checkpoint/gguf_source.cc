#include "formats/checkpoint/gguf_source.h"

#include <algorithm>

#include "formats/arch/other_archs.h"
#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/types/decode.h"

namespace quern {
namespace {

Metadata without_split_keys(const Metadata& metadata) {
  Metadata result;
  for (const auto& [key, value] : metadata.entries()) {
    if (!key.starts_with("split.")) result.set(key, value);
  }
  return result;
}

// As ggml counts them: outer dimensions of 1 are none.
int n_dims(const Shape& shape) {
  int first = 0;
  while (first + 1 < shape.rank() && shape[first] == 1) ++first;
  return shape.rank() - first;
}

LogicalTensor describe(const gguf::StoredTensor& stored, std::string_view arch) {
  const TensorKind kind = classify_tensor(arch, stored.name, n_dims(stored.shape));
  LogicalTensor tensor;
  tensor.name = stored.name;
  tensor.shape = stored.shape;
  tensor.role = kind.role;
  tensor.keep = stored.dtype == DType::I32 ? Keep::kInteger : kind.keep;
  tensor.layer = kind.layer;
  tensor.n_slices = kind.role == Role::kRoutedExpert && stored.shape.rank() == 3 ? stored.shape[0] : 1;
  tensor.source_type = stored.dtype;
  tensor.source_bytes = stored.size_bytes;
  tensor.source_names = {stored.name};
  return tensor;
}

}  // namespace

GgufSource::GgufSource(gguf::File file) : file_(std::move(file)), metadata_(without_split_keys(file_.metadata())) {
  const std::string arch = metadata_.find_string("general.architecture").value_or("");
  if (!runs_in_llama_cpp(arch)) {
    notes_.push_back("architecture '" + printable(arch) +
                     "' is not one of llama.cpp that this version knows: of its matrices only those with llama.cpp's usual names are "
                     "quantized");
  }
  for (const gguf::StoredTensor& stored : file_.tensors()) tensors_.push_back(describe(stored, arch));
  for (const InputFile& input : file_.files()) {
    files_.push_back({input.path(), input.path().filename().string(), input.size_bytes(), input.mtime_ns()});
  }
}

uint64_t GgufSource::row_bytes(size_t tensor) const {
  const LogicalTensor& info = tensors_.at(tensor);
  return row_size_bytes(info.source_type, info.shape.row_length());
}

Exactness GgufSource::exactness(size_t tensor) const { return {tensors_.at(tensor).source_type, {}}; }

uint64_t GgufSource::raw_bytes(size_t tensor, int64_t n_rows) const { return static_cast<uint64_t>(n_rows) * row_bytes(tensor); }

void GgufSource::fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const {
  QUERN_CHECK(first_row >= 0 && n_rows >= 0 && first_row + n_rows <= tensors_.at(tensor).shape.n_rows());
  raw.tensor = tensor;
  raw.first_row = first_row;
  raw.n_rows = n_rows;
  raw.bytes.resize(raw_bytes(tensor, n_rows));
  file_.read(file_.tensors()[tensor], static_cast<uint64_t>(first_row) * row_bytes(tensor), raw.bytes);
  bytes_read_ += raw.bytes.size();
}

void GgufSource::refuse_row_of(const RawRows& raw, int64_t weight) const {
  const LogicalTensor& tensor = tensors_[raw.tensor];
  throw Error(ErrorKind::kFormat,
              "row " + std::to_string(raw.first_row + weight / tensor.shape.row_length()) + " has a NaN or infinite weight")
      .tensor(tensor.name);
}

void GgufSource::decode(const RawRows& raw, std::span<float> out) const {
  const LogicalTensor& tensor = tensors_.at(raw.tensor);
  QUERN_CHECK(static_cast<int64_t>(out.size()) == raw.n_rows * tensor.shape.row_length());
  if (!has_decoder(tensor.source_type)) {
    throw Error(ErrorKind::kUnsupported, "holds " + std::string(name_of(tensor.source_type)) + ", which are no weights")
        .tensor(tensor.name);
  }
  decode_blocks(tensor.source_type, raw.bytes, out);
  const int64_t bad = find_nonfinite_block(DType::F32, std::as_bytes(out));
  if (bad >= 0) refuse_row_of(raw, bad);
}

bool GgufSource::can_copy(size_t tensor, DType type) const { return tensors_.at(tensor).source_type == type; }

void GgufSource::copy(const RawRows& raw, DType type, std::span<std::byte> out) const {
  QUERN_CHECK(can_copy(raw.tensor, type) && out.size() == raw.bytes.size());
  const int64_t bad = find_nonfinite_block(type, raw.bytes);
  if (bad >= 0) refuse_row_of(raw, bad * traits(type).block_weights);
  std::ranges::copy(raw.bytes, out.begin());
}

}  // namespace quern
