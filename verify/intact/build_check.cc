#include "verify/intact/build_check.h"

#include <algorithm>
#include <set>

#include "convert/record/build_record.h"
#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "formats/base/model_folder.h"
#include "formats/containers/container.h"
#include "verify/intact/file_scan.h"

// One reading of a file gives its sum, the sums of its pieces and of every array, and where the first weight is that is not finite. What
// differs is then told apart by which of these differ: a file that is shorter, a shard that belongs to another build, arrays that moved
// as a whole, a header that was edited, single pieces that were flipped. Explanations are tried from the most sweeping to the most
// exact, and findings of one kind are cut to a number that people read.

namespace quern {
namespace fs = std::filesystem;
namespace {

// A shard of which at least this share of the tensors differs, and so many, is another build's and not a damaged one.
constexpr double kForeignShare = 0.5;
constexpr size_t kForeignTensors = 3;
constexpr size_t kForeignDescriptions = 2;  // with another type, shape or name
constexpr size_t kMaxFindings = 20;         // per file and kind; the rest is counted

std::string shown(const std::string& tensor, int64_t slice) {
  return "'" + tensor + "'" + (slice >= 0 ? ", expert " + std::to_string(slice) : "");
}

// An array that the record of the build puts into a file: one plane of a tensor.
struct Recorded {
  const TensorRecord* tensor = nullptr;
  PlaneRecord plane;
  TensorInfo array;  // as the header should describe it
};

std::vector<Recorded> recorded_arrays(const BuildRecord& build) {
  std::vector<Recorded> recorded;
  for (const TensorRecord& tensor : build.tensors) {
    std::vector<TensorInfo> arrays =
        build.container->arrays({tensor.name, tensor.type, tensor.shape, 0, tensor_size_bytes(tensor.type, tensor.shape)});
    const std::vector<PlaneRecord> planes = planes_of(tensor);
    for (size_t p = 0; p < planes.size(); ++p) {
      arrays[p].file_offset = planes[p].offset;
      recorded.push_back({&tensor, planes[p], std::move(arrays[p])});
    }
  }
  return recorded;
}

// An array of the file as it lies there, with its record when there is one.
struct Located {
  TensorInfo info;
  const Recorded* recorded = nullptr;
};

// Side files come last.
size_t n_files_with_header(const BuildRecord& build) {
  return static_cast<size_t>(std::ranges::count_if(
      build.files, [&](const FileRecord& file) { return build.container->is_file_name(fs::path(file.name).filename().string()); }));
}

// One file of a build.
class FileCheck {
 public:
  FileCheck(const PublishedFolder& folder, const BuildRecord& build, size_t file, std::vector<Finding>& findings)
      : folder_(folder), build_(build), index_(file), record_(build.files[file]), findings_(findings), recorded_(recorded_arrays(build)) {
    for (const Recorded& array : recorded_) by_name_.try_emplace(array.array.name, &array);
  }

  void run(std::map<std::string, std::string>& actual_sums, Progress& progress) {
    const InputFile file(folder_.locate(record_.name));
    read_header(file);
    locate_tensors();
    std::vector<ScanRange> ranges;
    for (const Located& tensor : tensors_) {
      const size_t n_slices = tensor.recorded != nullptr ? std::max<size_t>(1, tensor.recorded->plane.slices_sha256.size()) : 1;
      ranges.push_back({tensor.info.file_offset, tensor.info.size_bytes, n_slices, tensor.info.dtype});
    }
    scan_ = scan_file(file, ranges, progress);
    actual_sums[record_.name] = scan_.sha256;
    report_nonfinite();
    compare();
  }

 private:
  Finding& add(const char* check, const char* kind, std::string message) {
    findings_.push_back(damage(check, kind, record_.name, std::move(message)));
    ++n_found_;
    return findings_.back();
  }

  // A side file has no header, and nothing but its bytes can be compared.
  void read_header(const InputFile& file) {
    if (!has_header()) return;
    try {
      header_ = build_.container->read_header(file);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal) throw;
      header_error_ = error.message();
    }
  }

  bool has_header() const { return build_.container->is_file_name(fs::path(record_.name).filename().string()); }

