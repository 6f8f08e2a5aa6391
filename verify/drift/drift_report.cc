#include "verify/drift/drift_report.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/json_tree.h"
#include "formats/base/resources.h"

// Writer and reader stand side by side and name the same members in the same order. The summary has nothing in it that two runs of the same
// measurement could differ in, so that a manifest that holds it stays the same; bytes read and memory go with the detail. JSON has no NaN
// and no infinity: the library writes null for them, and null is read as NaN.

namespace quern {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSchema = "quern.drift/1";
constexpr int kMaxDepth = 12;
constexpr size_t kMaxModels = 1000;

ordered_json to_json(Estimate e) { return {{"value", e.value}, {"error", e.error}}; }

ordered_json to_json(const KlHistogram& h) {
  return {{"from", KlHistogram::kFirst},
          {"bins_per_decade", KlHistogram::kPerDecade},
          {"below", h.below},
          {"counts", h.counts},
          {"above", h.above}};
}

void put_tokens(ordered_json& entry, const std::vector<TokenDrift>& tokens, int64_t n_per_chunk) {
  ordered_json nll = ordered_json::array(), original = nll, divergence = nll, same = nll, chunk_nll = nll, chunk_kl = nll;
  double sum_nll = 0.0, sum_kl = 0.0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const TokenDrift& t = tokens[i];
    nll.push_back(t.nll);
    original.push_back(t.nll_original);
    divergence.push_back(t.kl);
    same.push_back(t.same_top);
    sum_nll += t.nll;
    sum_kl += t.kl;
    if ((i + 1) % static_cast<size_t>(n_per_chunk) != 0) continue;
    chunk_nll.push_back(sum_nll / static_cast<double>(n_per_chunk));
    chunk_kl.push_back(sum_kl / static_cast<double>(n_per_chunk));
    sum_nll = sum_kl = 0.0;
  }
  entry["chunks"] = {{"nll", chunk_nll}, {"kl", chunk_kl}};
  entry["tokens"] = {{"nll", nll}, {"nll_original", original}, {"kl", divergence}, {"same_top", same}};
}

ordered_json to_json(const DriftRow& row, DriftDetail detail, int64_t n_per_chunk) {
  const DriftStatistics& s = row.drift.statistics;
  ordered_json entry = {{"name", row.name}, {"size_bytes", row.size_bytes}, {"bits_per_weight", row.bits_per_weight}};
  if (detail == DriftDetail::kTokens) entry["bytes_read"] = row.drift.bytes_read;
  entry["scored_tokens"] = s.n_tokens;
  entry["ppl"] = to_json(s.ppl);
  entry["ppl_original"] = to_json(s.ppl_original);
  entry["ln_ppl_ratio"] = to_json(s.ln_ratio);
  entry["ppl_ratio"] = to_json(s.ratio);
  entry["ppl_difference"] = to_json(s.difference);
  entry["correlation"] = s.correlation;
  entry["kl"] = {{"mean", s.kl.value}, {"error", s.kl.error},   {"truncation_slack", s.kl_slack},
                 {"min", s.kl_min},    {"median", s.kl_median}, {"p90", s.kl_90},
                 {"p95", s.kl_95},     {"p99", s.kl_99},        {"p99_9", s.kl_999},
                 {"max", s.kl_max}};
  entry["kl_histogram"] = to_json(s.kl_histogram);
  entry["same_top"] = to_json(s.same_top);
  entry["probability_change"] = to_json(s.probability_change);
  entry["rms_probability_change"] = to_json(s.rms_probability_change);
  ordered_json experts = ordered_json::array();
  for (const ExpertChange& change : row.drift.expert_changes) experts.push_back({{"layer", change.layer}, {"share", change.share}});
  entry["expert_changes"] = experts;
  if (detail == DriftDetail::kTokens) put_tokens(entry, row.drift.tokens, n_per_chunk);
  return entry;
}

// Counts and sizes: whole numbers that an int64_t holds.
int64_t count_from(const json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw Error(ErrorKind::kFormat, "'" + printable(value.dump(), 40) + "' is not a count");
  }
  return value.get<int64_t>();
}

double number_from(const json& value) { return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>(); }

Estimate estimate_from(const json& entry, const char* value) { return {number_from(entry.at(value)), number_from(entry.at("error"))}; }

