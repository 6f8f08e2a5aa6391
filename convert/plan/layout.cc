#include "convert/plan/layout.h"

#include <algorithm>

#include "formats/base/checked.h"
#include "formats/base/error.h"

// The layout of an output follows from its tensors and their types alone: tensors go into files in order, a file is its header and then
// plane after plane, each at the next multiple of the container's alignment. So everything is known before the first byte is read, a saved
// plan can be checked by laying it out again, and the writer needs no rule of its own: between two planes of the plan there are zeros.

namespace quern {
namespace {

FileContents contents_of(const Plan& plan, const PlannedOutput& output, size_t number, const Metadata& metadata) {
  const PlannedFile& file = output.files[number];
  FileContents contents{metadata, number, output.files.size(), plan.tensors.size(), {}};
  for (size_t t = file.first_tensor; t < file.first_tensor + file.n_tensors; ++t) {
    const Placement& placement = output.tensors[t];
    contents.tensors.push_back({plan.tensors[t].name, placement.type, plan.tensors[t].shape, 0, placement.size_bytes});
  }
  return contents;
}

std::vector<uint64_t> sizes_of_planes(const Plan& plan, const PlannedOutput& output, size_t t) {
  return plane_sizes(*output.container, output.tensors[t].type, plan.tensors[t].shape);
}

// Where the next plane may begin that follows `offset` bytes of data.
uint64_t next_place(const PlannedOutput& output, uint64_t offset) {
  const uint64_t alignment = output.container->alignment();
  return checked_add(offset, alignment - 1, "size of the data") / alignment * alignment;
}

// Consecutive tensors per file, at most split_bytes of padded data each; a larger tensor has a file of its own.
void divide_into_files(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output) {
  const uint64_t limit = split_bytes == 0 ? UINT64_MAX : split_bytes;
  std::vector<PlannedFile> files(1);
  uint64_t in_file = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    uint64_t padded = 0;
    for (const uint64_t size : sizes_of_planes(plan, output, t)) padded += next_place(output, size);
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
  const Metadata metadata = metadata_of(plan, output);
  for (size_t f = 0; f < output.files.size(); ++f) {
    PlannedFile& file = output.files[f];
    file.name = output.container->file_name(output.stem, f, output.files.size());
    file.data_offset = output.container->header(contents_of(plan, output, f, metadata)).size();
    uint64_t data_bytes = 0;
    for (size_t t = file.first_tensor; t < file.first_tensor + file.n_tensors; ++t) {
      Placement& placement = output.tensors[t];
      placement.file = static_cast<uint32_t>(f);
      placement.planes.clear();
      for (const uint64_t size : sizes_of_planes(plan, output, t)) {
        placement.planes.push_back({file.data_offset + data_bytes, size});
        data_bytes = next_place(output, checked_add(data_bytes, size, "size of the data"));
      }
    }
    file.size_bytes = file.data_offset + data_bytes;
  }
}

}  // namespace

void lay_out(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output) {
  divide_into_files(plan, split_bytes, metadata_shard, output);
  place_tensors(plan, output);
}

void add_side_files(const Plan& plan, PlannedOutput& output) {
  const Metadata metadata = metadata_of(plan, output);
  std::vector<NamedFile> files;
  for (size_t f = 0; f < output.files.size(); ++f) {
    files.push_back({output.files[f].name, contents_of(plan, output, f, metadata).tensors});
  }
  output.side_files = output.container->side_files(metadata, files, plan.model);
}

Metadata metadata_of(const Plan& plan, const PlannedOutput& output) {
  Metadata metadata = plan.metadata;
  for (const auto& [key, value] : output.metadata.entries()) metadata.set(key, value);
  return metadata;
}

std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file) {
  const Metadata metadata = metadata_of(plan, output);
  return output.container->header(contents_of(plan, output, file, metadata));
}

ValueSums recorded_values(const Plan& plan, const PlannedOutput& output) {
  const Metadata metadata = metadata_of(plan, output);
  return output.container->values(contents_of(plan, output, 0, metadata));
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
      if (is.file != expected.file ||
          !std::ranges::equal(is.planes, expected.planes, {}, &PlacedPlane::file_offset, &PlacedPlane::file_offset)) {
        throw Error(ErrorKind::kFormat, "is not where the tensors before it end").tensor(plan.tensors[t].name);
      }
    }
  }
}

void add_files(const Plan& plan, const PlannedOutput& output, Sha256& hash) {
  const auto add = [&hash](std::string_view text) { hash.update(std::as_bytes(std::span(text))); };
  const Metadata metadata = metadata_of(plan, output);
  for (size_t f = 0; f < output.files.size(); ++f) {
    add(relative_name(output, f) + "\n");
    hash.update(output.container->header(contents_of(plan, output, f, metadata)));
  }
  for (const SideFile& file : output.side_files) add(file.name + "\n" + file.bytes);
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
  for (const PlannedOutput& output : plan.outputs) add_files(plan, output, hash);
  return hash.finish_hex();
}

}  // namespace quern