  // Places come from the header where it can be read, so that data that moved as a whole is still recognised; else from the record.
  void locate_tensors() {
    if (header_) {
      for (const TensorInfo& info : header_->arrays) {
        const auto found = by_name_.find(info.name);
        const bool fits =
            found != by_name_.end() && found->second->tensor->file == index_ && found->second->array.size_bytes == info.size_bytes;
        tensors_.push_back({info, fits ? found->second : nullptr});
      }
      return;
    }
    for (const Recorded& array : recorded_) {
      if (array.tensor->file == index_) tensors_.push_back({array.array, &array});
    }
  }

  void report_nonfinite() {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (!scan_.ranges[t].nonfinite_at) continue;
      Finding& finding = add("weights", "nonfinite", "a scale or weight is NaN or infinite");
      finding.offset = scan_.ranges[t].nonfinite_at;
      finding.tensor = tensors_[t].info.name;
    }
  }

  void compare() {
    const bool intact = scan_.sha256 == record_.sha256 && scan_.pieces_sha256 == record_.pieces_sha256;
    n_found_ = 0;
    if (report_other_file() || report_foreign()) return;
    compare_sizes();
    if (!header_ && has_header() && scan_.size_bytes >= record_.size_bytes) add("structure", "damaged-header", header_error_);
    if (header_) compare_headers();
    for (size_t t = 0; t < tensors_.size(); ++t) compare_tensor(tensors_[t], scan_.ranges[t], intact);
    if (intact) return;
    if (n_found_ == 0 || scan_.size_bytes == record_.size_bytes) report_rest();
  }

  // The file is, byte for byte, another one of the folder.
  bool report_other_file() {
    if (scan_.sha256 == record_.sha256) return false;
    for (const BuildRecord& build : folder_.builds) {
      for (const FileRecord& file : build.files) {
        if (file.sha256 != scan_.sha256 || file.name == record_.name) continue;
        add("contents", "foreign-shard", "is the file " + file.name + " under another name");
        return true;
      }
    }
    return false;
  }

  static bool describe_alike(const TensorInfo& a, const TensorInfo& b) { return a.dtype == b.dtype && a.shape == b.shape; }

