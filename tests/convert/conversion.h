#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/fill/destination.h"
#include "convert/plan/make_plan.h"
#include "convert/plan/plan.h"
#include "formats/base/file.h"
#include "formats/base/parallel.h"
#include "formats/base/sha256.h"
#include "tests/formats/builders.h"

namespace quern::test {

inline std::filesystem::path bundled(const std::string& name) { return std::filesystem::path(QUERN_TEST_DATA) / "models" / name; }

inline PlanOptions options_for(const std::filesystem::path& folder, std::vector<std::string> types) {
  PlanOptions options;
  options.output = folder;
  options.types = std::move(types);
  options.memory_bytes = uint64_t{2} << 30;
  return options;
}

inline std::string messages(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) text += problem.message + "\n";
  return text;
}

// A plan that must have no problems.
inline Plan plan_for(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options,
                     const Calibration& calibration = {}) {
  std::vector<Problem> problems;
  Plan plan = make_plan(source, model, options, problems, calibration);
  check_files(plan, source, problems);
  EXPECT_EQ(messages(problems), "");
  return plan;
}

inline ConvertReport convert(const std::filesystem::path& model, const PlanOptions& options, int threads = 2) {
  const ThreadLimit limit(threads);
  const std::unique_ptr<ModelSource> source = open_model(model);
  return run_plan(*source, plan_for(*source, model, options), no_progress());
}

// SHA-256 of every file of a folder by name.
inline std::map<std::string, std::string> hashes(const std::filesystem::path& folder) {
  std::map<std::string, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    found[entry.path().filename().string()] = sha256_hex(read_file(entry.path(), uint64_t{1} << 30));
  }
  return found;
}

// The one file of the folder whose name ends so.
inline std::filesystem::path file_ending(const std::filesystem::path& folder, const std::string& end) {
  std::filesystem::path match;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.path().string().ends_with(end)) continue;
    EXPECT_TRUE(match.empty()) << "several files end in " << end;
    match = entry.path();
  }
  EXPECT_FALSE(match.empty()) << "no file ends in " << end;
  return match;
}

inline std::filesystem::path copy_model(const std::string& name, const std::filesystem::path& to) {
  std::filesystem::copy(bundled(name), to, std::filesystem::copy_options::recursive);
  return to;
}

}  // namespace quern::test
