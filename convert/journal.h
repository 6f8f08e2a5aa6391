#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace quern {

// What is safely on disk of an output that is being written: JSON lines in "FILE.part.journal" beside the part file (described
// in docs/formats/plan.md). A line is appended only after the data it speaks of was synced, so that whatever a crash leaves, every
// line that can be read is true. The file goes away with the object, whether the output was finished or given up.
class Journal {
 public:
  // header: the first line, a JSON object without its newline.
  Journal(std::filesystem::path path, const std::string& header);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Chunks [0, n_chunks), which are the first tensor_bytes of the output's tensor data, are on disk.
  void record(int64_t n_chunks, uint64_t tensor_bytes);

 private:
  void append(const std::string& line);

  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace quern