  bool report_foreign() {
    if (!header_ || scan_.sha256 == record_.sha256) return false;
    size_t n_differ = 0, n_described_otherwise = 0;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const Recorded* recorded = tensors_[t].recorded;
      const bool otherwise = recorded == nullptr || !describe_alike(recorded->array, tensors_[t].info);
      n_described_otherwise += otherwise ? 1 : 0;
      n_differ += otherwise || scan_.ranges[t].sha256 != recorded->plane.sha256 ? 1 : 0;
    }
    const size_t n_files = n_files_with_header(build_);
    const std::optional<FileHeader::Place>& place = header_->place;
    const bool wrong_number =
        n_files > 1 && place && (std::cmp_not_equal(place->number, index_) || std::cmp_not_equal(place->n_files, n_files));
    const bool many = n_differ >= kForeignTensors || n_described_otherwise >= kForeignDescriptions;
    if (!wrong_number && !(many && static_cast<double>(n_differ) >= kForeignShare * static_cast<double>(tensors_.size()))) return false;
    add("contents", "foreign-shard",
        "is of another build: " + std::to_string(n_differ) + " of its " + counted(tensors_.size(), "tensor") + " differ from the record" +
            (wrong_number ? ", and its place in the set is another" : ""));
    return true;
  }

  void compare_sizes() {
    const std::string size = std::to_string(scan_.size_bytes), published = std::to_string(record_.size_bytes);
    if (scan_.size_bytes > record_.size_bytes && !header_)
      add("contents", "trailing-bytes", size + " bytes, " + published + " were published").offset = record_.size_bytes;
    if (scan_.size_bytes >= record_.size_bytes) return;
    if (header_) return;  // complete in itself: a shorter header, which compare_headers() explains
    std::string message = "incomplete download: " + size + " of " + published + " bytes";
    Finding& finding = add("contents", "truncated", "");
    finding.offset = scan_.size_bytes;
    const auto cut =
        std::ranges::find_if(tensors_, [&](const Located& t) { return t.info.file_offset + t.info.size_bytes > scan_.size_bytes; });
    if (cut != tensors_.end()) {
      finding.tensor = cut->info.name;
      message += "; cut in this tensor, " + counted(static_cast<size_t>(tensors_.end() - cut), "tensor") + " incomplete";
    }
    finding.message = message;
  }

  void compare_headers() {
    if (index_ == 0) compare_keys();
    std::set<std::string_view> present;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      present.insert(tensors_[t].info.name);
      compare_description(tensors_[t]);
    }
    for (const Recorded& array : recorded_) {
      if (array.tensor->file == index_ && !present.contains(array.array.name))
        add("contents", "missing-tensor", "is not in the file").tensor = array.array.name;
    }
  }

  void compare_keys() {
    std::map<std::string, std::string> expected(build_.keys.begin(), build_.keys.end());
    const auto kind = [](const std::string& key) {
      return key.starts_with("tokenizer.chat_template") ? "edited-template" : "edited-metadata";
    };
    for (const auto& [key, sha256] : header_->values) {
      const auto found = expected.find(key);
      if (found == expected.end()) {
        add("contents", kind(key), "metadata key '" + printable(key) + "' was added");
      } else if (found->second != sha256) {
        add("contents", kind(key), "the value of metadata key '" + printable(key) + "' was changed");
      }
      if (found != expected.end()) expected.erase(found);
    }
    for (const auto& [key, sha256] : expected) add("contents", kind(key), "metadata key '" + printable(key) + "' was removed");
  }

  void compare_description(const Located& tensor) {
    const auto found = by_name_.find(tensor.info.name);
    if (found == by_name_.end()) {
      add("contents", "foreign-tensor", "is not in the record of the build").tensor = tensor.info.name;
      return;
    }
    const Recorded& recorded = *found->second;
    if (!describe_alike(recorded.array, tensor.info)) {
      add("contents", "changed-tensor",
          std::string(name_of(tensor.info.dtype)) + " " + tensor.info.shape.to_string() + ", " +
              std::string(name_of(recorded.array.dtype)) + " " + recorded.array.shape.to_string() + " was published")
          .tensor = tensor.info.name;
    } else if (recorded.tensor->file != index_) {
      add("contents", "foreign-tensor", "belongs into " + build_.files[recorded.tensor->file].name).tensor = tensor.info.name;
    }
  }

  void compare_tensor(const Located& tensor, const RangeScan& scan, bool intact) {
    if (tensor.recorded == nullptr || scan.sha256.empty()) return;
    const std::vector<std::string>& slices = tensor.recorded->plane.slices_sha256;
    if (scan.sha256 == tensor.recorded->plane.sha256 && (slices.empty() || slices == scan.slices_sha256)) return;
    if (intact) {
      add("manifest", "wrong-record", "the file is as published, but its bytes do not have the sum that the record gives").tensor =
          tensor.info.name;
      return;
    }
    bool named = false;
    const bool moved = !owner_of(scan.sha256).empty();  // as a whole
    for (size_t s = 0; !moved && s < scan.slices_sha256.size(); ++s) {
      if (scan.slices_sha256[s] == slices[s]) continue;
      const uint64_t bytes = tensor.info.size_bytes / slices.size();
      report_bytes(tensor, static_cast<int64_t>(s), tensor.info.file_offset + s * bytes, bytes, scan.slices_sha256[s]);
      named = true;
    }
    if (!named) report_bytes(tensor, -1, tensor.info.file_offset, tensor.info.size_bytes, scan.sha256);
  }

  void report_bytes(const Located& tensor, int64_t slice, uint64_t offset, uint64_t size, const std::string& sha256) {
    const std::string other = owner_of(sha256);
    Finding& finding = other.empty() ? add("contents", "flipped-bytes", "") : add("contents", "swapped", "holds the bytes of " + other);
    finding.tensor = tensor.info.name;
    finding.slice = slice;
    const auto [first, end] = differing_bytes(tensor, offset, size);
    finding.offset = first;
    if (other.empty()) finding.message = "bytes " + std::to_string(first) + " to " + std::to_string(end - 1) + " are not as published";
  }

  // Whose recorded bytes these are; empty when nobody's.
  std::string owner_of(const std::string& sha256) const {
    for (const Recorded& recorded : recorded_) {
      if (recorded.plane.sha256 == sha256) return shown(recorded.array.name, -1);
      const std::vector<std::string>& slices = recorded.plane.slices_sha256;
      for (size_t s = 0; s < slices.size(); ++s) {
        if (slices[s] == sha256) return shown(recorded.array.name, static_cast<int64_t>(s));
      }
    }
    return "";
  }

  // [offset, offset + size) less the pieces at both ends that are as published.
  std::pair<uint64_t, uint64_t> differing_bytes(const Located& tensor, uint64_t offset, uint64_t size) const {
    uint64_t first = offset, end = offset + size;
    if (tensor.info.file_offset != tensor.recorded->plane.offset) return {first, end};
    const auto good = [this](uint64_t piece) {
      return piece < scan_.pieces_sha256.size() && piece < record_.pieces_sha256.size() &&
             scan_.pieces_sha256[piece] == record_.pieces_sha256[piece];
    };
    while (first < end && good(first / kPieceBytes)) first = std::min(end, (first / kPieceBytes + 1) * kPieceBytes);
    while (end > first && good((end - 1) / kPieceBytes)) end = std::max(first, (end - 1) / kPieceBytes * kPieceBytes);
    return first < end ? std::pair(first, end) : std::pair(offset, offset + size);
  }

  // What is left: header bytes that say the same in another way, padding between tensors.
  void report_rest() {
    const bool found_before = n_found_ > 0;
    for (size_t p = 0; p < record_.pieces_sha256.size(); ++p) {
      if (p < scan_.pieces_sha256.size() && scan_.pieces_sha256[p] == record_.pieces_sha256[p]) continue;
      if (found_before && is_explained(p * kPieceBytes)) continue;
      add("contents", "flipped-bytes",
          has_header() ? "padding or header bytes in this MiB are not as published; metadata and tensors are"
                       : "bytes in this MiB are not as published")
          .offset = p * kPieceBytes;
    }
    if (n_found_ == 0) add("contents", "flipped-bytes", "is not as published, though its pieces are");
  }

  // Whether a piece differs because of what was found already: it is part of the header, or of a tensor that differs.
  bool is_explained(uint64_t begin) const {
    const uint64_t end = begin + kPieceBytes;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const TensorInfo& info = tensors_[t].info;
      if (t == 0 && begin < info.file_offset) return true;
      const bool differs = tensors_[t].recorded == nullptr || scan_.ranges[t].sha256 != tensors_[t].recorded->plane.sha256;
      if (differs && begin < info.file_offset + info.size_bytes && info.file_offset < end) return true;
    }
    return tensors_.empty();
  }

  const PublishedFolder& folder_;
  const BuildRecord& build_;
  const size_t index_;
  const FileRecord& record_;
  std::vector<Finding>& findings_;
  const std::vector<Recorded> recorded_;  // of the whole build
  std::map<std::string_view, const Recorded*> by_name_;
  size_t n_found_ = 0;
  std::optional<FileHeader> header_;
  std::string header_error_;
  std::vector<Located> tensors_;
  FileScan scan_;
};

