#include "convert/plan/layout.h"

#include "formats/base/checked.h"
#include "formats/base/error.h"
#include "formats/base/sha256.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_edit.h"

namespace quern {
namespace {

std::vector<TensorInfo> file_tensors(const Plan& plan, const PlannedOutput& output, const PlannedFile& file) {
  std::vector<TensorInfo> infos;
  for (size_t t = file.first_tensor; t < file.first_tensor + file.n_tensors; ++t) {
    const Placement& placement = output.tensors[t];
    infos.push_back({plan.tensors[t].name, placement.type, plan.tensors[t].shape, 0, placement.size_bytes});
  }
  return infos;
}

// Consecutive tensors per file, at most split_bytes of padded data each; a larger tensor has a file of its own.
void divide_into_files(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output) {
  const uint64_t limit = split_bytes == 0 ? UINT64_MAX : split_bytes;
  std::vector<PlannedFile> files(1);
  uint64_t in_file = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const uint64_t padded = align_up(output.tensors[t].size_bytes, gguf::kDefaultAlignment);
    if (files.back().n_tensors > 0 && in_file + padded > limit) {
      files.push_back({});
      files.back().first_tensor = t;
      in_file = 0;
    }
    ++files.back().n_tensors;
    in_file += padded;
  }
  if (files.size() > 1 && metadata_shard) files.insert(files.begin(), PlannedFile{});
  output.files = std::move(files);
}

void place_tensors(const Plan& plan, PlannedOutput& output) {
  for (size_t f = 0; f < output.files.size(); ++f) {
    PlannedFile& file = output.files[f];
    file.name = output.files.size() == 1
                    ? output.stem + ".gguf"
                    : gguf::split_name(output.stem, static_cast<int64_t>(f), static_cast<int64_t>(output.files.size()));
    file.data_offset = file_header(plan, output, f).size();
    const gguf::Layout layout = gguf::layout(file_tensors(plan, output, file));
    file.size_bytes = file.data_offset + layout.blob_bytes;
    for (size_t i = 0; i < file.n_tensors; ++i) {
      output.tensors[file.first_tensor + i].file = static_cast<uint32_t>(f);
      output.tensors[file.first_tensor + i].file_offset = file.data_offset + layout.offsets[i];
    }
  }
}

}  // namespace

void lay_out(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output) {
  divide_into_files(plan, split_bytes, metadata_shard, output);
  place_tensors(plan, output);
}

Metadata file_metadata(const Plan& plan, const PlannedOutput& output, size_t file) {
  Metadata metadata;
  if (file == 0) {
    metadata = plan.metadata;
    for (const auto& [key, value] : output.metadata.entries()) metadata.set(key, value);
  }
  if (output.files.size() > 1) {
    metadata.set("split.no", static_cast<uint16_t>(file));
    metadata.set("split.count", static_cast<uint16_t>(output.files.size()));
    metadata.set("split.tensors.count", static_cast<int32_t>(plan.tensors.size()));
  }
  if (file == 0 && output.files.front().n_tensors > 0) gguf::reserve_padding(metadata);
  return metadata;
}

std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file) {
  return gguf::serialize_header(file_metadata(plan, output, file), file_tensors(plan, output, output.files[file]));
}

void check_layout(const Plan& plan) {
  for (const PlannedOutput& output : plan.outputs) {
    PlannedOutput placed = output;
    place_tensors(plan, placed);
    for (size_t f = 0; f < output.files.size(); ++f) {
      const PlannedFile &is = output.files[f], &expected = placed.files[f];
      if (is.name != expected.name || is.size_bytes != expected.size_bytes || is.data_offset != expected.data_offset) {
        throw Error(ErrorKind::kFormat, "name, size or start of the data is not what its tensors give ('" + printable(expected.name) +
                                            "', " + std::to_string(expected.size_bytes) + ", " + std::to_string(expected.data_offset) + ")")
            .file(is.name);
      }
    }
    for (size_t t = 0; t < output.tensors.size(); ++t) {
      const Placement &is = output.tensors[t], &expected = placed.tensors[t];
      if (is.file != expected.file || is.file_offset != expected.file_offset) {
        throw Error(ErrorKind::kFormat, "is not where the tensors before it end").tensor(plan.tensors[t].name);
      }
    }
  }
}

std::string plan_id(const Plan& plan) {
  Sha256 hash;
  const auto add = [&hash](std::string_view text) {
    hash.update(std::as_bytes(std::span(text)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  };
  add(plan.quern_version);
  for (const PlannedSource& source : plan.sources) add(source.name + " " + source.fingerprint);
  for (const PlannedTensor& tensor : plan.tensors) add(tensor.name + " " + std::to_string(tensor.chunk_rows));
  for (const PlannedOutput& output : plan.outputs) {
    for (size_t f = 0; f < output.files.size(); ++f) {
      add(relative_name(output, f));
      hash.update(file_header(plan, output, f));
    }
  }
  return hash.finish_hex();
}

}  // namespace quern