KlHistogram histogram_from(const json& entry) {
  if (number_from(entry.at("from")) != KlHistogram::kFirst || count_from(entry.at("bins_per_decade")) != KlHistogram::kPerDecade ||
      entry.at("counts").size() != KlHistogram::kBins) {
    throw Error(ErrorKind::kFormat, "kl_histogram has other bins than those of quern.drift/1");
  }
  KlHistogram histogram;
  histogram.below = static_cast<uint64_t>(count_from(entry.at("below")));
  histogram.above = static_cast<uint64_t>(count_from(entry.at("above")));
  for (size_t i = 0; i < KlHistogram::kBins; ++i) histogram.counts[i] = static_cast<uint64_t>(count_from(entry.at("counts").at(i)));
  return histogram;
}

DriftRow row_from(const json& entry) {
  DriftRow row;
  row.name = entry.at("name").get<std::string>();
  row.size_bytes = static_cast<uint64_t>(count_from(entry.at("size_bytes")));
  row.bits_per_weight = number_from(entry.at("bits_per_weight"));
  DriftStatistics& s = row.drift.statistics;
  s.n_tokens = count_from(entry.at("scored_tokens"));
  s.ppl = estimate_from(entry.at("ppl"), "value");
  s.ppl_original = estimate_from(entry.at("ppl_original"), "value");
  s.ln_ratio = estimate_from(entry.at("ln_ppl_ratio"), "value");
  s.ratio = estimate_from(entry.at("ppl_ratio"), "value");
  s.difference = estimate_from(entry.at("ppl_difference"), "value");
  s.correlation = number_from(entry.at("correlation"));
  const json& kl = entry.at("kl");
  s.kl = estimate_from(kl, "mean");
  s.kl_slack = number_from(kl.at("truncation_slack"));
  s.kl_min = number_from(kl.at("min"));
  s.kl_median = number_from(kl.at("median"));
  s.kl_90 = number_from(kl.at("p90"));
  s.kl_95 = number_from(kl.at("p95"));
  s.kl_99 = number_from(kl.at("p99"));
  s.kl_999 = number_from(kl.at("p99_9"));
  s.kl_max = number_from(kl.at("max"));
  s.same_top = estimate_from(entry.at("same_top"), "value");
  s.probability_change = estimate_from(entry.at("probability_change"), "value");
  s.rms_probability_change = estimate_from(entry.at("rms_probability_change"), "value");
  for (const json& change : entry.at("expert_changes")) {
    row.drift.expert_changes.push_back({count_from(change.at("layer")), number_from(change.at("share"))});
  }
  if (entry.contains("kl_histogram")) {
    s.kl_histogram = histogram_from(entry.at("kl_histogram"));
  } else if (entry.contains("tokens")) {
    for (const json& value : entry.at("tokens").at("kl")) s.kl_histogram.add(number_from(value));
  }
  return row;
}

}  // namespace

std::string drift_to_json(const DriftReport& report, DriftDetail detail) {
  ordered_json root = {{"schema", kSchema}, {"ctx", report.n_ctx}, {"chunks", report.n_chunks}, {"original", report.original}};
  if (!report.text.empty()) root["text"] = report.text;
  if (!report.warnings.empty()) root["warnings"] = report.warnings;
  root["models"] = ordered_json::array();
  for (const DriftRow& row : report.rows) root["models"].push_back(to_json(row, detail, report.n_ctx - 1 - report.n_ctx / 2));
  if (detail == DriftDetail::kTokens) {
    root["bytes_read"] = report.bytes_read;
    root["peak_memory_bytes"] = peak_resident_bytes();
  }
  return root.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

DriftReport drift_from_json(std::string_view text) {
  const json root = parse_json_tree(text, kMaxDepth);
  try {
    if (const std::string schema = root.at("schema").get<std::string>(); schema != kSchema) {
      throw Error(ErrorKind::kFormat, "schema is '" + printable(schema) + "', not " + kSchema);
    }
    DriftReport report;
    report.original = root.at("original").get<std::string>();
    report.text = root.value("text", "");
    report.n_ctx = count_from(root.at("ctx"));
    report.n_chunks = count_from(root.at("chunks"));
    report.warnings = root.value("warnings", std::vector<std::string>());
    if (root.at("models").size() > kMaxModels) throw Error(ErrorKind::kFormat, "more than " + std::to_string(kMaxModels) + " models");
    for (const json& entry : root.at("models")) report.rows.push_back(row_from(entry));
    return report;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not a drift report: ") + error.what());
  }
}

}  // namespace quern