// Keeps the first findings of each kind in a file and counts the rest.
void shorten(std::vector<Finding>& findings, size_t from) {
  std::map<std::pair<std::string, std::string>, size_t> counts;
  std::vector<Finding> kept;
  for (size_t i = from; i < findings.size(); ++i) {
    if (++counts[{findings[i].file, findings[i].kind}] <= kMaxFindings) kept.push_back(findings[i]);
  }
  for (const auto& count : counts) {  // no structured binding: clang 14 captures none
    if (count.second <= kMaxFindings) continue;
    const auto last = std::find_if(kept.rbegin(), kept.rend(), [&](const Finding& f) { return std::pair(f.file, f.kind) == count.first; });
    last->message += " (and " + std::to_string(count.second - kMaxFindings) + " more like this)";
  }
  findings.resize(from);
  findings.insert(findings.end(), kept.begin(), kept.end());
}

// Runs a step; what it throws is damage of the file, and the others are looked at all the same.
template <typename Step>
void attempt(const char* check, const char* kind, const std::string& file, std::vector<Finding>& findings, const Step& step) {
  try {
    step();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kInterrupted) throw;
    findings.push_back(damage(check, kind, file, error.message()));
  }
}

// Whether something else lies in the place of a file: nothing, a Git LFS pointer, a page. It becomes a finding.
bool is_stand_in(const fs::path& path, const char* check, const std::string& file, std::vector<Finding>& findings) {
  const size_t before = findings.size();
  attempt(check, "stand-in", file, findings, [&] { refuse_stand_in(InputFile(path)); });
  return findings.size() > before;
}

