#include "convert/report_json.h"

#include <nlohmann/json.hpp>

#include "convert/plan/memory.h"
#include "convert/plan/planned_build.h"
#include "formats/base/resources.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const FileReport& file) { return {{"name", file.name}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}}; }

ordered_json to_json(const OutputReport& output) {
  ordered_json files = ordered_json::array();
  for (const FileReport& file : output.files) files.push_back(to_json(file));
  ordered_json entry = {{"type", output.mix},
                        {"files", files},
                        {"size_bytes", output.size_bytes},
                        {"bits_per_weight", output.bits_per_weight},
                        {"encode_seconds", output.encode_seconds},
                        {"relative_error", output.relative_error},
                        {"lossless", output.lossless},
                        {"exact_tensors", output.exact_tensors},
                        {"exact_weights", output.exact_weights}};
  for (const auto& [tensor, type, cut] : output.cuts)
    entry["cut"].push_back({{"tensor", tensor}, {"type", name_of(type)}, {"weights", cut.n}, {"largest", cut.largest}});
  return entry;
}

}  // namespace

std::string forecast_to_json(const Plan& plan, int threads) {
  ordered_json outputs = ordered_json::array();
  for (const PlannedOutput& output : plan.outputs) {
    ordered_json files = ordered_json::array();
    for (const PlannedFile& file : output.files) files.push_back({{"name", file.name}, {"size_bytes", file.size_bytes}});
    outputs.push_back(
        {{"type", output.mix}, {"files", files}, {"size_bytes", size_of(output)}, {"bits_per_weight", bits_per_weight(plan, output)}});
  }
  const ordered_json root = {{"schema", "quern.convert/1"},
                             {"dry_run", true},
                             {"outputs", outputs},
                             {"stored_bytes", plan.source_bytes()},
                             {"weights", plan.n_weights()},
                             {"memory_bytes", predicted_memory(plan, threads)},
                             {"memory_budget_bytes", plan.memory_bytes},
                             {"notes", plan.notes},
                             {"warnings", plan.warnings}};
  return root.dump(1) + "\n";
}

std::string report_to_json(const ConvertReport& report) {
  ordered_json outputs = ordered_json::array();
  for (const OutputReport& output : report.outputs) outputs.push_back(to_json(output));
  ordered_json root = {{"schema", "quern.convert/1"},
                       {"dry_run", false},
                       {"outputs", outputs},
                       {"stored_bytes", report.stored_bytes},
                       {"bytes_read", report.bytes_read},
                       {"seconds", report.seconds},
                       {"peak_memory_bytes", peak_resident_bytes()},
                       {"notes", report.notes},
                       {"warnings", report.warnings},
                       {"zero_tensors", report.zero_tensors}};
  for (const auto& [tensor, outcome] : report.feedback) {
    root["feedback"].push_back({{"tensor", tensor},
                                {"type", name_of(outcome.dtype)},
                                {"rows", outcome.n_rows},
                                {"plain_rows", outcome.n_plain},
                                {"plain_error", outcome.plain_error},
                                {"error", outcome.error}});
  }
  return root.dump(1) + "\n";
}

}  // namespace quern
