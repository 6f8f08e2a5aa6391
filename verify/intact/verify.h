#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "convert/record/build_record.h"
#include "formats/base/progress.h"
#include "verify/intact/verify_report.h"

namespace quern {

// Is a build what its publisher made? Signature, sums and records against the files, the files against the rules of their container, and
// with the original checkpoint the bytes themselves. Whatever is wrong is named as exactly as the records allow.

struct VerifyOptions {
  std::filesystem::path path;                       // a published folder, an output folder of convert, or a GGUF file (first shard)
  std::optional<std::filesystem::path> public_key;  // the attestation must be signed by it
  std::optional<std::filesystem::path> source;      // checkpoint to derive tensors from again
  std::optional<std::filesystem::path> imatrix;     // that the build was made with; default: the one published beside it
  std::filesystem::path statistics;                 // of the error feedback of builds: a folder,
  std::filesystem::path calib_text;                 // or the text, which is run again; both empty: none
  double sample = 0.05;                             // share of the chunks of every tensor, at least one; 1: all
  std::optional<std::string> tensors;               // regular expression: these only, completely
  uint64_t seed = 0;                                // decides the sample
};

// Throws only for what keeps it from looking at all: no such path, an unreadable key, a usage mistake, an interrupt.
VerifyReport verify(const VerifyOptions& options, Progress& progress);

}  // namespace quern