// Names by the place that a header states.
std::vector<std::string> set_names(const Container& container, const std::string& name, const FileHeader& header) {
  const FileHeader::Place place = header.place.value_or(FileHeader::Place{});
  if (place.number < 0 || place.number >= place.n_files || std::cmp_greater(place.n_files, container.max_files())) return {name};
  const auto n_files = static_cast<size_t>(place.n_files);
  const std::string suffix = container.file_name("", static_cast<size_t>(place.number), n_files);
  if (!name.ends_with(suffix)) return {name};
  std::vector<std::string> names;
  for (size_t i = 0; i < n_files; ++i) names.push_back(container.file_name(name.substr(0, name.size() - suffix.size()), i, n_files));
  return names;
}

// Whether the files are there that the header of one says it has beside it. The first of those that are there speaks for all.
void check_set(const Container& container, const fs::path& folder, const std::string& name, const FileHeader& header,
               std::vector<Finding>& findings) {
  const std::vector<std::string> names = set_names(container, name, header);
  const auto is_here = [&](const std::string& file) { return fs::exists(folder / file); };
  if (const auto first = std::ranges::find_if(names, is_here); first == names.end() || *first != name) return;
  for (const std::string& file : names) {
    if (!is_here(file))
      findings.push_back(damage("structure", "missing-shard", file, "is missing, " + name + " says that it has it beside it"));
  }
}

}  // namespace

void check_build(const PublishedFolder& folder, const BuildRecord& build, std::map<std::string, std::string>& actual_sums,
                 std::vector<Finding>& findings, Progress& progress) {
  for (size_t f = 0; f < build.files.size(); ++f) {
    const size_t before = findings.size();
    const std::string& name = build.files[f].name;
    if (!folder.has(name)) {
      const size_t n_shards = n_files_with_header(build);
      const bool shard = n_shards > 1 && f < n_shards;
      const std::string message = "shard " + std::to_string(f + 1) + " of " + std::to_string(n_shards) + " is missing";
      findings.push_back(shard ? damage("contents", "missing-shard", name, message)
                               : damage("contents", "missing-file", name, "is missing"));
      continue;
    }
    if (is_stand_in(folder.locate(name), "contents", name, findings)) continue;
    attempt("contents", "unreadable-file", name, findings, [&] { FileCheck(folder, build, f, findings).run(actual_sums, progress); });
    shorten(findings, before);
  }
}

std::vector<std::string> files_of_set(const Container& container, const fs::path& folder, const std::string& name) {
  try {
    return set_names(container, name, container.read_header(InputFile(folder / name)));
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
    return {name};
  }
}

std::string check_unrecorded(const Container& container, const fs::path& folder, const std::string& name, std::vector<Finding>& findings,
                             Progress& progress) {
  std::string sum;
  if (is_stand_in(folder / name, "structure", name, findings)) return sum;
  attempt("structure", "damaged-header", name, findings, [&] {
    const InputFile file(folder / name);
    const FileHeader header = container.read_header(file);
    std::vector<ScanRange> ranges;
    for (const TensorInfo& tensor : header.arrays) ranges.push_back({tensor.file_offset, tensor.size_bytes, 1, tensor.dtype});
    const FileScan scan = scan_file(file, ranges, progress);
    sum = scan.sha256;
    for (size_t t = 0; t < ranges.size(); ++t) {
      if (!scan.ranges[t].nonfinite_at) continue;
      findings.push_back(damage("weights", "nonfinite", name, "a scale or weight is NaN or infinite"));
      findings.back().offset = scan.ranges[t].nonfinite_at;
      findings.back().tensor = header.arrays[t].name;
    }
    check_set(container, folder, name, header, findings);
  });
  return sum;
}

}  // namespace quern
